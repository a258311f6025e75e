"""The gateway's own addresses of upstreams' icons: ``/icons/{upstream}/{signature}/{url}``.

The signature keeps the gateway from fetching for whoever asks: only what an upstream named in a
list was ever signed. Nothing is stored, and every node makes the same address of the same icon, so
lists stay equal (a33).
"""

import base64
import binascii
import hashlib
import hmac
from functools import lru_cache
from typing import Final

from django.conf import settings

from upstreams.token_vault import derive_key

LONGEST_SOURCE: Final = 1_024
_LONGEST_NAME: Final = (4 * LONGEST_SOURCE + 2) // 3
_SIGNATURE_BYTES: Final = 16


def public(upstream_id: int, source: str) -> str:
    """Return where clients load an icon of an upstream, ``""`` if its URL is too long."""
    if len(source) > LONGEST_SOURCE or not source.isascii():
        return ""
    signature = _kept_signature(derive_key("icon")[0], upstream_id, source)
    return f"{settings.PUBLIC_URL}/icons/{upstream_id}/{signature}/{_text(source.encode())}"


def source_of(upstream_id: int, signature: str, name: str) -> str | None:
    """Return the URL an address stands for; ``None`` if the gateway did not make it.

    Anybody may ask: nothing is kept, and nothing long is looked at.
    """
    if len(name) > _LONGEST_NAME or not signature.isascii():
        return None
    try:
        source = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    good = any(
        hmac.compare_digest(_signature(key, upstream_id, source), signature)
        for key in derive_key("icon")
    )
    return source if good else None


@lru_cache(maxsize=4_096)
def _kept_signature(key: bytes, upstream_id: int, source: str) -> str:
    return _signature(key, upstream_id, source)


def _signature(key: bytes, upstream_id: int, source: str) -> str:
    mac = hmac.new(key, b"%d\n%s" % (upstream_id, source.encode()), hashlib.sha256)
    return _text(mac.digest()[:_SIGNATURE_BYTES])


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
