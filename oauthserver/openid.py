"""OpenID Connect on top: who the person is, for clients that ask (clients.md 1.3, row 16).

Served only when a signing key is configured; without one nothing of it is advertised.
"""

import json
from typing import Any

from allauth.account.models import EmailAddress
from django.conf import settings
from jwcrypto import jws
from jwcrypto.common import JWException
from oauth2_provider.utils import jwk_from_pem

from oauthserver.json_documents import DocumentInvalid, read_object

MAX_HINT = 4096


def enabled() -> bool:
    """Whether there is a key to sign ID tokens with."""
    return bool(settings.OIDC_RSA_PRIVATE_KEY)


def metadata() -> dict[str, Any]:
    """Return the members that OpenID Connect adds to the server's metadata."""
    if not enabled():
        return {}
    base = settings.PUBLIC_URL
    return {
        "userinfo_endpoint": f"{base}/oauth/userinfo",
        "jwks_uri": f"{base}/oauth/jwks",
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": [
            "sub",
            "auth_time",
            "name",
            "preferred_username",
            "email",
            "email_verified",
        ],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "claims_parameter_supported": False,
    }


def key_set() -> dict[str, Any]:
    """Return the public half of the signing key (RFC 7517)."""
    key = jwk_from_pem(settings.OIDC_RSA_PRIVATE_KEY)
    public = json.loads(key.export_public())
    return {"keys": [{**public, "kid": key.thumbprint(), "alg": "RS256", "use": "sig"}]}


def subject_of(id_token: str, client_id: str) -> str:
    """Return whom an ``id_token_hint`` names, or "" if it is not a token of ours for this client.

    An expired one is still a hint (OpenID Connect Core 3.1.2.1). What cannot be read is none: a
    client must be able to authorize again after our key has changed.
    """
    if not enabled() or not id_token or len(id_token) > MAX_HINT:
        return ""
    key = jwk_from_pem(settings.OIDC_RSA_PRIVATE_KEY)
    token = jws.JWS()
    token.allowed_algs = ["RS256"]
    try:
        token.deserialize(id_token, key)
        claims = read_object(token.payload)
    except (JWException, DocumentInvalid, ValueError, TypeError):
        return ""
    audiences = claims.get("aud")
    audiences = audiences if isinstance(audiences, list) else [audiences]
    ours = claims.get("iss") == settings.PUBLIC_URL and client_id in audiences
    subject = claims.get("sub")
    return subject if ours and isinstance(subject, str) else ""


def claims_of(user: Any) -> dict[str, Any]:
    """Return the claims about a person beside ``sub``."""
    claims = {"preferred_username": user.get_username(), "name": user.get_full_name()}
    if user.email:
        proven = EmailAddress.objects.filter(
            user=user, email__iexact=user.email, verified=True
        ).exists()
        claims |= {"email": user.email, "email_verified": proven}
    return {name: value for name, value in claims.items() if value != ""}


def claims_for(user: Any, scopes: frozenset[str]) -> dict[str, Any]:
    """Return ``sub`` and the claims that the scopes of a token cover (OIDC Core 5.4)."""
    covered = {
        "email": ("email", "email_verified"),
        "profile": ("name", "preferred_username"),
    }
    names = [name for scope in covered if scope in scopes for name in covered[scope]]
    known = claims_of(user)
    return {"sub": str(user.pk), **{name: known[name] for name in names if name in known}}
