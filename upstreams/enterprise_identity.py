"""Whose company vouches for whom: the tokens of people's sign-ins, from the room that keeps them.

Sign-in belongs to the site, which this room does not know; it registers a source at start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

TOKEN_TYPES: Final = {
    "id_token": "urn:ietf:params:oauth:token-type:id_token",
    "refresh_token": "urn:ietf:params:oauth:token-type:refresh_token",
    "access_token": "urn:ietf:params:oauth:token-type:access_token",
}


@dataclass(frozen=True, slots=True)
class SubjectToken:
    """A token of a person's sign-in; ``kind`` is one of ``TOKEN_TYPES``."""

    token: str = field(repr=False)
    kind: str

    @property
    def token_type(self) -> str:
        """The name of its kind (RFC 8693 3)."""
        return TOKEN_TYPES[self.kind]


@dataclass(frozen=True, slots=True)
class SignInWay:
    """A provider that can vouch for a person; a POST to the local ``address`` leads there.

    The address takes ``next``, where to come back to, and ``login_hint``.
    """

    name: str
    address: str


# Takes a user id, a kind of token and the provider ("" for the only one); blocking.
SubjectSource = Callable[[int, str, str], SubjectToken | None]
# Takes a user id and the provider ("" for any); blocking.
SignInWays = Callable[[int, str], Sequence[SignInWay]]
# Returns the ids of the providers whose sign-ins leave tokens; blocking.
Providers = Callable[[], list[str]]
_source: SubjectSource | None = None
_ways: SignInWays | None = None
_providers: Providers | None = None


def register_subject_source(
    source: SubjectSource | None, providers: Providers | None = None
) -> None:
    """Have another room say which token a person's sign-in left; called once at start."""
    global _source, _providers
    _source, _providers = source, providers


def providers_to_choose_from(provider: str) -> list[str]:
    """Return the providers one of which has to be named in the place of ``provider``.

    Without a name the only one is meant. Of several, one provider's token address must not
    be shown the tokens of another one (blocking).
    """
    found = _providers() if _providers is not None and not provider else []
    return found if len(found) > 1 else []


def subject_token(user_id: int, kind: str, provider: str = "") -> SubjectToken | None:
    """Return the token to show for a person, None if their sign-in left none (blocking)."""
    return _source(user_id, kind, provider) if _source is not None else None


def register_sign_in_ways(ways: SignInWays | None) -> None:
    """Have another room say where a person signs in again; called once at start."""
    global _ways
    _ways = ways


def sign_in_ways(user_id: int, provider: str = "") -> Sequence[SignInWay]:
    """Return where a person can get a token by signing in; nothing where nobody can (blocking)."""
    return _ways(user_id, provider) if _ways is not None else ()
