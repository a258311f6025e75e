"""The scopes of this authorization server (design.md 5).

``mcp:tools`` is all a client needs and what every token holds. ``mcp:tools.write`` exists only
for resources that name it (``Resource.further_scopes``) and is advertised nowhere but in the
challenge of a call that needs it: clients that ask for all they see advertised would never be
asked separately. Unknown scopes are dropped and
never an error (clients.md 3.2): clients ask for whatever other servers wanted of them.
"""

from collections.abc import Iterable

from django.conf import settings
from oauth2_provider.scopes import BaseScopes

DEFAULT_SCOPE = "mcp:tools"
WRITE_SCOPE = "mcp:tools.write"
OFFLINE_ACCESS = "offline_access"
DESCRIPTIONS = {
    DEFAULT_SCOPE: "Use the tools, prompts and resources of this server in your name",
    OFFLINE_ACCESS: "Stay connected while you are away",
}
READ_ONLY_DESCRIPTION = "Use the tools that only read, prompts and resources in your name"
FURTHER_DESCRIPTIONS = {WRITE_SCOPE: "Use the tools that change something in your name"}
OPENID_DESCRIPTIONS = {
    "openid": "Know who you are",
    "email": "See your e-mail address",
    "profile": "See your name",
}


def known_scopes() -> dict[str, str]:
    """Return every scope that may be granted, with a description for people."""
    if settings.OIDC_RSA_PRIVATE_KEY:
        return {**DESCRIPTIONS, **OPENID_DESCRIPTIONS}
    return dict(DESCRIPTIONS)


def granted(asked: Iterable[str], further: Iterable[str] = ()) -> list[str]:
    """Reduce the scopes a client asks for to those it gets; always holds ``mcp:tools``.

    Args:
        further: scopes that the resource has beside the usual ones.
    """
    wanted = set(asked)
    offered = [DEFAULT_SCOPE, *further, *(s for s in known_scopes() if s != DEFAULT_SCOPE)]
    return [scope for scope in offered if scope in wanted or scope == DEFAULT_SCOPE]


def descriptions(scopes: Iterable[str], further: Iterable[str] = ()) -> list[str]:
    """Describe scopes for people; where writing is asked for separately, say what is not given."""
    told = {**known_scopes(), **FURTHER_DESCRIPTIONS}
    if WRITE_SCOPE in further:
        told[DEFAULT_SCOPE] = READ_ONLY_DESCRIPTION
    return [told[scope] for scope in scopes]


class GatewayScopes(BaseScopes):  # type: ignore[misc]
    """The library's view of the scopes above."""

    def get_all_scopes(self) -> dict[str, str]:
        """Return every scope with its description."""
        return known_scopes()

    def get_available_scopes(self, *args: object, **kwargs: object) -> list[str]:
        """Return the names of all scopes; every client may ask for each."""
        return list(known_scopes())

    def get_default_scopes(self, *args: object, **kwargs: object) -> list[str]:
        """Return what a request without ``scope`` gets."""
        return [DEFAULT_SCOPE]
