"""Checks ID tokens (OpenID Connect Core 3.1.3.7). Pure but for the clock.

The signature is checked although the token came straight from the token endpoint: what the
standard allows to leave out there rests on TLS alone.
"""

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

from jwcrypto.common import JWException
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from gateway_site.identity.errors import KeyUnknown, TokenRefused

# Asymmetric ones only: with a shared secret the gateway could have made the token itself.
ALGORITHMS = {
    "RS256": ("RSA", hashlib.sha256),
    "RS384": ("RSA", hashlib.sha384),
    "RS512": ("RSA", hashlib.sha512),
    "PS256": ("RSA", hashlib.sha256),
    "PS384": ("RSA", hashlib.sha384),
    "PS512": ("RSA", hashlib.sha512),
    "ES256": ("EC", hashlib.sha256),
    "ES384": ("EC", hashlib.sha384),
    "ES512": ("EC", hashlib.sha512),
    "EdDSA": ("OKP", hashlib.sha512),
}
# Seconds that clocks may differ (security.md R38).
LEEWAY = 60
# An answer to a sign-in is fresh; an old token is somebody's leftover.
OLDEST = 3600
LONGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token has to say to belong to this sign-in."""

    issuer: str
    client_id: str
    # None where the token answers no authorization request: after a refresh (Core 12.2).
    nonce: str | None
    access_token: str = ""


def verified(token: str, keys: list[dict[str, Any]], expected: Expected) -> dict[str, Any]:
    """Return the claims of a valid token.

    Args:
        keys: the provider's keys (RFC 7517).

    Raises:
        KeyUnknown: none of the keys fits; newer ones may.
        TokenRefused: says why.
    """
    header, claims = opened(token, keys)
    check_parties(claims, expected.issuer, expected.client_id)
    _check_times(claims)
    nonce = str(claims.get("nonce", ""))
    if expected.nonce is not None and not hmac.compare_digest(
        nonce.encode(), expected.nonce.encode()
    ):
        raise TokenRefused("The ID token's nonce is not that of this sign-in.")
    if expected.access_token and "at_hash" in claims:
        _check_access_token(header["alg"], str(claims["at_hash"]), expected.access_token)
    if not isinstance(claims.get("sub"), str) or not 0 < len(claims["sub"]) <= 255:
        raise TokenRefused("The ID token names nobody: it has no usable sub.")
    return claims


def opened(token: str, keys: list[dict[str, Any]]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return ``alg`` and ``typ`` of the header, and the claims, after checking the signature.

    Raises:
        KeyUnknown: none of the keys fits; newer ones may.
        TokenRefused: says why.
    """
    if len(token) > LONGEST or token.count(".") != 2:
        raise TokenRefused("The ID token is not a signed JWT.")
    try:
        header = json.loads(_decoded(token.split(".")[0]))
        algorithm = str(header.get("alg"))
    except (ValueError, AttributeError, RecursionError) as failure:
        raise TokenRefused("The ID token is not a signed JWT.") from failure
    if algorithm not in ALGORITHMS:
        raise TokenRefused(
            f"The ID token is signed with {algorithm[:20]!r}. Choose RS256 or ES256 there."
        )
    fitting = _fitting(keys, algorithm, header.get("kid"))
    if not fitting:
        raise KeyUnknown("The ID token is signed with a key that the provider does not publish.")
    for key in fitting:
        payload = _payload(token, key, algorithm)
        if payload is not None:
            break
    else:
        raise TokenRefused("The signature of the ID token is wrong.")
    try:
        claims = json.loads(payload)
    except (ValueError, RecursionError) as failure:
        raise TokenRefused("The ID token's claims are not JSON.") from failure
    if not isinstance(claims, dict):
        raise TokenRefused("The ID token's claims are not an object.")
    return {"alg": algorithm, "typ": str(header.get("typ") or "")}, claims


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _fitting(keys: list[dict[str, Any]], algorithm: str, kid: Any) -> list[JWK]:
    kind = ALGORITHMS[algorithm][0]
    found = []
    for key in keys:
        if key.get("kty") != kind or key.get("use", "sig") != "sig":
            continue
        if key.get("alg", algorithm) != algorithm:
            continue
        if kid is not None and key.get("kid", kid) != kid:
            continue
        try:
            found.append(JWK(**key))
        except (JWException, ValueError, TypeError):
            continue
    return found


def _payload(token: str, key: JWK, algorithm: str) -> bytes | None:
    signed = JWS()
    signed.allowed_algs = [algorithm]
    try:
        signed.deserialize(token)
        signed.verify(key)
    except (JWException, ValueError, TypeError):
        return None
    return bytes(signed.payload)


def check_parties(claims: dict[str, Any], issuer: str, client_id: str) -> None:
    """Check who made a token and for whom (Core 3.1.3.7, items 2 to 5).

    Raises:
        TokenRefused: says why.
    """
    if claims.get("iss") != issuer:
        raise TokenRefused(f"The ID token is from {str(claims.get('iss'))[:200]}, not the issuer.")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or client_id not in audiences:
        raise TokenRefused("The ID token is for another client.")
    if len(audiences) > 1 and claims.get("azp") != client_id:
        raise TokenRefused("The ID token is for several clients and was not issued to this one.")
    if claims.get("azp", client_id) != client_id:
        raise TokenRefused("The ID token was issued to another client.")


def _check_times(claims: dict[str, Any]) -> None:
    now = time.time()
    times = {name: claims.get(name) for name in ("exp", "iat")}
    for name, value in times.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TokenRefused(f"The ID token has no {name}.")
    if claims["exp"] + LEEWAY <= now:
        raise TokenRefused("The ID token has expired. Check the clocks of gateway and provider.")
    if claims["iat"] - LEEWAY > now:
        raise TokenRefused("The ID token is from the future. Check the clocks.")
    if claims["iat"] + OLDEST + LEEWAY < now:
        raise TokenRefused("The ID token is old. Check the clocks of gateway and provider.")
    before = claims.get("nbf", 0)
    if isinstance(before, int | float) and before - LEEWAY > now:
        raise TokenRefused("The ID token is not valid yet. Check the clocks.")


def _check_access_token(algorithm: str, given: str, access_token: str) -> None:
    digest = ALGORITHMS[algorithm][1](access_token.encode()).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    if not hmac.compare_digest(half, given):
        raise TokenRefused("The ID token belongs to another access token.")
