"""What is remembered of an upstream's health: one row each, written by probes and breakers."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from upstreams.database_calls import in_thread
from upstreams.errors import UpstreamError
from upstreams.models import UpstreamHealth

logger = logging.getLogger(__name__)

_writing: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found; ``error`` is "" where the upstream works.

    ``latency_ms`` is the time of one request and its answer, ``tools`` None where they
    cannot be listed without a person's account.
    """

    error: str = ""
    latency_ms: int | None = None
    tools: int | None = None


def record(upstream_id: int, finding: Finding) -> None:
    """Store a finding (blocking)."""
    now, status = timezone.now(), UpstreamHealth.Status
    health, _ = UpstreamHealth.objects.get_or_create(
        upstream_id=upstream_id, defaults={"next_probe_at": now}
    )
    health.checked_at = now
    health.latency_ms = finding.latency_ms
    if finding.error:
        if health.status != status.FAILING:
            health.failing_since = now
        health.status = status.FAILING
        health.last_error, health.last_error_at = finding.error[:500], now
    else:
        health.status, health.failing_since = status.WORKING, None
        health.last_success_at = now
        if finding.tools is not None:
            health.tools = finding.tools
    health.save(
        update_fields=[
            "checked_at", "latency_ms", "status", "failing_since", "last_error", "last_error_at",
            "last_success_at", "tools",
        ]
    )  # fmt: skip


def _record_circuit(upstream_id: int, error: UpstreamError | None) -> None:
    now = timezone.now()
    health, _ = UpstreamHealth.objects.get_or_create(
        upstream_id=upstream_id, defaults={"next_probe_at": now}
    )
    if error is None:
        health.circuit_opened_at = None
        health.save(update_fields=["circuit_opened_at"])
        return
    health.circuit_opened_at = now
    health.last_error, health.last_error_at = error_words(error), now
    health.save(update_fields=["circuit_opened_at", "last_error", "last_error_at"])


def error_words(error: UpstreamError) -> str:
    """Return an error as administrators read it."""
    if error.detail == error.message:
        return error.message[:500]
    return f"{error.message} ({error.detail})"[:500]


def hear_circuit(
    sender: Any, upstream_id: int, opened: bool, error: UpstreamError | None, **kwargs: Any
) -> None:
    """Write down in the background that a circuit of this process opened or closed."""
    task = asyncio.get_running_loop().create_task(
        in_thread(_record_circuit, upstream_id, error if opened else None)
    )
    _writing.add(task)
    task.add_done_callback(_written)


def _written(task: "asyncio.Task[None]") -> None:
    _writing.discard(task)
    if not task.cancelled() and task.exception() is not None:
        # The upstream may have been deleted meanwhile.
        logger.info("health could not be written: %s", type(task.exception()).__name__)
