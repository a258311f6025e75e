"""Keeps sign-ins alive that nobody uses for a while, and settles what a crash left.

Refresh tokens die when they are not used: after thirty or ninety days at most servers. A
person who connected once should not have to do it again for having been on leave, so every
sign-in that can be renewed is renewed at least once in ``GATEWAY_KEEP_ALIVE_DAYS``.
"""

import asyncio
import logging
import random
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from upstreams import client_keys, token_refresh
from upstreams.database_calls import in_thread
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import CredentialKind, UpstreamAccount

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 600
# So many in one round: the servers of others are not to be flooded by ours.
MOST_AT_ONCE: Final = 50


async def keep_tokens_alive() -> None:
    """Settle the journal, then renew what lies idle for as long as the process runs."""
    await in_thread(token_refresh.settle_journal)
    while True:
        # Not all processes at the same moment.
        await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
        await in_thread(token_refresh.settle_journal)
        await in_thread(client_keys.keep_rotating)
        await renew_idle()


async def renew_idle() -> int:
    """Renew one round of idle sign-ins, one after the other; returns how many were renewed."""
    count = 0
    for account in await in_thread(_idle):
        try:
            await token_refresh.renewed(account)
            count += 1
        except (NeedsConnection, SetupFailed) as error:
            logger.info("an idle sign-in was not renewed: %s", error.detail)
    return count


def _idle() -> list[UpstreamAccount]:
    """Return the accounts to renew: those that have run out and were not renewed for days."""
    if settings.GATEWAY_KEEP_ALIVE_DAYS <= 0:
        return []
    now = timezone.now()
    oldest = now - timedelta(days=settings.GATEWAY_KEEP_ALIVE_DAYS)
    return list(
        UpstreamAccount.objects.annotate(renewed=Coalesce("refreshed_at", "connected_at"))
        .filter(
            Q(user__isnull=True) | Q(user__is_active=True),
            Q(refresh_not_before__isnull=True) | Q(refresh_not_before__lt=now),
            status=UpstreamAccount.Status.CONNECTED,
            upstream__enabled=True,
            client__isnull=False,
            expires_at__lt=now,
            renewed__lt=oldest,
        )
        # Made anew by the person's own sign-in when it is used; there is nothing to renew.
        .exclude(upstream__credential_kind=CredentialKind.ENTERPRISE)
        # What fails again and again must not stand before the rest in every round.
        .order_by("refresh_failures", "renewed")[:MOST_AT_ONCE]
    )
