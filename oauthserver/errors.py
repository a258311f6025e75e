"""What can go wrong at the authorization server.

    ProtocolError            an OAuth error: a code from a registry, a sentence, an HTTP status
    ├── InvalidClient        401; Basic is challenged if Basic was tried
    ├── InvalidRegistrationToken  401 with a Bearer challenge (RFC 7592)
    ├── LocalRefusal         shown on our own page: the client or redirect cannot be trusted
    │   └── NotAdmitted      the administrator's policy does not let the client in (yet)
    ├── RedirectRefusal      sent to the client's redirect URI
    ├── TooManyRequests      429 with Retry-After
    └── Unavailable          503: something of ours is down, the client keeps what it holds
    FetchFailed              a document of a client could not be fetched; ``detail`` is for the log

Descriptions go to clients and people: they hold no secret and no text of a third party.
"""

from typing import ClassVar


class ProtocolError(Exception):
    """An OAuth error answer (RFC 6749 5.2, RFC 7591 3.2.2)."""

    status: ClassVar[int] = 400
    # The value of WWW-Authenticate, where the status needs one.
    challenge: ClassVar[str] = ""

    def __init__(self, error: str, description: str, *, status: int | None = None) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.http_status = status or self.status


class InvalidClient(ProtocolError):
    """The client is unknown, switched off, or did not prove who it is."""

    status = 401
    # A 401 needs a challenge; Basic is the one scheme clients may use there.
    challenge = 'Basic realm="oauth", charset="UTF-8"'

    def __init__(self, description: str, *, basic: bool = False) -> None:
        super().__init__("invalid_client", description)
        self.basic = basic


class InvalidRegistrationToken(ProtocolError):
    """The token does not manage this registration, or there is no such (RFC 7592 2.1)."""

    status = 401
    challenge = 'Bearer realm="registration", error="invalid_token"'

    def __init__(self) -> None:
        super().__init__(
            "invalid_token", "The registration access token is not valid for this client."
        )


class LocalRefusal(ProtocolError):
    """The request cannot be answered at its redirect URI (RFC 6749 4.1.2.1)."""


class NotAdmitted(LocalRefusal):
    """The administrator's policy does not let the client in; ``waiting``: not yet.

    ``listed`` says whether the client is in the administrators' list.
    """

    status = 403

    def __init__(self, description: str, *, waiting: bool, listed: bool) -> None:
        super().__init__("unauthorized_client", description)
        self.waiting, self.listed = waiting, listed


class RedirectRefusal(ProtocolError):
    """The request is refused at the client's own, checked redirect URI."""


class TooManyRequests(ProtocolError):
    """The caller asked too often; ``retry_after`` is in seconds."""

    status = 429

    def __init__(self, description: str, retry_after: int) -> None:
        super().__init__("temporarily_unavailable", description)
        self.retry_after = retry_after


class Unavailable(ProtocolError):
    """A store of ours does not answer. Never ``invalid_grant``: the grant may be good."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "temporarily_unavailable", "The gateway cannot do this now. Try again in a moment."
        )


class FetchFailed(Exception):
    """A client's document was not fetched. The message is for the log only."""
