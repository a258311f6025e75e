"""A provider's metadata and keys, fetched where they are published and kept for a while."""

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.core.cache import cache

from gateway_site import public_address
from gateway_site.identity import outbound
from gateway_site.identity.errors import KeyUnknown, ProviderFault
from gateway_site.identity.id_tokens import Expected, verified

WELL_KNOWN = "/.well-known/openid-configuration"
# Seconds. Providers publish a new key well before they use it; an unknown one is asked for at once,
# and again within ten seconds only for who may have that (``may_hurry``).
METADATA_SECONDS = 600
KEYS_SECONDS = 3600
ASK_AGAIN_SECONDS = 10.0
Read = TypeVar("Read")
REQUIRED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")


def metadata_of(issuer: str, *, fresh: bool = False) -> dict[str, Any]:
    """Return a provider's metadata (OpenID Connect Discovery 4).

    Raises:
        ProviderFault: it can't be had, or is not this issuer's.
    """
    key = f"identity.metadata.{issuer}"
    known: dict[str, Any] | None = None if fresh else cache.get(key)
    if known is None:
        known = outbound.fetch_json(issuer + WELL_KNOWN, what="The discovery document")
        check_metadata(known, issuer)
        cache.set(key, known, METADATA_SECONDS)
    return known


def check_metadata(metadata: dict[str, Any], issuer: str) -> None:
    """Check that a document is this issuer's and names what sign-in needs.

    Raises:
        ProviderFault: says what is wrong.
    """
    said = str(metadata.get("issuer", ""))
    if said.rstrip("/") != issuer:
        raise ProviderFault(
            f"The discovery document says that the issuer is {said[:200] or 'nobody'}. Enter "
            "exactly that issuer, if it is your provider."
        )
    for name in REQUIRED[1:]:
        address = metadata.get(name)
        if not isinstance(address, str) or not _is_safe(address):
            raise ProviderFault(f"The discovery document has no https address as {name}.")
    for name in ("userinfo_endpoint", "end_session_endpoint"):
        address = metadata.get(name)
        if address is not None and not (isinstance(address, str) and _is_safe(address)):
            raise ProviderFault(f"The {name} in the discovery document is no https address.")


def never() -> bool:
    """Fetch nothing again that was fetched a moment ago."""
    return False


def keys_of(
    metadata: dict[str, Any], *, fresh: bool = False, may_hurry: Callable[[], bool] = never
) -> list[dict[str, Any]]:
    """Return the provider's public keys.

    Args:
        fresh: those that are published now, not those that are kept.
        may_hurry: asked when they were fetched a moment ago: whether to fetch them all the same.

    Raises:
        ProviderFault: they can't be had.
    """
    address = metadata["jwks_uri"]
    name = f"identity.keys.{address}"
    kept: tuple[float, list[dict[str, Any]]] | None = cache.get(name)
    if kept is not None:
        just_fetched = time.time() - kept[0] < ASK_AGAIN_SECONDS
        if not fresh or (just_fetched and not may_hurry()):
            return kept[1]
    document = outbound.fetch_json(address, what="The list of keys")
    listed = document.get("keys")
    keys = [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
    if not keys:
        raise ProviderFault(f"The list of keys at {address} is empty.")
    cache.set(name, (time.time(), keys), KEYS_SECONDS)
    return keys


def verified_claims(
    metadata: dict[str, Any],
    token: str,
    expected: Expected,
    *,
    may_hurry: Callable[[], bool] = never,
) -> dict[str, Any]:
    """Check an ID token with the provider's keys, asking for new ones if they do not fit.

    Args:
        may_hurry: as in ``keys_of``.

    Raises:
        ProviderFault: the token is not valid, or the keys can't be had.
    """
    return with_current_keys(
        metadata, lambda keys: verified(token, keys, expected), may_hurry=may_hurry
    )


def with_current_keys(
    metadata: dict[str, Any],
    read: Callable[[list[dict[str, Any]]], Read],
    *,
    may_hurry: Callable[[], bool],
) -> Read:
    """Read a token with the provider's keys, asking for new ones, once, if they do not fit.

    Args:
        may_hurry: as in ``keys_of``.

    Raises:
        ProviderFault: the token is not valid, or the keys can't be had.
    """
    try:
        return read(keys_of(metadata))
    except KeyUnknown:
        return read(keys_of(metadata, fresh=True, may_hurry=may_hurry))


def _is_safe(address: str) -> bool:
    parts = urlsplit(address)
    if not parts.hostname or parts.username is not None:
        return False
    return parts.scheme == "https" or (
        parts.scheme == "http" and public_address.is_loopback(address)
    )
