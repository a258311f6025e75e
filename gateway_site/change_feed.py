"""Tells every process of every node, within a second, what their caches must forget.

Rooms send ``changed`` (see their ``signals.py``). From there a change travels three ways:
at once to the caches of this process, by the channel layer to the others where one is
shared (Redis), and as a row written in the same transaction, which every server process
polls for. The row is what makes the promise hold: it exists exactly when the change does,
needs no Redis, and reaches from a management command to a running server.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.db import Error as DatabaseFailure
from django.db import models, transaction
from django.utils import timezone

from gateway_site.models import ChangeNotice

logger = logging.getLogger(__name__)

GROUP = "gateway.changes"
POLL_SECONDS = 0.5
# A transaction that takes longer than this to commit may have its notice overlooked.
LONGEST_TRANSACTION = 60.0
KEEP_NOTICES = timedelta(minutes=15)

Forget = Callable[[str], None]
_forgetters: dict[str, list[Forget]] = {}
_readings: list[Callable[[float], None]] = []
_pending: set[asyncio.Task[None]] = set()


def on_change(kind: str, forget: Forget) -> None:
    """Have ``forget(key)`` called for every change of ``kind``; key "" means everything."""
    registered = _forgetters.setdefault(kind, [])
    if forget not in registered:
        registered.append(forget)


def on_reading(tell: Callable[[float], None]) -> None:
    """Have ``tell(moment)`` called when what was committed before ``moment`` has been forgotten.

    ``moment`` is of ``time.monotonic()``.
    """
    if tell not in _readings:
        _readings.append(tell)


def forget_here(kind: str, key: str) -> None:
    """Drop what this process has cached about one change; kind "" means every kind."""
    for known, forgetters in list(_forgetters.items()):
        if kind in ("", known):
            for forget in forgetters:
                try:
                    forget(key)
                except Exception:
                    logger.exception("a cache could not forget %s", kind)


def announce(kind: str, key: str = "") -> None:
    """Tell all processes that what they know of ``kind`` and ``key`` is no longer true.

    Inside a transaction the others hear of it when it commits, and never if it does not.
    May be called on an event loop; the writing then happens on a thread.
    """
    forget_here(kind, key)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _write(kind, key)
        return
    task = loop.create_task(database_sync_to_async(_write, thread_sensitive=False)(kind, key))
    _pending.add(task)
    task.add_done_callback(_written)


def hear(sender: Any, kind: str, key: str = "", **_: Any) -> None:
    """Receiver of every room's ``changed`` signal."""
    announce(kind, key)


def _write(kind: str, key: str) -> None:
    ChangeNotice.objects.create(kind=kind, key=key[:500])
    transaction.on_commit(lambda: _committed(kind, key), robust=True)


def _written(task: asyncio.Task[None]) -> None:
    _pending.discard(task)
    if not task.cancelled() and task.exception() is not None:
        logger.error("a change could not be announced", exc_info=task.exception())


def _committed(kind: str, key: str) -> None:
    forget_here(kind, key)
    layer = get_channel_layer()
    if layer is None or isinstance(layer, InMemoryChannelLayer):
        return
    message = {"type": "gateway.change", "kind": kind, "key": key}
    try:
        async_to_sync(layer.group_send)(GROUP, message)
    except Exception as failure:
        # The poll of the notices carries the change then.
        logger.warning("the channel layer did not take a change: %s", type(failure).__name__)


class NoticeReader:
    """Reads each notice once, also when transactions commit in another order than they began."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._heights: deque[tuple[float, int]] = deque()
        # When the last reading began.
        self.last_read = time.monotonic()

    def start(self) -> None:
        """Take what exists now as known (blocking)."""
        self.last_read = time.monotonic()
        highest = ChangeNotice.objects.aggregate(highest=models.Max("pk"))["highest"] or 0
        self._heights = deque([(self.last_read, highest)])

    def read(self) -> list[tuple[str, str]]:
        """Return the new notices as (kind, key) (blocking).

        After a gap longer than a notice is certain to be seen again, the one entry
        ("", "") stands for everything.
        """
        now = time.monotonic()
        if now - self.last_read > LONGEST_TRANSACTION:
            self.start()
            return [("", "")]
        while len(self._heights) > 1 and now - self._heights[1][0] > LONGEST_TRANSACTION:
            self._heights.popleft()
        floor = self._heights[0][1]
        rows = ChangeNotice.objects.filter(pk__gt=floor).order_by("pk")
        found = [row for row in rows.values_list("pk", "kind", "key") if row[0] not in self._seen]
        self._seen.update((row[0], now) for row in found)
        if found:
            self._heights.append((now, max(found[-1][0], self._heights[-1][1])))
            self._seen = {pk: at for pk, at in self._seen.items() if pk > floor}
        self.last_read = now
        return [(kind, key) for _, kind, key in found]


def remove_old_notices() -> None:
    """Delete the notices that every process has long read (blocking)."""
    ChangeNotice.objects.filter(at__lt=timezone.now() - KEEP_NOTICES).delete()


async def follow_changes() -> None:
    """Forget what other processes changed, for as long as this server process runs."""
    listener = asyncio.create_task(_listen_to_layer())
    try:
        await _poll_notices()
    finally:
        listener.cancel()


async def _poll_notices() -> None:
    reader = NoticeReader()
    await _in_thread(reader.start)
    # What was cached before the first reading may be older than that reading.
    forget_here("", "")
    _tell_reading(reader)
    failing, cleaned_at = False, time.monotonic()
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            for kind, key in await _in_thread(reader.read):
                forget_here(kind, key)
            _tell_reading(reader)
            if time.monotonic() - cleaned_at > KEEP_NOTICES.total_seconds():
                cleaned_at = time.monotonic()
                await _in_thread(remove_old_notices)
            failing = False
        except DatabaseFailure:
            if not failing:
                logger.exception("changes cannot be read from the database; trying again")
            failing = True


def _tell_reading(reader: NoticeReader) -> None:
    for tell in _readings:
        tell(reader.last_read)


async def _in_thread(work: Callable[[], Any]) -> Any:
    return await database_sync_to_async(work, thread_sensitive=False)()


async def _listen_to_layer() -> None:
    layer = get_channel_layer()
    if layer is None or isinstance(layer, InMemoryChannelLayer):
        return
    while True:
        try:
            channel = await layer.new_channel()
            joined = 0.0
            while True:
                # Group membership expires after a day; joining again extends it.
                if time.monotonic() - joined > 3600:
                    await layer.group_add(GROUP, channel)
                    joined = time.monotonic()
                message = await layer.receive(channel)
                forget_here(str(message["kind"]), str(message["key"]))
        except asyncio.CancelledError:
            raise
        except Exception as failure:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The layer may turn a cancellation into something else.
                raise asyncio.CancelledError from failure
            logger.warning("listening on the channel layer failed: %s", type(failure).__name__)
            await asyncio.sleep(5)
