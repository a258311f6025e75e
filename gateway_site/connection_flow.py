"""What a client's connection waits with: small, because an open stream keeps them all its life.

``asyncio.Event`` makes a queue of 700 bytes before anybody waits; a connection has two of them.
"""

import asyncio
from typing import Any


class Signal:
    """Wakes who waits for it, and stays up until it is cleared: the part of ``asyncio.Event``
    that a server needs, for the loop's own thread."""

    __slots__ = ("_up", "_waiting")

    def __init__(self, *, up: bool = False) -> None:
        self._up = up
        self._waiting: list[asyncio.Future[None]] | None = None

    def set(self) -> None:
        """Wake everybody who waits."""
        self._up = True
        for waiter in self._waiting or ():
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Have the next ones wait."""
        self._up = False

    async def wait(self) -> None:
        """Return once it is up."""
        if self._up:
            return
        waiter = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = [waiter]
        else:
            self._waiting.append(waiter)
        try:
            await waiter
        finally:
            self._waiting.remove(waiter)


class Flow:
    """Whether a connection is read, and whether it takes what is written: uvicorn's
    ``FlowControl``."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._writable: Signal | None = None
        self.read_paused = self.write_paused = False

    async def drain(self) -> None:
        """Wait until more may be written."""
        if self._writable is not None:
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Read no more for now."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The connection's buffer is full."""
        if not self.write_paused:
            self.write_paused = True
            if self._writable is None:
                self._writable = Signal()
            self._writable.clear()

    def resume_writing(self) -> None:
        """The connection takes more, or is lost."""
        if self.write_paused:
            self.write_paused = False
            if self._writable is not None:
                self._writable.set()
