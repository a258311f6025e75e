"""``private_key_jwt``: a client signs who it is (RFC 7523 2.2 and 3; clients.md 1.4).

Each assertion works once: its ``jti`` is written down in the database in the same moment, so
that no other process accepts it either. If that cannot be done, the assertion is refused.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.db import IntegrityError, transaction
from jwcrypto import jwk, jws
from jwcrypto.common import JWException, json_decode

from oauthserver.client_facts import MAX_KEYS, SIGNING_ALGORITHMS
from oauthserver.client_metadata_documents import BACK_OFF_SECONDS, lifetime
from oauthserver.errors import FetchFailed, InvalidClient
from oauthserver.guarded_fetch import fetch_json
from oauthserver.json_documents import DocumentInvalid, read_object
from oauthserver.models import OAuthClient, UsedAssertion
from oauthserver.token_values import digest

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TOKEN_PATH = "/oauth/token"  # noqa: S105
LEEWAY_SECONDS = 60
MAX_LIFETIME_SECONDS = 24 * 3600
MAX_ASSERTION = 8 * 1024
MAX_KEY_SET = 64 * 1024
REFETCH_EVERY_SECONDS = 60
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}
_REFUSED = "The client assertion is not acceptable."
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Header:
    algorithm: str
    key_id: str


def claimed_client_id(assertion: str) -> str:
    """Return who an assertion says it is from, unproven, to look up whose keys to use.

    Raises:
        InvalidClient: it is not a compact JWS with a subject.
    """
    claims = _unproven_claims(assertion)
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise InvalidClient(_REFUSED)
    return subject


def check_assertion(client: OAuthClient, assertion: str) -> None:
    """Prove that ``client`` made ``assertion``, for us, now, and for the first time.

    Raises:
        InvalidClient: one sentence for every reason.
    """
    header = _header(assertion)
    wanted = client.token_endpoint_auth_signing_alg
    if header.algorithm not in SIGNING_ALGORITHMS or wanted not in ("", header.algorithm):
        raise InvalidClient(_REFUSED)
    claims = _verified_claims(client, assertion, header)
    until = _checked_claims(client, claims)
    _use_once(client, str(claims["jti"]), until)


def _verified_claims(client: OAuthClient, assertion: str, header: _Header) -> dict[str, Any]:
    for keys in _key_sets_of(client):
        for key in _matching(keys, header):
            token = jws.JWS()
            token.allowed_algs = [header.algorithm]
            try:
                token.deserialize(assertion, jwk.JWK(**key))
                return read_object(token.payload)
            except (JWException, DocumentInvalid, ValueError, TypeError):
                continue
    raise InvalidClient(_REFUSED)


def _key_sets_of(client: OAuthClient) -> Iterator[list[Any]]:
    """Yield the keys known, then, if none of them fitted, those published now.

    A key set that cannot be had is tried again after half a minute; one that lacks the key,
    because the client has new ones, after a minute: however many assertions come.
    """
    if client.jwks is not None:
        yield list(client.jwks.get("keys", []))
        return
    if not client.jwks_uri:
        return
    name = f"oauthserver:jwks:{digest(client.jwks_uri)}"
    known: list[Any] | None = cache.get(name)
    if known is not None:
        yield known
        may_fetch = cache.add(f"{name}:again", True, REFETCH_EVERY_SECONDS)
    else:
        may_fetch = cache.add(f"{name}:first", True, BACK_OFF_SECONDS)
    if may_fetch:
        yield _published_keys(client.jwks_uri, name)


def _published_keys(jwks_uri: str, name: str) -> list[Any]:
    try:
        answer = fetch_json(jwks_uri, limit=MAX_KEY_SET)
    except FetchFailed as failure:
        log.warning("Keys of a client were not fetched: %s", failure)
        return []
    keys = answer.members.get("keys")
    if not isinstance(keys, list):
        return []
    cache.set(name, keys[: MAX_KEYS * 2], lifetime(answer.cache_control))
    return keys[: MAX_KEYS * 2]


def _matching(keys: list[Any], header: _Header) -> list[dict[str, Any]]:
    return [
        key
        for key in keys
        if isinstance(key, dict)
        and key.get("kty") == _KEY_TYPES[header.algorithm]
        and key.get("use", "sig") == "sig"
        and key.get("alg", header.algorithm) == header.algorithm
        and (not header.key_id or key.get("kid") == header.key_id)
        and (key.get("kty") != "EC" or key.get("crv") == "P-256")
    ]


def _checked_claims(client: OAuthClient, claims: dict[str, Any]) -> float:
    """Check the claims; return until when a replay is possible, in seconds since 1970."""
    now = time.time()
    expires, issued = claims.get("exp"), claims.get("iat", now)
    not_before, audience = claims.get("nbf", now), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    identifier = claims.get("jti")
    numbers = (expires, issued, not_before)
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise InvalidClient(_REFUSED)
    acceptable = (
        claims.get("iss") == claims.get("sub") == client.client_id
        and (settings.PUBLIC_URL in audiences or settings.PUBLIC_URL + TOKEN_PATH in audiences)
        and now - LEEWAY_SECONDS < expires < now + MAX_LIFETIME_SECONDS  # type: ignore[operator]
        and issued <= now + LEEWAY_SECONDS
        and not_before <= now + LEEWAY_SECONDS
        and isinstance(identifier, str)
        and 0 < len(identifier) <= 500
    )
    if not acceptable:
        raise InvalidClient(_REFUSED)
    return float(expires) + LEEWAY_SECONDS  # type: ignore[arg-type]


def _use_once(client: OAuthClient, identifier: str, until: float) -> None:
    try:
        with transaction.atomic():
            UsedAssertion.objects.create(
                digest=digest(f"{client.client_id}\n{identifier}"),
                until=datetime.fromtimestamp(until, UTC),
            )
    except IntegrityError:
        raise InvalidClient(_REFUSED) from None


def _header(assertion: str) -> _Header:
    members = _parsed(assertion).jose_header
    algorithm, key_id = members.get("alg"), members.get("kid", "")
    if not isinstance(algorithm, str) or not isinstance(key_id, str) or "crit" in members:
        raise InvalidClient(_REFUSED)
    return _Header(algorithm, key_id)


def _unproven_claims(assertion: str) -> dict[str, Any]:
    try:
        return read_object(_parsed(assertion).objects["payload"])
    except (KeyError, DocumentInvalid):
        raise InvalidClient(_REFUSED) from None


def _parsed(assertion: str) -> jws.JWS:
    if len(assertion) > MAX_ASSERTION or assertion.count(".") != 2:
        raise InvalidClient(_REFUSED)
    token = jws.JWS()
    try:
        token.deserialize(assertion)
        json_decode(token.objects["protected"])
    except (JWException, ValueError, TypeError, KeyError):
        raise InvalidClient(_REFUSED) from None
    return token
