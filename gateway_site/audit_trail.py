"""The audit trail: every security-relevant fact, from every room, written once.

Rooms send ``audit`` (see their ``signals.py``); sign-ins come from Django's and allauth's own
signals. An event carries no secret: values under telling names are dropped here once more.
"""

import asyncio
import logging
import re
from typing import Any

from channels.db import database_sync_to_async
from django.db import transaction

from gateway_site import metrics
from gateway_site.logging_setup import escape_controls, redact
from gateway_site.models import AuditEvent
from gateway_site.request_facts import current

logger = logging.getLogger("gateway.audit")

_SECRET_NAME = re.compile(r"(?i)token|secret|password|authorization|cookie|verifier|assertion|key$")
_pending: set[asyncio.Task[None]] = set()


def record(
    kind: str,
    *,
    user: Any = None,
    target: str = "",
    details: dict[str, Any] | None = None,
    address: str = "",
) -> None:
    """Write one event, in the caller's transaction where there is one.

    May be called on an event loop; the writing then happens on a thread.

    Args:
        kind: dotted name out of ``audit_kinds.KINDS``.
        user: who did it, None for nobody known.
        target: what it was done to, in words.
        details: further facts without secrets.
        address: the peer's address; "" takes that of the current request.
    """
    signed_in = user is not None and getattr(user, "is_authenticated", True)
    event = AuditEvent(
        kind=kind[:64],
        actor=_clean(str(user) if signed_in else "")[:200],
        user_id=getattr(user, "pk", None) if signed_in else None,
        target=_clean(str(target))[:500],
        address=(address or current.get().address)[:64],
        details=_clean_details(details or {}),
    )
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _write(event)
        return
    task = loop.create_task(database_sync_to_async(_write, thread_sensitive=False)(event))
    _pending.add(task)
    task.add_done_callback(_written)


def hear(
    sender: Any,
    kind: str,
    user: Any = None,
    target: str = "",
    details: dict[str, Any] | None = None,
    address: str = "",
    **_: Any,
) -> None:
    """Receiver of every room's ``audit`` signal."""
    record(kind, user=user, target=target, details=details, address=address)


def _write(event: AuditEvent) -> None:
    event.save()
    # What is rolled back did not happen, and must not stand in the log as if it had.
    transaction.on_commit(lambda: _tell(event), robust=True)


def _tell(event: AuditEvent) -> None:
    metrics.AUDIT_EVENTS.labels(event.kind).inc()
    logger.info("%s actor=%r target=%r", event.kind, event.actor, event.target)


def _written(task: asyncio.Task[None]) -> None:
    _pending.discard(task)
    if not task.cancelled() and task.exception() is not None:
        logger.error("an audit event could not be written", exc_info=task.exception())


def _clean(text: str) -> str:
    return redact(escape_controls(text))


def _clean_details(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            _clean(str(name)): ("[redacted]" if _hides(str(name), inner) else _clean_details(inner))
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean_details(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _clean(str(value))


def _hides(name: str, value: Any) -> bool:
    return isinstance(value, str | bytes) and bool(_SECRET_NAME.search(name))
