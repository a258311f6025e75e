"""The answer to a refresh, given again to a client that did not receive it.

A client whose connection broke sends the same refresh token again. Within 60 seconds, and
while the successor is unused, it gets the very same answer (security.md #105, #107). The
answer is stored under a key that only the old refresh token yields: whoever reads the database
finds the token's digest, and cannot open it.
"""

import json
import time
from datetime import timedelta
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.utils import timezone

from oauthserver.models import RotationAnswer
from oauthserver.token_values import digest

WINDOW_SECONDS = 60
# The key is used once: a refresh token is rotated once. A fixed nonce is therefore safe.
_NONCE = bytes(12)


def remember(refresh_token: str, answer: dict[str, Any]) -> None:
    """Store the answer to a refresh. Call in the transaction of the rotation."""
    plain = json.dumps({**answer, "issued_at": int(time.time())}).encode()
    sealed = AESGCM(_key(refresh_token)).encrypt(_NONCE, plain, None)
    RotationAnswer.objects.update_or_create(
        checksum=digest(refresh_token),
        defaults={
            "sealed": sealed.hex(),
            "until": timezone.now() + timedelta(seconds=WINDOW_SECONDS),
        },
    )


def recall(refresh_token: str) -> dict[str, Any] | None:
    """Return the remembered answer with its ``expires_in`` as of now, or None."""
    row = RotationAnswer.objects.filter(
        checksum=digest(refresh_token), until__gt=timezone.now()
    ).first()
    if row is None:
        return None
    try:
        plain = AESGCM(_key(refresh_token)).decrypt(_NONCE, bytes.fromhex(row.sealed), None)
    except (InvalidTag, ValueError):
        return None
    answer: dict[str, Any] = json.loads(plain)
    age = int(time.time()) - answer.pop("issued_at")
    answer["expires_in"] = max(0, answer["expires_in"] - age)
    return answer


def _key(refresh_token: str) -> bytes:
    derivation = HKDF(SHA256(), 32, salt=None, info=b"oauthserver rotation answer 1")
    return derivation.derive(refresh_token.encode("utf-8", "surrogatepass"))
