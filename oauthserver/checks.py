"""Checks of this room's settings, run by ``manage.py check`` and at every start."""

import ipaddress
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from oauth2_provider.utils import jwk_from_pem

SMALLEST_KEY_BITS = 2048


@register()
def check_signing_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The key for ID tokens must be a private RSA key of a size that still counts."""
    if not settings.OIDC_RSA_PRIVATE_KEY:
        return []
    hint = "Make one with: openssl genrsa 3072. Or leave the setting empty."
    try:
        key = jwk_from_pem(settings.OIDC_RSA_PRIVATE_KEY)
        usable = key.get("kty") == "RSA" and key.has_private
        size = key.get_op_key("sign").key_size if usable else 0
    except Exception:
        usable, size = False, 0
    if usable and size >= SMALLEST_KEY_BITS:
        return []
    text = f"OIDC_RSA_PRIVATE_KEY is not a private RSA key of at least {SMALLEST_KEY_BITS} bits."
    return [Error(text, hint=hint, id="oauthserver.E001")]


@register()
def check_shared_egress(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Every entry must be a network; a host bit set by mistake is a mistake."""
    messages: list[CheckMessage] = []
    for entry in settings.GATEWAY_SHARED_EGRESS:
        try:
            ipaddress.ip_network(entry)
        except ValueError as problem:
            hint = "Write networks, separated by commas: 160.79.104.0/21,2001:db8::/32"
            text = f"GATEWAY_SHARED_EGRESS: {problem}."
            messages.append(Error(text, hint=hint, id="oauthserver.E002"))
    return messages
