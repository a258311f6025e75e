"""The gateway's own client ID metadata documents (protocol.md e12, security.md #160).

Two, because a document names one way of authentication: ``gateway.json`` proves itself
with a key, ``gateway-public.json`` is for servers that take public clients only.
"""

from typing import Any, Final

from django.conf import settings

CALLBACK_PATH: Final = "/connect/callback"
DOCUMENT_NAMES: Final = ("gateway.json", "gateway-public.json")
_FOLDER: Final = "/.well-known/oauth-client"


def callback_url(upstream_key: str = "") -> str:
    """Return the redirect URI; with a key the one that only this upstream uses.

    A path of its own tells the answers of two authorization servers apart where they do
    not name themselves (RFC 9700 4.4.2.2).
    """
    suffix = f"/{upstream_key}" if upstream_key else ""
    return f"{settings.PUBLIC_URL}{CALLBACK_PATH}{suffix}"


def document_url(name: str) -> str:
    """Return the address, which is the client id, of one of our documents."""
    return f"{settings.PUBLIC_URL}{_FOLDER}/{name}"


def jwks_url() -> str:
    """Return the address of our public keys."""
    return f"{settings.PUBLIC_URL}{_FOLDER}/jwks.json"


def client_document(name: str) -> dict[str, Any]:
    """Return the metadata document of that name.

    Raises:
        KeyError: there is no such document.
    """
    if name not in DOCUMENT_NAMES:
        raise KeyError(name)
    document: dict[str, Any] = {
        "client_id": document_url(name),
        "client_name": client_name(),
        "client_uri": settings.PUBLIC_URL,
        "redirect_uris": [callback_url()],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "web",
        "token_endpoint_auth_method": "none",
    }
    if name == "gateway.json":
        document |= {
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "ES256",
            "jwks_uri": jwks_url(),
        }
    return document


def client_name() -> str:
    """Return the name that people read on the authorization server's page."""
    return f"MCP Gateway ({settings.PUBLIC_HOST})"
