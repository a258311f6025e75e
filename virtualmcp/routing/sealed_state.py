"""State that a client carries for the gateway, sealed so that nobody else can read or make it.

``v1.<key id>.<base64url(nonce, ciphertext, tag)>``, AES-256-GCM. Every purpose has its own key,
derived from the key ring; whom the state belongs to is authenticated with it, so that a value of
one person, server or purpose does not open for another (protocol.md 2.5, D5). Nothing is stored:
any node with the same keys opens what another one sealed.
"""

import base64
import binascii
import os
import struct
import time
import zlib
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash

from upstreams.token_vault import derive_key

LONGEST_SEALED = 8_192
LARGEST_CONTENT = 65_536

_VERSION = "v1"
_NONCE_BYTES = 12
_TAG_BYTES = 16
# Shorter content does not get smaller.
_WORTH_COMPRESSING = 200
_PLAIN, _COMPRESSED = 0, 1
# Expiry in seconds since 1970, and how the content is written.
_PREFIX = struct.Struct(">IB")


class SealBroken(Exception):
    """Not sealed by us, for somebody or something else, altered, or too old."""


def seal(purpose: str, payload: bytes, *, bound_to: str, lifetime: int) -> str:
    """Seal ``payload`` for ``lifetime`` seconds.

    Args:
        purpose: what it is for, such as ``session``; other purposes can't open it.
        payload: any bytes.
        bound_to: whom and what it belongs to, such as server, person and client. Needed again
            to open it, and not contained in it.
        lifetime: seconds.

    Raises:
        VaultError: there is no usable key.
        ValueError: the payload is larger than ``LARGEST_CONTENT``.
    """
    if len(payload) > LARGEST_CONTENT:
        raise ValueError(f"at most {LARGEST_CONTENT} bytes can be sealed, not {len(payload)}")
    form, content = _PLAIN, payload
    if len(payload) > _WORTH_COMPRESSING:
        form, content = _COMPRESSED, zlib.compress(payload)
    key_id, cipher = _ciphers(purpose, tuple(derive_key(_key_purpose(purpose))))[0]
    nonce = os.urandom(_NONCE_BYTES)
    plaintext = _PREFIX.pack(int(time.time()) + lifetime, form) + content
    sealed = nonce + cipher.encrypt(nonce, plaintext, _bound(purpose, bound_to))
    return f"{_VERSION}.{key_id}.{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"


def unseal(purpose: str, sealed: str, *, bound_to: str) -> bytes:
    """Return what was sealed for the same purpose and owner.

    Raises:
        SealBroken: it was not, or its time is over. Why is not told.
        VaultError: there is no usable key.
    """
    payload, _ = unseal_with_expiry(purpose, sealed, bound_to=bound_to)
    return payload


def unseal_with_expiry(purpose: str, sealed: str, *, bound_to: str) -> tuple[bytes, int]:
    """Return what was sealed and when it ends, in seconds since 1970.

    Raises:
        SealBroken: as ``unseal``.
        VaultError: there is no usable key.
    """
    raw, key_id = _parts(sealed)
    ring = _ciphers(purpose, tuple(derive_key(_key_purpose(purpose))))
    cipher = next((known for known_id, known in ring if known_id == key_id), None)
    if cipher is None:
        raise SealBroken("sealed with a key that is not in the ring")
    try:
        plaintext = cipher.decrypt(
            raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound(purpose, bound_to)
        )
    except InvalidTag as error:
        raise SealBroken("altered, or sealed for something else") from error
    expires_at, form = _PREFIX.unpack_from(plaintext)
    if expires_at <= time.time():
        raise SealBroken("too old")
    content = plaintext[_PREFIX.size :]
    return (zlib.decompress(content) if form == _COMPRESSED else content), expires_at


def _parts(sealed: str) -> tuple[bytes, str]:
    version, _, rest = sealed.partition(".")
    key_id, _, text = rest.partition(".")
    if version != _VERSION or not text or len(sealed) > LONGEST_SEALED or not sealed.isascii():
        raise SealBroken("not in the form of a seal")
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise SealBroken("not in the form of a seal") from error
    # Of the spellings that base64 allows for the same bytes only our own is accepted.
    canonical = base64.urlsafe_b64encode(raw).decode().rstrip("=") == text
    if len(raw) < _NONCE_BYTES + _TAG_BYTES + _PREFIX.size or not canonical:
        raise SealBroken("not in the form of a seal")
    return raw, key_id


def _key_purpose(purpose: str) -> str:
    return f"sealed state: {purpose}"


@lru_cache(maxsize=64)
def _ciphers(purpose: str, keys: tuple[bytes, ...]) -> tuple[tuple[str, AESGCM], ...]:
    return tuple((_key_id(key), AESGCM(key)) for key in keys)


def _key_id(key: bytes) -> str:
    digest = Hash(SHA256())
    digest.update(b"sealed state key id" + key)
    return digest.finalize()[:4].hex()


def _bound(purpose: str, bound_to: str) -> bytes:
    # Lengths make sure that no purpose and owner together read like another pair.
    name = purpose.encode()
    return len(name).to_bytes(2, "big") + name + bound_to.encode()
