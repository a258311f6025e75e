"""The ``WWW-Authenticate`` header with which a client begins to authorize, or asks for more."""

from django.conf import settings

from oauthserver.challenges import bearer_challenge
from oauthserver.scopes import DEFAULT_SCOPE
from virtualmcp.route_table import VirtualMcpFacts
from virtualmcp.transport.http_answers import Header

_WIDER = "This call needs more than the token allows."


def metadata_url(server: VirtualMcpFacts) -> str:
    """Return where the metadata of this protected resource is (RFC 9728)."""
    return f"{settings.PUBLIC_URL}/.well-known/oauth-protected-resource/v1/mcp/{server.slug}"


def header(
    server: VirtualMcpFacts, error: str, description: str, scope: str = DEFAULT_SCOPE
) -> Header:
    """Compose the one challenge of a 401 or 403 (c2, c3, c8)."""
    challenge = bearer_challenge(metadata_url(server), scope, error, description)
    return (b"www-authenticate", challenge.encode("ascii"))


def wider_scope(server: VirtualMcpFacts, scope: str) -> tuple[Header, ...]:
    """Ask for all of ``scope``; nothing for ``""``."""
    return (header(server, "insufficient_scope", _WIDER, scope),) if scope else ()
