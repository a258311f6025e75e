"""OpenID Connect on top: who the person is, for clients that ask (clients.md 1.3, row 16).

Served only when a signing key is configured; without one nothing of it is advertised.
"""

import json
from typing import Any

from allauth.account.models import EmailAddress
from django.conf import settings
from oauth2_provider.utils import jwk_from_pem


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
        "claims_supported": ["sub", "name", "preferred_username", "email", "email_verified"],
        "claims_parameter_supported": False,
    }


def key_set() -> dict[str, Any]:
    """Return the public half of the signing key (RFC 7517)."""
    key = jwk_from_pem(settings.OIDC_RSA_PRIVATE_KEY)
    public = json.loads(key.export_public())
    return {"keys": [{**public, "kid": key.thumbprint(), "alg": "RS256", "use": "sig"}]}


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
