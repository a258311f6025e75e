"""Deadlines that hardly ever pass, kept by one timer for all of them.

A timer of the event loop for each request costs more than most of what a request does. These cost
a dictionary entry: one sweep looks at them now and then, as long as there are any. A deadline is
therefore noticed up to ``every`` seconds late, never early.
"""

import asyncio
import threading
import time
from typing import Protocol

from upstreams.running_loop import running_loop


class Waiting(Protocol):
    """What has a deadline; hashable by identity."""

    def overdue(self) -> None:
        """Hear, once, that the deadline has passed."""


class _Sweep:
    """The deadlines of one event loop, in the order in which they pass."""

    __slots__ = ("armed", "due", "every", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, every: float) -> None:
        self.loop = loop
        self.every = every
        self.due: dict[Waiting, float] = {}
        self.armed = False

    def arm(self) -> None:
        """Look once more after a while; a process without requests is left asleep."""
        self.armed = True
        self.loop.call_later(self.every, self._look)

    def _look(self) -> None:
        now, due = time.monotonic(), self.due
        self.armed = False
        try:
            while due:
                waiting = next(iter(due))
                if due[waiting] > now:
                    break
                del due[waiting]
                waiting.overdue()
        finally:
            if due:
                self.arm()


class Deadlines:
    """Deadlines of one kind, all equally long; looked at ``every`` seconds."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._here = threading.local()

    def add(self, waiting: Waiting, seconds: float) -> None:
        """Begin to wait; only from the thread of a running loop."""
        sweep: _Sweep | None = getattr(self._here, "sweep", None)
        if sweep is None or not sweep.loop.is_running():
            sweep = self._here.sweep = _Sweep(running_loop(), self._every)
        sweep.due[waiting] = time.monotonic() + seconds
        if not sweep.armed:
            sweep.arm()

    def discard(self, waiting: Waiting) -> None:
        """Wait no longer; harmless when the deadline has passed."""
        self._here.sweep.due.pop(waiting, None)
