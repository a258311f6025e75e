"""Which resources a stateful session subscribed to, for whichever process has its stream.

Rows of the database: a session's requests may land on any process. Whoever changes them sends
``changed`` of kind "subscription", which all processes hear within a second.
"""

import hashlib
from datetime import UTC, datetime
from typing import Final

from channels.db import database_sync_to_async
from django.utils import timezone

from virtualmcp.models import SessionSubscription
from virtualmcp.signals import changed

MOST_PER_SESSION: Final = 100


class TooManySubscriptions(Exception):
    """The session subscribed to as many resources as it may."""


async def of_session(digest: str) -> frozenset[str]:
    """Return the URIs, in the client's terms.

    Raises:
        django.db.Error: they can't be read.
    """
    found: frozenset[str] = await database_sync_to_async(_read, thread_sensitive=False)(digest)
    return found


async def add(digest: str, uri: str, expires_at: int) -> None:
    """Write a subscription; a second one for the same resource changes nothing.

    Raises:
        TooManySubscriptions: there are ``MOST_PER_SESSION``.
        django.db.Error: it can't be written.
    """
    await database_sync_to_async(_add, thread_sensitive=False)(digest, uri, expires_at)


async def remove(digest: str, uri: str = "") -> None:
    """Take one subscription back, or all of a session.

    Raises:
        django.db.Error: it can't be written.
    """
    await database_sync_to_async(_remove, thread_sensitive=False)(digest, uri)


def _read(digest: str) -> frozenset[str]:
    rows = SessionSubscription.objects.filter(session_digest=digest)
    return frozenset(rows.values_list("uri", flat=True))


def _add(digest: str, uri: str, expires_at: int) -> None:
    rows = SessionSubscription.objects.filter(session_digest=digest)
    mark = _mark(uri)
    if rows.filter(uri_digest=mark).exists():
        return
    if rows.count() >= MOST_PER_SESSION:
        raise TooManySubscriptions
    until = datetime.fromtimestamp(expires_at, UTC)
    SessionSubscription.objects.get_or_create(
        session_digest=digest, uri_digest=mark, defaults={"uri": uri, "expires_at": until}
    )
    changed.send(sender=SessionSubscription, kind="subscription", key=digest)


def _remove(digest: str, uri: str) -> None:
    rows = SessionSubscription.objects.filter(session_digest=digest)
    if uri:
        rows = rows.filter(uri_digest=_mark(uri))
    if rows.delete()[0]:
        changed.send(sender=SessionSubscription, kind="subscription", key=digest)


def remove_expired() -> None:
    """Delete what belongs to sessions that are over (blocking)."""
    SessionSubscription.objects.filter(expires_at__lt=timezone.now()).delete()


def _mark(uri: str) -> str:
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()
