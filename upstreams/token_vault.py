"""Secrets at rest: sealed under a ring of keys, with their owner bound inside.

The first key of the ring seals, all of them open. What is sealed for one owner does
not open for another, so a value copied into somebody else's row is useless. Nothing
is ever stored or returned in clear when a key is missing: sealing fails instead.

Where keys come from is a ``KeyRing``: the environment by default; a deployment that
unwraps its keys with a key management service gives its own with ``use_key_ring``.
"""

import base64
import binascii
import functools
from collections.abc import Sequence
from typing import Final, Protocol

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

KEY_BYTES: Final = 32
_FORMAT: Final = "v1"


class VaultError(Exception):
    """A secret cannot be sealed or opened; the text never holds the secret."""


class KeyRing(Protocol):
    """Where the keys come from; the first is the current one."""

    def load(self) -> Sequence[bytes]:
        """Return keys of 32 bytes each.

        Raises:
            VaultError: there are none, or one is not usable.
        """


class SettingsKeyRing:
    """The ring in ``GATEWAY_ENCRYPTION_KEYS``."""

    def load(self) -> Sequence[bytes]:
        """Decode the configured keys."""
        return _decoded(tuple(settings.GATEWAY_ENCRYPTION_KEYS))


@functools.lru_cache(maxsize=8)
def _decoded(texts: tuple[str, ...]) -> tuple[bytes, ...]:
    if not texts:
        raise VaultError("GATEWAY_ENCRYPTION_KEYS is not set.")
    return tuple(decode_key(text) for text in texts)


def decode_key(text: str) -> bytes:
    """Decode one configured key.

    Raises:
        VaultError: it is not the URL-safe base64 of 32 bytes, or all its bytes are equal.
    """
    try:
        key = base64.urlsafe_b64decode(text.strip().encode("ascii"))
    except (binascii.Error, ValueError, UnicodeEncodeError) as error:
        raise VaultError("An encryption key is not URL-safe base64.") from error
    if len(key) != KEY_BYTES:
        raise VaultError(f"An encryption key has {len(key)} bytes; it must have {KEY_BYTES}.")
    if len(set(key)) == 1:
        raise VaultError("An encryption key is one repeated byte; make a random one.")
    return key


_ring: KeyRing = SettingsKeyRing()


def use_key_ring(ring: KeyRing) -> None:
    """Take the keys from somewhere else; called once at start."""
    global _ring
    _ring = ring


@functools.lru_cache(maxsize=256)
def _derived(key: bytes, purpose: str) -> bytes:
    return HKDF(
        algorithm=SHA256(), length=KEY_BYTES, salt=b"mcp-gateway", info=purpose.encode()
    ).derive(key)


def derive_key(purpose: str) -> list[bytes]:
    """Return a 32-byte key for one purpose from every key of the ring, the current one first.

    HKDF-SHA256 (RFC 5869): keys of different purposes tell nothing about each other.

    Raises:
        VaultError: the ring has no usable key.
    """
    return [_derived(key, purpose) for key in _ring.load()]


@functools.lru_cache(maxsize=8)
def _fernet(keys: tuple[bytes, ...]) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derived(key, "vault"))) for key in keys])


@functools.lru_cache(maxsize=16)
def _key_id(key: bytes) -> str:
    return _derived(key, "vault key id")[:4].hex()


def current_key_id() -> str:
    """Return the public name of the sealing key, as it stands in sealed values."""
    return _key_id(_ring.load()[0])


def _encrypt(content: bytes) -> str:
    keys = tuple(_ring.load())
    return f"{_FORMAT}.{_key_id(keys[0])}.{_fernet(keys).encrypt(content).decode('ascii')}"


def _decrypt(sealed: str) -> bytes:
    form, _, rest = sealed.partition(".")
    _, _, token = rest.partition(".")
    if form != _FORMAT or not token:
        raise VaultError("A stored secret is not in the vault's form.")
    try:
        return _fernet(tuple(_ring.load())).decrypt(token.encode("ascii"))
    except (InvalidToken, UnicodeEncodeError) as error:
        raise VaultError("A stored secret cannot be opened with the configured keys.") from error


def seal(plaintext: bytes, owner: str) -> str:
    """Seal a secret for its owner (such as ``user:7/upstream:3``).

    Raises:
        VaultError: the ring has no usable key.
    """
    name = owner.encode()
    return _encrypt(len(name).to_bytes(4, "big") + name + plaintext)


def open_sealed(sealed: str, owner: str) -> bytes:
    """Open a secret for its owner.

    Raises:
        VaultError: wrong key, altered value, or a value that belongs to somebody else.
    """
    content = _decrypt(sealed)
    length = int.from_bytes(content[:4], "big")
    if content[4 : 4 + length] != owner.encode() or len(content) < 4 + length:
        raise VaultError("A stored secret belongs to another owner.")
    return content[4 + length :]


def is_current(sealed: str) -> bool:
    """Return whether a value is sealed with the current key."""
    return sealed.split(".", 2)[1:2] == [current_key_id()]


def reseal(sealed: str) -> str:
    """Seal the same content, owner included, with the current key.

    Raises:
        VaultError: it cannot be opened.
    """
    return _encrypt(_decrypt(sealed))
