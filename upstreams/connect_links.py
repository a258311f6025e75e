"""Links to a connect page for one person (protocol.md 5.8).

The link holds a time and a seal over person and upstream, nothing readable. Whoever
opens it must be signed in as that person; it gives no rights by itself.
"""

import hmac
import time
from typing import Final
from urllib.parse import quote

from django.conf import settings
from django.utils.crypto import salted_hmac

LIFETIME: Final = 24 * 3600
PARAMETER: Final = "for"
_SALT: Final = "upstreams.connect_links"


def _seal(user_id: int, upstream_key: str, moment: int, secret: str) -> str:
    value = f"{user_id}\n{upstream_key}\n{moment}"
    return salted_hmac(_SALT, value, secret=secret, algorithm="sha256").hexdigest()[:40]


def connect_path(upstream_key: str) -> str:
    """Return the local path of an upstream's connect page."""
    return f"/connect/{quote(upstream_key)}/"


def done_path(upstream_key: str) -> str:
    """Return the local path of the page that ends a connect begun by an assistant's link."""
    return f"/connect/{quote(upstream_key)}/connected/"


def link_for(user_id: int, upstream_key: str) -> str:
    """Return the absolute address of a connect page that is for this person alone."""
    moment = int(time.time())
    seal = _seal(user_id, upstream_key, moment, settings.SECRET_KEY)
    return f"{settings.PUBLIC_URL}{connect_path(upstream_key)}?{PARAMETER}={moment:x}.{seal}"


def is_for(value: str, user_id: int, upstream_key: str) -> bool:
    """Return whether the seal of a link was made for this person, and not too long ago."""
    time_text, _, seal = value.partition(".")
    try:
        moment = int(time_text, 16)
    except ValueError:
        return False
    if not 0 <= time.time() - moment + 120 <= LIFETIME + 120:
        return False
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(
        hmac.compare_digest(_seal(user_id, upstream_key, moment, key).encode(), seal.encode())
        for key in keys
    )
