"""What can go wrong towards an upstream.

    UpstreamError
    ├── UpstreamUnreachable      no connection: DNS, refused, TLS, connect timeout
    │   └── EgressRefused        the address is not one the gateway may connect to
    ├── UpstreamTimeout          connected, but no answer in time
    ├── UpstreamBusy             429, 503
    │   └── HeldBack             the gateway itself sent nothing: its own limit of calls in flight
    │       └── CircuitOpen      it failed too often in a row
    ├── UpstreamAnswerInvalid    HTML, malformed JSON, redirect, too large, wrong id
    ├── UpstreamIncompatible     speaks no revision that the gateway speaks
    ├── CredentialRefused        401: this credential is not accepted
    ├── ScopeInsufficient        403 insufficient_scope
    ├── NeedsConnection          the person has to connect (again)
    ├── SetupFailed              discovery, registration or token request failed; names the step
    └── ConnectRefused           the answer of an authorization server is not for this person

``message`` is safe to show to the person who made the call: it never holds a secret,
an address inside the network or text the upstream wrote. ``detail`` is for the
administrator and the log.
"""

from typing import ClassVar


class UpstreamError(Exception):
    """Base of everything that fails towards an upstream."""

    code: ClassVar[str] = "upstream_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail or message


class UpstreamUnreachable(UpstreamError):
    """No connection could be made; nothing was sent."""

    code = "unreachable"
    retryable = True


class EgressRefused(UpstreamUnreachable):
    """The name resolves to an address the gateway must not connect to."""

    code = "egress_refused"
    retryable = False


class UpstreamTimeout(UpstreamError):
    """The request was sent; whether it was carried out is not known."""

    code = "timeout"


class UpstreamBusy(UpstreamError):
    """The upstream (or our limit for it) asks to come back later.

    ``retry_after`` is in seconds.
    """

    code = "busy"
    retryable = True

    def __init__(self, message: str, *, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class HeldBack(UpstreamBusy):
    """The gateway itself sent nothing; how the upstream does is not known."""


class CircuitOpen(HeldBack):
    """The upstream failed several times in a row and is left alone for a while."""

    code = "circuit_open"


class UpstreamAnswerInvalid(UpstreamError):
    """The upstream answered with something that is not MCP."""

    code = "answer_invalid"


class UpstreamIncompatible(UpstreamError):
    """The upstream speaks only revisions that the gateway does not know."""

    code = "incompatible"


class CredentialRefused(UpstreamError):
    """HTTP 401 from the upstream: the call was not carried out.

    ``challenge`` is its ``WWW-Authenticate`` value, for discovery only; it never
    reaches a client (protocol.md D8).
    """

    code = "credential_refused"

    def __init__(self, message: str, *, detail: str = "", challenge: str = "") -> None:
        super().__init__(message, detail=detail)
        self.challenge = challenge


class ScopeInsufficient(CredentialRefused):
    """HTTP 403 with ``insufficient_scope``; ``scope`` is what the upstream asks for."""

    code = "scope_insufficient"

    def __init__(
        self, message: str, *, detail: str = "", challenge: str = "", scope: str = ""
    ) -> None:
        super().__init__(message, detail=detail, challenge=challenge)
        self.scope = scope


class NeedsConnection(UpstreamError):
    """The person has no usable account on this upstream; ``reason`` says which case it is.

    ``reason`` is ``not_connected``, ``reconnect`` (the grant died) or ``scope``.
    """

    code = "needs_connection"

    def __init__(
        self, message: str, *, upstream_id: int, upstream_key: str, title: str, reason: str
    ) -> None:
        super().__init__(message)
        self.upstream_id = upstream_id
        self.upstream_key = upstream_key
        self.title = title
        self.reason = reason


class SetupFailed(UpstreamError):
    """A step on the way to a credential failed.

    ``step`` is one of ``address``, ``protected_resource_metadata``,
    ``authorization_server_metadata``, ``registration``, ``authorization``, ``token``,
    ``enterprise``.
    ``retry_after`` is in seconds, where the other side named a time.
    """

    code = "setup_failed"

    def __init__(
        self,
        step: str,
        message: str,
        *,
        detail: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, detail=detail)
        self.step = step
        self.transient = retryable
        self.retry_after = retry_after


class ConnectRefused(UpstreamError):
    """The way back from an authorization server ends here; nothing was stored.

    ``reason`` is one of ``unknown``, ``expired``, ``used``, ``other_browser``,
    ``other_person``, ``other_address``, ``issuer``, ``denied``, ``answer``. ``upstream_key``
    and ``return_to`` are set only where the person is known to be the one who began.
    ``code_given`` is the authorization server's error code where it is one that is known.
    """

    code = "connect_refused"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        detail: str = "",
        upstream_key: str = "",
        return_to: str = "",
    ) -> None:
        super().__init__(message, detail=detail)
        self.reason = reason
        self.upstream_key = upstream_key
        self.return_to = return_to
        self.code_given = ""
