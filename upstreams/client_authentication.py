"""How the gateway proves to an authorization server which client it is.

None, ``client_secret_basic``, ``client_secret_post`` (RFC 6749 2.3.1) and
``private_key_jwt`` (RFC 7523), whose keys ``client_keys`` keeps. A key derived from the
vault's ring is the first of them: every node has it without anything being stored.
"""

import base64
import functools
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote_plus

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto import jwk, jwt

from upstreams import token_vault

ALGORITHM: Final = "ES256"
ASSERTION_SECONDS: Final = 60
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Order of the curve P-256 (SEC 2, 2.4.2): a private key is a number below it.
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class ClientCredential:
    """The gateway's identity at one authorization server."""

    client_id: str
    method: str = "none"
    secret: str = field(default="", repr=False)


@functools.lru_cache(maxsize=8)
def _signing_key(seed: bytes) -> jwk.JWK:
    number = int.from_bytes(seed, "big") % (_P256_ORDER - 1) + 1
    private = ec.derive_private_key(number, ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key_from_pem(pem)


def key_from_pem(pem: bytes) -> jwk.JWK:
    """Return a private key with its id and use."""
    key = jwk.JWK.from_pem(pem)
    key.update(kid=key.thumbprint(), use="sig", alg=ALGORITHM)
    return key


def derived_keys() -> list[jwk.JWK]:
    """Return the keys that follow from the vault's ring, the current one first."""
    return [_signing_key(seed) for seed in token_vault.derive_key("upstream client assertion")]


def can_sign_for(signing_algorithms: Sequence[str]) -> bool:
    """Return whether a server that lists these algorithms takes our assertions."""
    return not signing_algorithms or ALGORITHM in signing_algorithms


def client_assertion(client_id: str, audience: str) -> str:
    """Return a short-lived, single-use assertion (RFC 7523 3); ``audience`` is the issuer.

    Blocking: which key signs is in the database.
    """
    from upstreams import client_keys

    now = int(time.time())
    key = client_keys.signing_key()
    token = jwt.JWT(
        header={"alg": ALGORITHM, "kid": key["kid"], "typ": "JWT"},
        claims={
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
            "jti": str(uuid.uuid4()),
        },
    )
    token.make_signed_token(key)
    return str(token.serialize())


def authenticate(
    credential: ClientCredential, audience: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the form members and headers that prove who we are (blocking)."""
    form = {"client_id": credential.client_id}
    if credential.method == "client_secret_basic":
        pair = f"{quote_plus(credential.client_id)}:{quote_plus(credential.secret)}"
        encoded = base64.b64encode(pair.encode()).decode("ascii")
        return {}, {"authorization": f"Basic {encoded}"}
    if credential.method == "client_secret_post":
        return {**form, "client_secret": credential.secret}, {}
    if credential.method == "private_key_jwt":
        assertion = client_assertion(credential.client_id, audience)
        return {
            **form,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": assertion,
        }, {}
    return form, {}
