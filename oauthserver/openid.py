"""OpenID Connect on top: who the person is, for clients that ask (clients.md 1.3, row 16).

Served only when a signing key is configured; without one nothing of it is advertised.
"""

from typing import Any

from django.conf import settings


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
        "prompt_values_supported": ["none"],
    }
