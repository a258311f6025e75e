"""An upstream's health as administrators read it, from the row and the last full test (pure)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from django.utils.timesince import timesince

from upstreams.models import Upstream, UpstreamHealth

HealthState = Literal["ok", "failing", "off", "unchecked"]
WORDS: Final[dict[HealthState, str]] = {
    "ok": "works",
    "failing": "fails",
    "off": "switched off",
    "unchecked": "not checked yet",
}


@dataclass(frozen=True, slots=True)
class HealthLine:
    """One line; ``detail`` says why it fails, or how fast it answers and what it offers."""

    state: HealthState
    detail: str
    checked_at: datetime | None

    @property
    def words(self) -> str:
        """The state as people read it."""
        return WORDS[self.state]


def health_of(upstream: Upstream) -> UpstreamHealth | None:
    """Return the row, None if nothing has looked yet; no query if it was selected too."""
    try:
        return upstream.health
    except UpstreamHealth.DoesNotExist:
        return None


def health_line(upstream: Upstream) -> HealthLine:
    """Say how an upstream does."""
    health = health_of(upstream)
    if not upstream.enabled:
        return HealthLine("off", "", None)
    if health is None or health.status == UpstreamHealth.Status.UNKNOWN:
        return HealthLine("unchecked", "", None)
    if health.status == UpstreamHealth.Status.FAILING:
        since = f" for {timesince(health.failing_since)}" if health.failing_since else ""
        return HealthLine("failing", f"{health.last_error}{since}", health.checked_at)
    return HealthLine("ok", ", ".join(_good(health)), health.checked_at)


def _good(health: UpstreamHealth) -> list[str]:
    said = []
    if health.latency_ms is not None:
        said.append(f"{health.latency_ms} ms")
    if health.tools is not None:
        said.append(f"{health.tools} tools")
    if health.circuit_opened_at is not None:
        said.append(f"calls failed {timesince(health.circuit_opened_at)} ago: {health.last_error}")
    return said


def health_facts(upstream: Upstream) -> list[tuple[str, Any]]:
    """Return what the upstream's own page tells, as (name, value)."""
    health = health_of(upstream)
    if health is None:
        return []
    facts: list[tuple[str, Any]] = [
        ("Last success", health.last_success_at),
        ("Last error", health.last_error_at),
        ("It said", health.last_error),
        ("Calls were stopped", health.circuit_opened_at),
    ]
    return [(name, value) for name, value in facts if value]
