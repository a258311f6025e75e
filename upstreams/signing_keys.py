"""Keys for signing as an OAuth client: derived from the vault's ring, or newly made.

A derived key is the same on every node without anything being stored.
"""

import functools
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto import jwk

from upstreams import token_vault

ALGORITHM: Final = "ES256"
# Order of the curve P-256 (SEC 2, 2.4.2): a private key is a number below it.
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _pem(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def new_key() -> bytes:
    """Return a new private key as PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


@functools.lru_cache(maxsize=8)
def _signing_key(seed: bytes) -> jwk.JWK:
    number = int.from_bytes(seed, "big") % (_P256_ORDER - 1) + 1
    return key_from_pem(_pem(ec.derive_private_key(number, ec.SECP256R1())))


def key_from_pem(pem: bytes) -> jwk.JWK:
    """Return a private key with its id and use."""
    key = jwk.JWK.from_pem(pem)
    key.update(kid=key.thumbprint(), use="sig", alg=ALGORITHM)
    return key


def derived_keys() -> list[jwk.JWK]:
    """Return the keys that follow from the vault's ring, the current one first."""
    return [_signing_key(seed) for seed in token_vault.derive_key("upstream client assertion")]
