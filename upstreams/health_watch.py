"""Asks every upstream regularly how it does, once for all nodes (background work).

A probe is due when ``next_probe_at`` has passed. Whoever moves that moment into the future
by one conditional update does the probe; the others find it moved. A process that dies in
the middle costs one interval. Moments are spread by chance, so that a hundred upstreams
are not asked in one second.

Where everybody has an account of their own, nobody's account is used: the question goes out
without a credential, and a 401 is the answer of a server that works.
"""

import asyncio
import logging
import random
import time
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone

from upstreams import (
    call_gate,
    credential_building,
    credentials,
    health_probe,
    http_client,
    mcp_client,
)
from upstreams.credentials import Credential
from upstreams.database_calls import in_thread
from upstreams.egress_guard import upstream_rules
from upstreams.errors import HeldBack, UpstreamAnswerInvalid, UpstreamError
from upstreams.health_record import Finding, error_words, record
from upstreams.models import CredentialKind, Upstream, UpstreamHealth
from upstreams.oauth_discovery import opening_question
from upstreams.upstream_facts import UpstreamFacts

logger = logging.getLogger(__name__)

AT_A_TIME: Final = 8
PROBE_SECONDS: Final = 15.0
SHORTEST_TICK: Final = 0.2
LONGEST_TICK: Final = 5.0
_SHARED: Final = (CredentialKind.NONE, CredentialKind.FIXED, CredentialKind.SHARED_OAUTH)


async def watch_health() -> None:
    """Probe what is due for as long as the process runs; 0 seconds switches probing off."""
    interval = float(settings.UPSTREAM_PROBE_SECONDS)
    if interval <= 0:
        return
    places = asyncio.Semaphore(AT_A_TIME)
    running: set[asyncio.Task[None]] = set()
    tick = min(max(interval / 6, SHORTEST_TICK), LONGEST_TICK)
    try:
        while True:
            await asyncio.sleep(tick * random.uniform(0.8, 1.2))  # noqa: S311
            for upstream in await in_thread(claim_due, interval):
                task = asyncio.create_task(_probe_in_turn(upstream, places))
                running.add(task)
                task.add_done_callback(running.discard)
    finally:
        for task in running:
            task.cancel()


def claim_due(interval: float) -> list[Upstream]:
    """Return the upstreams that this process is to probe now (blocking)."""
    now = timezone.now()
    unknown = Upstream.objects.filter(enabled=True, health=None)
    UpstreamHealth.objects.bulk_create(
        [UpstreamHealth(upstream=one, next_probe_at=now) for one in unknown], ignore_conflicts=True
    )
    due = UpstreamHealth.objects.filter(next_probe_at__lte=now, upstream__enabled=True)
    claimed = []
    for health in due.select_related("upstream"):
        following = now + timedelta(seconds=interval * random.uniform(0.8, 1.2))  # noqa: S311
        mine = UpstreamHealth.objects.filter(pk=health.pk, next_probe_at=health.next_probe_at)
        if mine.update(next_probe_at=following):
            claimed.append(health.upstream)
    return claimed


async def _probe_in_turn(upstream: Upstream, places: asyncio.Semaphore) -> None:
    async with places:
        try:
            await check(upstream)
        except Exception:
            logger.exception("the probe of %s failed", upstream.key)


async def check(upstream: Upstream) -> Finding | None:
    """Ask one upstream how it does, and remember it; None where the gateway held back itself."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            finding = await _ask(upstream)
    except TimeoutError:
        finding = Finding(f"{upstream.title} did not answer in {PROBE_SECONDS:.0f} seconds.")
    except HeldBack:
        return None
    except UpstreamError as error:
        taken = round((time.monotonic() - started) * 1000)
        finding = Finding(error_words(error), latency_ms=taken)
    await in_thread(record, upstream.pk, finding)
    return finding


async def _ask(upstream: Upstream) -> Finding:
    facts = UpstreamFacts.of(upstream)
    gate = call_gate.gate_for(facts)
    credential = await _everybodys(facts)
    if credential is None:
        taken = await _reach(upstream)
    else:
        gate.breaker.try_soon()
        await mcp_client.era_of(facts, credential)
        started = time.monotonic()
        tools = await health_probe.count_tools(facts, credential)
        return Finding(latency_ms=round((time.monotonic() - started) * 1000), tools=tools)
    if gate.breaker.troubled:
        # The server answers again; whether calls do, the next one finds out.
        gate.breaker.try_soon()
    return Finding(latency_ms=taken)


async def _everybodys(facts: UpstreamFacts) -> Credential | None:
    """Return the credential that everybody shares; None where there is none (yet).

    Raises:
        UpstreamError: there is one, but it cannot be used.
    """
    if facts.credential_kind not in _SHARED:
        return None
    try:
        return await credentials.credential_for(0, facts)
    except UpstreamError as error:
        if credential_building.awaits_first_connection(error):
            return None
        raise


async def _reach(upstream: Upstream) -> int:
    """Send the question without a credential; returns the milliseconds to its answer.

    Raises:
        UpstreamError: no answer, or one that says the server itself is in trouble.
    """
    request, headers = opening_question()
    started = time.monotonic()
    answer = await http_client.post_json(
        upstream.url, request, rules=upstream_rules(upstream), headers=headers, head_only=True
    )
    if answer.status >= 500:
        raise UpstreamAnswerInvalid(f"{upstream.title} failed.", detail=f"HTTP {answer.status}")
    return round((time.monotonic() - started) * 1000)
