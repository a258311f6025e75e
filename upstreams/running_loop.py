"""The running event loop, without the system call that asking for it costs before Python 3.12.

``PerLoop`` keeps what belongs to one loop: tasks and futures must not be touched from another.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_here = threading.local()


def running_loop() -> asyncio.AbstractEventLoop:
    """Return what ``asyncio.get_running_loop`` returns; a thread runs one loop at a time.

    Raises:
        RuntimeError: no loop runs in this thread.
    """
    loop: asyncio.AbstractEventLoop | None = getattr(_here, "loop", None)
    if loop is None or not loop.is_running():
        loop = _here.loop = asyncio.get_running_loop()
    return loop


class PerLoop(Generic[T]):
    """One thing for each event loop, made when it is first asked for there."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """Return that of the running loop; those of closed loops are forgotten."""
        loop = running_loop()
        found = self._made.get(loop)
        if found is None:
            for other in [known for known in self._made if known.is_closed()]:
                del self._made[other]
            found = self._made[loop] = self._make()
        return found

    def everywhere(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """Return all of them with their loops; from any thread."""
        return list(self._made.items())
