"""Claims that somebody else signed: client assertions and identity assertions (RFC 7519, 7523).

Decides about signatures and times only; who may say what is decided by whoever asks.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.core.cache import cache
from django.db import IntegrityError, transaction
from jwcrypto import jwk, jws
from jwcrypto.common import JWException, json_decode

from oauthserver.client_facts import MAX_KEYS, SIGNING_ALGORITHMS
from oauthserver.client_metadata_documents import BACK_OFF_SECONDS, lifetime
from oauthserver.errors import FetchFailed
from oauthserver.guarded_fetch import fetch_json
from oauthserver.json_documents import DocumentInvalid, read_object
from oauthserver.models import UsedAssertion
from oauthserver.token_values import digest

LEEWAY_SECONDS = 60
MAX_ASSERTION = 8 * 1024
MAX_KEY_SET = 64 * 1024
REFETCH_EVERY_SECONDS = 60
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}
log = logging.getLogger(__name__)


class NotAcceptable(Exception):
    """The token proves nothing. Why is nobody's business outside."""


@dataclass(frozen=True)
class Header:
    """The protected header; ``kind`` is ``typ`` as it stands there."""

    algorithm: str
    key_id: str
    kind: str


@dataclass(frozen=True)
class Keys:
    """Where the keys of a signer are: at hand, or published at a URL."""

    jwks: dict[str, Any] | None
    jwks_uri: str


def header_of(token: str) -> Header:
    """Return the header.

    Raises:
        NotAcceptable: not a compact JWS, an algorithm that is not allowed, or ``crit``.
    """
    members = _parsed(token).jose_header
    algorithm, key_id, kind = members.get("alg"), members.get("kid", ""), members.get("typ", "")
    if not isinstance(key_id, str) or not isinstance(kind, str) or "crit" in members:
        raise NotAcceptable
    if algorithm not in SIGNING_ALGORITHMS:
        raise NotAcceptable
    return Header(str(algorithm), key_id, kind)


def unproven(token: str) -> dict[str, Any]:
    """Return the claims before they are proven, to find out whose keys to use.

    Raises:
        NotAcceptable: there are none.
    """
    try:
        return read_object(_parsed(token).objects["payload"])
    except (KeyError, DocumentInvalid):
        raise NotAcceptable from None


def proven(token: str, header: Header, keys: Keys) -> dict[str, Any]:
    """Return the claims after checking the signature with the signer's keys.

    Raises:
        NotAcceptable: none of the keys made it.
    """
    for key_set in _key_sets(keys):
        for key in _matching(key_set, header):
            read = jws.JWS()
            read.allowed_algs = [header.algorithm]
            try:
                read.deserialize(token, jwk.JWK(**key))
                return read_object(read.payload)
            except (JWException, DocumentInvalid, ValueError, TypeError):
                continue
    raise NotAcceptable


def check_times(claims: dict[str, Any], longest_seconds: int) -> float:
    """Check ``exp``, ``iat`` and ``nbf``; return until when a replay is possible (since 1970).

    Raises:
        NotAcceptable: not now, or valid for longer than ``longest_seconds``.
    """
    now = time.time()
    numbers = (claims.get("exp"), claims.get("iat", now), claims.get("nbf", now))
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise NotAcceptable
    expires, issued, not_before = (number for number in numbers if number is not None)
    if not now - LEEWAY_SECONDS < expires < now + longest_seconds:
        raise NotAcceptable
    if max(issued, not_before) > now + LEEWAY_SECONDS:
        raise NotAcceptable
    return float(expires) + LEEWAY_SECONDS


def use_once(signer: str, claims: dict[str, Any], until: float) -> None:
    """Write down a ``jti``: no process accepts it again.

    Raises:
        NotAcceptable: there is none, or it was used already.
    """
    identifier = claims.get("jti")
    if not isinstance(identifier, str) or not 0 < len(identifier) <= 500:
        raise NotAcceptable
    try:
        with transaction.atomic():
            UsedAssertion.objects.create(
                digest=digest(f"{signer}\n{identifier}"), until=datetime.fromtimestamp(until, UTC)
            )
    except IntegrityError:
        raise NotAcceptable from None


def _key_sets(keys: Keys) -> Iterator[list[Any]]:
    """Yield the keys known, then, if none of them fitted, those published now.

    A key set that cannot be had is tried again after half a minute; one that lacks the key,
    because the signer has new ones, after a minute: however many assertions come.
    """
    if keys.jwks is not None:
        yield list(keys.jwks.get("keys", []))
        return
    if not keys.jwks_uri:
        return
    name = f"oauthserver:jwks:{digest(keys.jwks_uri)}"
    known: list[Any] | None = cache.get(name)
    if known is not None:
        yield known
        may_fetch = cache.add(f"{name}:again", True, REFETCH_EVERY_SECONDS)
    else:
        may_fetch = cache.add(f"{name}:first", True, BACK_OFF_SECONDS)
    if may_fetch:
        yield _published(keys.jwks_uri, name)


def _published(jwks_uri: str, name: str) -> list[Any]:
    try:
        answer = fetch_json(jwks_uri, limit=MAX_KEY_SET)
    except FetchFailed as failure:
        log.warning("Keys of a signer were not fetched: %s", failure)
        return []
    keys = answer.members.get("keys")
    if not isinstance(keys, list):
        return []
    cache.set(name, keys[: MAX_KEYS * 2], lifetime(answer.cache_control))
    return keys[: MAX_KEYS * 2]


def _matching(keys: list[Any], header: Header) -> list[dict[str, Any]]:
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


def _parsed(token: str) -> jws.JWS:
    if len(token) > MAX_ASSERTION or token.count(".") != 2:
        raise NotAcceptable
    read = jws.JWS()
    try:
        read.deserialize(token)
        json_decode(read.objects["protected"])
    except (JWException, ValueError, TypeError, KeyError):
        raise NotAcceptable from None
    return read
