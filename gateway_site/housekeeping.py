"""Removes what has expired, every few minutes, in whichever process gets to it first."""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module

from channels.db import database_sync_to_async
from django.conf import settings
from django.utils import timezone

from gateway_site.models import AuditEvent
from oauthserver import expiry
from upstreams import oauth_trace
from upstreams.models import PendingAuthorization
from virtualmcp import sampling_limits, session_subscriptions
from virtualmcp.models import CallRecord, EndedSession, NodeMail, SharedNote

logger = logging.getLogger(__name__)

EVERY_SECONDS = 600


def remove_ended_sessions() -> None:
    """Browser sessions, and MCP sessions whose seal no longer opens anyway."""
    import_module(settings.SESSION_ENGINE).SessionStore.clear_expired()
    EndedSession.objects.filter(expires_at__lt=timezone.now()).delete()
    session_subscriptions.remove_expired()


def remove_abandoned_connects() -> None:
    """People who left for an upstream's authorization server and did not come back."""
    yesterday = timezone.now() - timedelta(days=1)
    PendingAuthorization.objects.filter(expires_at__lt=yesterday).delete()


def remove_old_mail() -> None:
    """What processes wrote for each other and nobody fetched, and facts past their time."""
    for model in (NodeMail, SharedNote):
        model.objects.filter(expires_at__lt=timezone.now()).delete()  # type: ignore[attr-defined]


def remove_old_records() -> None:
    """Call records and audit events beyond the time they are kept; 0 days keeps them for good."""
    for model, days in (
        (CallRecord, settings.CALL_RECORD_DAYS),
        (AuditEvent, settings.AUDIT_EVENT_DAYS),
    ):
        if days > 0:
            oldest = timezone.now() - timedelta(days=days)
            model.objects.filter(at__lt=oldest).delete()  # type: ignore[attr-defined]


def remove_expired_grants() -> None:
    """Codes, tokens and clients that nobody approved, by the authorization server's own rules."""
    expiry.remove_expired()


CHORES: tuple[Callable[[], None], ...] = (
    remove_ended_sessions,
    remove_abandoned_connects,
    remove_old_mail,
    sampling_limits.remove_old,
    remove_expired_grants,
    oauth_trace.remove_old_traces,
    remove_old_records,
)


def do_chores() -> None:
    """Do every chore; one that fails does not keep the others from being done (blocking)."""
    for chore in CHORES:
        try:
            chore()
        except Exception:
            logger.exception("%s failed", chore.__name__)


async def keep_house() -> None:
    """Do the chores for as long as the process runs, not all processes at the same moment."""
    while True:
        await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
        await database_sync_to_async(do_chores, thread_sensitive=False)()
