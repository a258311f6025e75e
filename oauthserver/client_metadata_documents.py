"""Clients whose identifier is the URL of their metadata (CIMD; protocol.md d4-d6).

Nobody's row is written for asking: until a person approves, the document lives in the shared
cache only (security.md #43). An approved client has a row, which is brought up to date when
its lifetime has passed, so that a removed redirect stops working then (#40).

Whatever goes wrong looks the same from outside (#46); the reason is in the log. Failures are
not cached, but the same URL is left alone for 30 seconds.
"""

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from oauthserver.client_facts import ClientFacts, facts_of_document
from oauthserver.client_review import review_again
from oauthserver.errors import FetchFailed, ProtocolError
from oauthserver.guarded_fetch import AtCapacity, check_url, fetch_json
from oauthserver.models import OAuthClient
from oauthserver.signals import audit
from oauthserver.token_values import digest

MAX_DOCUMENT = 5 * 1024
MAX_CLIENT_ID = 255
FLOOR_SECONDS = 300
CEILING_SECONDS = 24 * 3600
BACK_OFF_SECONDS = 30
_MAX_AGE = re.compile(r"max-age\s*=\s*\"?(\d{1,12})")
_IDENTITY = ("name", "redirect_uris", "jwks_uri", "jwks", "logo_uri", "client_uri")
_FROM_THE_DOCUMENT = (
    *_IDENTITY,
    "client_type",
    "token_endpoint_auth_method",
    "token_endpoint_auth_signing_alg",
    "software_id",
    "metadata",
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Document:
    facts: ClientFacts
    expires_at: datetime


def is_document_url(client_id: str) -> bool:
    """Whether an identifier claims to be the URL of a metadata document."""
    return client_id[:8].lower() == "https://"


def unapproved_client(client_id: str) -> OAuthClient | None:
    """Return a client that nobody has approved yet, unsaved, or None if there is no such.

    Fetches the document unless the cache has it.
    """
    document = _cached(client_id) or _fetched(client_id)
    if document is None:
        return None
    client = OAuthClient(client_id=client_id)
    apply_document(client, document.facts, document.expires_at)
    return client


def brought_up_to_date(client: OAuthClient) -> bool:
    """Fetch the document of an approved client again if its lifetime has passed.

    Returns:
        Whether the row is now as current as it has to be. False: the document could not be
        fetched or is not acceptable any more; the row is unchanged.
    """
    if client.cimd_expires_at is None or timezone.now() < client.cimd_expires_at:
        return True
    document = _fetched(client.client_id)
    if document is None:
        return False
    before = {name: getattr(client, name) for name in _IDENTITY}
    apply_document(client, document.facts, document.expires_at)
    altered = sorted(name for name in _IDENTITY if getattr(client, name) != before[name])
    with transaction.atomic():
        if set(altered) & {"name", "redirect_uris"}:
            review_again(client)
        # Not the whole row: an administrator may be refusing or switching off the client now.
        client.save(update_fields=[*_FROM_THE_DOCUMENT, "cimd_expires_at", "updated"])
    if altered:
        audit.send(
            sender=OAuthClient,
            kind="client.metadata_changed",
            user=None,
            target=client.client_id,
            details={"members": altered},
            address="",
        )
    return True


def apply_document(client: OAuthClient, facts: ClientFacts, expires_at: datetime) -> None:
    """Set the members of ``client`` from a document; the caller saves."""
    client.registration_source = client.RegistrationSource.CIMD
    client.cimd_expires_at = expires_at
    client.take(facts)


def lifetime(cache_control: str) -> int:
    """Return how long to keep an answer, in seconds, from its ``Cache-Control``."""
    if "no-store" in cache_control or "no-cache" in cache_control:
        return FLOOR_SECONDS
    found = _MAX_AGE.search(cache_control)
    seconds = int(found.group(1)) if found else CEILING_SECONDS
    return max(FLOOR_SECONDS, min(seconds, CEILING_SECONDS))


def _cached(client_id: str) -> _Document | None:
    stored: dict[str, Any] | None = cache.get(_key("document", client_id))
    if stored is None:
        return None
    try:
        facts = facts_of_document(stored["members"])
    except ProtocolError:
        # Written by a release with other rules.
        return None
    return _Document(facts, datetime.fromisoformat(stored["expires_at"]))


def _fetched(client_id: str) -> _Document | None:
    """Fetch and check; None for every failure."""
    if cache.get(_key("back-off", client_id)):
        return None
    try:
        if len(client_id) > MAX_CLIENT_ID:
            raise FetchFailed("the identifier is too long")
        check_url(client_id)
    except FetchFailed as failure:
        log.info("Client metadata refused without a fetch: %s", failure)
        return None
    try:
        answer = fetch_json(client_id, limit=MAX_DOCUMENT)
        if answer.members.get("client_id") != client_id:
            raise FetchFailed("the document is about another client_id")
        facts = facts_of_document(answer.members)
    except AtCapacity:
        log.warning("Client metadata not fetched: too many fetches under way")
        return None
    except (FetchFailed, ProtocolError) as failure:
        log.info("Client metadata of %r refused: %s", client_id, failure)
        cache.set(_key("back-off", client_id), True, BACK_OFF_SECONDS)
        return None
    seconds = lifetime(answer.cache_control)
    document = _Document(facts, timezone.now() + timedelta(seconds=seconds))
    stored = {"members": answer.members, "expires_at": document.expires_at.isoformat()}
    cache.set(_key("document", client_id), stored, seconds)
    return document


def _key(kind: str, client_id: str) -> str:
    return f"oauthserver:cimd:{kind}:{digest(client_id)}"
