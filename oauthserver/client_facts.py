"""Reading client metadata (RFC 7591 2), whether sent to us or fetched from the client.

Pure: nothing is fetched and nothing stored. Unknown members are ignored, unknown grants and
response types dropped; what a client could use against people is refused.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from oauthserver import redirect_uris
from oauthserver.errors import ProtocolError

MAX_NAME = 100
MAX_REDIRECT_URIS = 10
MAX_KEYS = 10
MAX_URL = 2000
SECRET_METHODS = ("client_secret_basic", "client_secret_post")
AUTH_METHODS = ("none", *SECRET_METHODS, "private_key_jwt")
SIGNING_ALGORITHMS = ("RS256", "ES256")
GRANT_TYPES = ("authorization_code", "refresh_token")
_PAGES = ("client_uri", "logo_uri", "tos_uri", "policy_uri")


@dataclass(frozen=True)
class ClientFacts:
    """What the gateway keeps of a client's metadata."""

    name: str
    redirect_uris: tuple[str, ...]
    auth_method: str
    auth_methods: tuple[str, ...]
    signing_alg: str
    jwks_uri: str
    jwks: dict[str, Any] | None
    client_uri: str
    logo_uri: str
    software_id: str
    grant_types: tuple[str, ...]
    document: dict[str, Any] = field(repr=False)


def facts_of_registration(document: dict[str, Any]) -> ClientFacts:
    """Read a dynamic registration request.

    Raises:
        ProtocolError: ``invalid_redirect_uri`` or ``invalid_client_metadata``.
    """
    method = document.get("token_endpoint_auth_method")
    # Some clients send null for what they leave open.
    method = "client_secret_basic" if method is None else method
    if method not in AUTH_METHODS:
        raise _invalid("'token_endpoint_auth_method' must be one of " + ", ".join(AUTH_METHODS))
    return _facts(document, method, (method,), name_required=False)


def facts_of_document(document: dict[str, Any]) -> ClientFacts:
    """Read a Client ID Metadata Document.

    The auth method is chosen from the intersection of what the document offers with what
    needs no shared secret: the singular member is a preference, not a restriction
    (clients.md 1.4).

    Raises:
        ProtocolError: the document is not one the gateway accepts.
    """
    if "client_secret" in document or "client_secret_expires_at" in document:
        raise _invalid("a metadata document must not hold a secret")
    preferred = document.get("token_endpoint_auth_method")
    listed = document.get("token_endpoint_auth_methods_supported")
    offered = {*_strings(listed, "token_endpoint_auth_methods_supported")}
    if isinstance(preferred, str):
        offered.add(preferred)
    offered = offered or {"none"}
    usable = [method for method in ("none", "private_key_jwt") if method in offered]
    if "private_key_jwt" in usable and not _has_usable_keys(document):
        usable.remove("private_key_jwt")
    if not usable:
        raise _invalid("the document offers no authentication method that the gateway accepts")
    method = preferred if preferred in usable else usable[0]
    return _facts(document, method, tuple(usable), name_required=True)


def _facts(
    document: dict[str, Any], method: str, methods: tuple[str, ...], *, name_required: bool
) -> ClientFacts:
    for key, value in document.items():
        if key.partition("#")[0] in _PAGES:
            _check_page(key, value)
    if method == "private_key_jwt" and not _has_usable_keys(document):
        raise _invalid("'private_key_jwt' needs 'jwks_uri' or 'jwks', and RS256 or ES256")
    return ClientFacts(
        name=_name(document.get("client_name"), required=name_required),
        redirect_uris=_redirect_uris(document.get("redirect_uris")),
        auth_method=method,
        auth_methods=methods,
        signing_alg=_text(document, "token_endpoint_auth_signing_alg", 16),
        jwks_uri=checked_jwks_uri(document.get("jwks_uri")),
        jwks=checked_jwks(document.get("jwks")),
        client_uri=_text(document, "client_uri", MAX_URL),
        logo_uri=_text(document, "logo_uri", MAX_URL),
        software_id=_text(document, "software_id", 200),
        grant_types=_grant_types(document),
        document=document,
    )


def _name(value: object, *, required: bool) -> str:
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise _invalid("'client_name' must be a string")
    # Control and formatting characters could make the page lie about what is written.
    shown = "".join(c for c in value if unicodedata.category(c) not in ("Cc", "Cf")).strip()
    if len(shown) > MAX_NAME or (required and not shown):
        raise _invalid(f"'client_name' must have 1 to {MAX_NAME} characters")
    return shown


def _redirect_uris(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_REDIRECT_URIS:
        raise ProtocolError(
            "invalid_redirect_uri", f"'redirect_uris' must list 1 to {MAX_REDIRECT_URIS} URIs."
        )
    for uri in value:
        problem = redirect_uris.problem_with(uri)
        if problem:
            raise ProtocolError("invalid_redirect_uri", problem.capitalize() + ".")
    return tuple(value)


def _grant_types(document: dict[str, Any]) -> tuple[str, ...]:
    responses = document.get("response_types")
    if responses is not None and "code" not in _strings(responses, "response_types"):
        raise _invalid("'response_types' must contain 'code'")
    if document.get("grant_types") is None:
        return GRANT_TYPES
    asked = _strings(document["grant_types"], "grant_types")
    if "authorization_code" not in asked:
        raise _invalid("'grant_types' must contain 'authorization_code'")
    return tuple(grant for grant in GRANT_TYPES if grant in asked)


def _has_usable_keys(document: dict[str, Any]) -> bool:
    algorithm = document.get("token_endpoint_auth_signing_alg") or "RS256"
    named = document.get("jwks_uri") or document.get("jwks")
    return bool(named) and algorithm in SIGNING_ALGORITHMS


def checked_jwks_uri(value: object) -> str:
    """Return the URL of a key set, "" for none; raises ProtocolError."""
    if value is None:
        return ""
    # Only the form is checked: nothing is fetched before a client presents an assertion.
    if not isinstance(value, str) or not value.startswith("https://") or len(value) > MAX_URL:
        raise _invalid("'jwks_uri' must be an https URL")
    return value


def checked_jwks(value: object) -> dict[str, Any] | None:
    """Return a set of public keys, None for none; raises ProtocolError."""
    if value is None:
        return None
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise _invalid(f"'jwks' must be a key set of at most {MAX_KEYS} keys")
    for key in keys:
        if not isinstance(key, dict) or "d" in key or "k" in key:
            raise _invalid("'jwks' must hold public keys only")
    return {"keys": keys}


def _check_page(key: str, value: object) -> None:
    """Pages and logos are shown or linked, never fetched; still no scheme may surprise."""
    if value is None:
        return
    problem = _invalid(f"{key!r} must be an https URL")
    if not isinstance(value, str) or len(value) > MAX_URL or not value.isprintable():
        raise problem
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        raise problem from None
    local = parts.scheme == "http" and host in redirect_uris.LOOPBACK_HOSTS
    if not host or not (value.startswith("https://") or local):
        raise problem


def _text(document: dict[str, Any], key: str, limit: int) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit or "\x00" in value:
        raise _invalid(f"{key!r} must be a string of at most {limit} characters")
    return value


def _strings(value: object, key: str) -> Iterable[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise _invalid(f"{key!r} must be a list of strings")
    return value


def _invalid(description: str) -> ProtocolError:
    sentence = description[0].upper() + description[1:] + "."
    return ProtocolError("invalid_client_metadata", sentence)
