"""A trace of each attempt to get a credential, for administrators: every request and answer.

    async with oauth_trace.recording(Purpose.CONNECT, upstream.pk, user.pk) as trace:
        ...   # every request of http_client in here is written down, without its secrets

What is shown is decided by ``trace_redaction``: names that are allowed, nothing else. Traces
are bounded: steps each, traces for each upstream and purpose, and days (housekeeping).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.utils import timezone

from upstreams import trace_redaction
from upstreams.database_calls import in_thread
from upstreams.errors import ConnectRefused, SetupFailed, UpstreamError
from upstreams.fetched_answer import FetchedAnswer
from upstreams.models import OAuthTrace

logger = logging.getLogger(__name__)

Purpose = OAuthTrace.Purpose
MOST_STEPS: Final = 40
# For each upstream and purpose; older ones go.
MOST_TRACES: Final = 30


@dataclass(slots=True)
class Trace:
    """What is being recorded; ``attempt`` joins the way there and the way back."""

    purpose: str
    upstream_id: int
    user_id: int | None
    attempt: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    outcome: str = OAuthTrace.Outcome.OK
    failed_step: str = ""
    message: str = ""

    def note(self, title: str, **members: Any) -> None:
        """Add a step."""
        if len(self.steps) < MOST_STEPS:
            at = round((time.monotonic() - self.began) * 1000)
            self.steps.append({"title": title, "at_ms": at, **members})

    def redirected(self, address: str) -> None:
        """Note where the person was sent."""
        self.note(
            "Sent the person to the authorization server",
            request=f"GET {trace_redaction.address(address)}",
            sent=trace_redaction.query_of(address),
        )

    def returned(self, path: str, query: Mapping[str, str]) -> None:
        """Note how the person came back."""
        self.note(
            "The person came back",
            request=f"GET {path}",
            sent=trace_redaction.parameters(query.items()),
        )

    def failed(self, error: UpstreamError) -> None:
        """Note what ended the attempt."""
        self.outcome = OAuthTrace.Outcome.FAILED
        self.failed_step = error.step if isinstance(error, SetupFailed) else error.code
        if isinstance(error, ConnectRefused):
            self.failed_step = error.reason
        self.message = error.message
        self.note("Failed", error=error.message, detail=error.detail[:500])


_current: ContextVar[Trace | None] = ContextVar("oauth_trace", default=None)
_storing: set[asyncio.Task[None]] = set()


def exchanged(
    method: str,
    url: str,
    headers: Mapping[str, str],
    content: bytes,
    answer: FetchedAnswer | None,
    error: UpstreamError | None,
    seconds: float,
) -> None:
    """Note a request and what came of it, if an attempt is being recorded."""
    trace = _current.get()
    if trace is None:
        return
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    step: dict[str, Any] = {
        "request": f"{method} {trace_redaction.address(url)}",
        "headers": trace_redaction.request_headers(headers),
        "sent": trace_redaction.body(content, kind),
        "took_ms": round(seconds * 1000),
    }
    if answer is not None:
        step["status"] = answer.status
        step["answer_headers"] = trace_redaction.answer_headers(answer.headers)
        step["received"] = trace_redaction.body(answer.body, answer.header("content-type"))
    if error is not None:
        step["error"], step["detail"] = error.message, error.detail[:500]
    trace.note("Request", **step)


@contextlib.asynccontextmanager
async def recording(
    purpose: str, upstream_id: int, user_id: int | None, *, in_background: bool = False
) -> AsyncIterator[Trace]:
    """Record the requests of the block, and store them when it ends.

    ``in_background``: nobody waits for the storing, such as while new tokens are not safe yet.
    """
    trace = Trace(purpose, upstream_id, user_id)
    token = _current.set(trace)
    try:
        yield trace
    except UpstreamError as error:
        trace.failed(error)
        raise
    finally:
        _current.reset(token)
        task = asyncio.get_running_loop().create_task(in_thread(_store, trace))
        _storing.add(task)
        task.add_done_callback(_stored)
        if not in_background:
            with contextlib.suppress(Exception):
                await asyncio.shield(task)


def _stored(task: "asyncio.Task[None]") -> None:
    _storing.discard(task)
    if not task.cancelled() and task.exception() is not None:
        # A trace is never worth a failed connect; the upstream may be gone meanwhile.
        logger.info("a trace could not be stored: %s", type(task.exception()).__name__)


def _store(trace: Trace) -> None:
    values: dict[str, Any] = {
        "outcome": trace.outcome,
        "failed_step": trace.failed_step[:60],
        "message": trace.message[:500],
        "finished_at": timezone.now(),
    }
    known = None
    if trace.attempt:
        known = OAuthTrace.objects.filter(
            upstream_id=trace.upstream_id, attempt=trace.attempt
        ).first()
    if known is not None:
        # The way back of an attempt: its steps follow those of the way there.
        known.steps = [*known.steps, *trace.steps][: 2 * MOST_STEPS]
        for name, value in values.items():
            setattr(known, name, value)
        known.save()
        return
    OAuthTrace.objects.create(
        upstream_id=trace.upstream_id,
        user_id=trace.user_id,
        purpose=trace.purpose,
        attempt=trace.attempt,
        steps=trace.steps,
        **values,
    )
    mine = OAuthTrace.objects.filter(upstream_id=trace.upstream_id, purpose=trace.purpose)
    kept = list(mine.order_by("-pk").values_list("pk", flat=True)[:MOST_TRACES])
    mine.exclude(pk__in=kept).delete()


def attempt_known(attempt: str) -> OAuthTrace | None:
    """Return the trace of the way there (blocking)."""
    return OAuthTrace.objects.filter(attempt=attempt).first() if attempt else None


def remove_old_traces() -> None:
    """Delete the traces beyond the days they are kept (blocking); 0 keeps them."""
    days = settings.OAUTH_TRACE_DAYS
    if days > 0:
        oldest = timezone.now() - timedelta(days=days)
        OAuthTrace.objects.filter(finished_at__lt=oldest).delete()
