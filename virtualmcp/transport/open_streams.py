"""The streams of notices that are open in this process: how many, kept alive, looked after.

One task per event loop looks after all of them: it writes a comment into those that are silent,
ends those whose client has stopped reading, and asks again, after every change that may concern
it and at least every ``RECHECK_SECONDS``, whether a stream's token and access are still good
(security.md #124, #134). An idle stream has no timer of its own.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from django.conf import settings

from virtualmcp.transport import draining

logger = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0
STALLED_SECONDS = 60.0
RECHECK_SECONDS = 50.0
TICK_SECONDS = 1.0
AT_ONCE = 8


class OpenStream(Protocol):
    """What is looked after; times are of ``time.monotonic``, 0 for never."""

    user_id: int
    token_digest: str
    session_digest: str
    written_at: float
    writing_since: float
    checked_at: float
    changed: bool

    def keep_alive(self) -> None:
        """Write a comment."""

    def stall(self) -> None:
        """Give up on a client that does not read."""

    def drain(self) -> None:
        """End in an orderly way: this process is about to stop."""

    def end_session(self) -> None:
        """End because the session it belongs to has ended."""

    async def recheck(self, *, changed: bool) -> None:
        """End if access has ended; begin to take in what has ``changed``, without waiting."""


class TooManyOpen(Exception):
    """No further stream: ``whose`` limit is reached, "person" or "process"; or "stopping"."""

    def __init__(self, whose: str) -> None:
        super().__init__(whose)
        self.whose = whose


class _Keeper:
    """The streams of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # With what takes the registration for an orderly end back.
        self.streams: dict[OpenStream, Callable[[], None]] = {}
        self.per_user: Counter[int] = Counter()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None

    def add(self, stream: OpenStream) -> None:
        self.streams[stream] = draining.register(stream.drain)
        self.per_user[stream.user_id] += 1
        if self._task is None or self._task.done():
            self._task = self.loop.create_task(self._look_after())

    def remove(self, stream: OpenStream) -> None:
        unregister = self.streams.pop(stream, None)
        if unregister is None:
            return
        unregister()
        self.per_user[stream.user_id] -= 1
        if not self.per_user[stream.user_id]:
            del self.per_user[stream.user_id]
        if not self.streams:
            self._wake.set()

    def change(self, concerns: Callable[[OpenStream], bool]) -> None:
        for stream in self.streams:
            stream.changed = stream.changed or concerns(stream)
        self._wake.set()

    def each(self, act: Callable[[OpenStream], None]) -> None:
        for stream in list(self.streams):
            act(stream)

    async def _look_after(self) -> None:
        while self.streams:
            now = time.monotonic()
            for stream in list(self.streams):
                if stream.writing_since:
                    if now - stream.writing_since >= STALLED_SECONDS:
                        stream.stall()
                elif stream.written_at and now - stream.written_at >= KEEP_ALIVE_SECONDS:
                    stream.keep_alive()
            if self._checking is None or self._checking.done():
                due = [s for s in self.streams if s.changed or _is_due(s, now)]
                if due:
                    self._checking = self.loop.create_task(self._check(due))
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def _check(self, due: list[OpenStream]) -> None:
        for start in range(0, len(due), AT_ONCE):
            batch = due[start : start + AT_ONCE]
            await asyncio.gather(*(self._check_one(stream) for stream in batch))
        if any(stream.changed for stream in self.streams):
            # It was told while this check ran, which the keeper waited for.
            self._wake.set()

    async def _check_one(self, stream: OpenStream) -> None:
        changed, stream.changed = stream.changed, False
        stream.checked_at = time.monotonic()
        try:
            await stream.recheck(changed=changed)
        except Exception:
            logger.exception("an open stream could not be checked")


def _is_due(stream: OpenStream, now: float) -> bool:
    return now - stream.checked_at >= RECHECK_SECONDS


_keepers: dict[asyncio.AbstractEventLoop, _Keeper] = {}


def _keeper() -> _Keeper:
    loop = asyncio.get_running_loop()
    found = _keepers.get(loop)
    if found is None:
        for other in [known for known in _keepers if known.is_closed()]:
            del _keepers[other]
        found = _keepers[loop] = _Keeper(loop)
    return found


def enter(stream: OpenStream) -> None:
    """Look after a stream from now on; whoever calls this calls ``leave`` at its end.

    Raises:
        TooManyOpen: its person, or this process, has as many as is allowed.
    """
    keeper = _keeper()
    if draining.begun():
        raise TooManyOpen("stopping")
    if len(keeper.streams) >= settings.GATEWAY_MAX_STREAMS:
        raise TooManyOpen("process")
    if keeper.per_user[stream.user_id] >= settings.GATEWAY_STREAMS_PER_USER:
        raise TooManyOpen("person")
    stream.checked_at = time.monotonic()
    keeper.add(stream)


def leave(stream: OpenStream) -> None:
    """Look no more after a stream."""
    _keeper().remove(stream)


def count() -> int:
    """Return how many streams are open in this process."""
    return sum(len(keeper.streams) for keeper in list(_keepers.values()))


def hear(kind: str, key: str = "") -> None:
    """Have the streams looked at that a change may concern; from any thread.

    ``kind`` and ``key`` are those of the rooms' ``changed`` signals; "" means everything.
    """
    for keeper in list(_keepers.values()):
        if keeper.loop.is_closed() or not keeper.streams:
            continue
        if kind == "session":
            keeper.loop.call_soon_threadsafe(keeper.each, _ending_session(key))
        else:
            keeper.loop.call_soon_threadsafe(keeper.change, _concerned_by(kind, key))


def _ending_session(digest: str) -> Callable[[OpenStream], None]:
    def end(stream: OpenStream) -> None:
        if digest and stream.session_digest == digest:
            stream.end_session()

    return end


def _concerned_by(kind: str, key: str) -> Callable[[OpenStream], bool]:
    if kind == "token":
        return lambda stream: key in ("", stream.token_digest)
    if kind == "access":
        return lambda stream: key in ("", str(stream.user_id))
    if kind == "credential":
        user = key.partition(":")[0]
        return lambda stream: user in ("", str(stream.user_id))
    return _always


def _always(stream: Any) -> bool:
    return True
