"""The calls of stateful sessions that run in this process, so that they can be cancelled.

A cancellation may come to any node. One that finds no call here is told to the others by the
change feed, which reaches every process within a second (protocol.md 2.3.4); nothing is written
down while calls run.

A key is the session and the request id within it: nobody can reach another session's call, and
equal ids of two sessions are two calls (security.md #132, #188).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from typing import Final, Protocol

from upstreams.database_calls import in_thread
from virtualmcp.signals import changed

# Kind of change by which other processes hear of a cancellation.
CANCELLED: Final = "cancelled call"
_Key = tuple[str, bytes]


class Cancellable(Protocol):
    """A running call."""

    def cancel(self) -> None:
        """End the call; nothing more is sent for it."""


class CallsInFlight:
    """Which call runs under which id; used on the event loop only."""

    def __init__(self) -> None:
        self._calls: dict[_Key, Cancellable] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, session_digest: str, id: bytes, call: Cancellable) -> None:
        """Enter a call that begins; a second one with the same id hides the first."""
        self._calls[(session_digest, id)] = call
        self._loop = asyncio.get_running_loop()

    def remove(self, session_digest: str, id: bytes, call: Cancellable) -> None:
        """Take a call out that ended."""
        if self._calls.get((session_digest, id)) is call:
            del self._calls[(session_digest, id)]

    def cancel(self, session_digest: str, id: bytes) -> bool:
        """Cancel a call of this session; False if none runs here under that id."""
        call = self._calls.get((session_digest, id))
        if call is None:
            return False
        call.cancel()
        return True

    def cancel_session(self, session_digest: str) -> int:
        """Cancel every call of a session that ended; returns how many there were."""
        found = [call for (digest, _), call in self._calls.items() if digest == session_digest]
        for call in found:
            call.cancel()
        return len(found)

    def from_any_thread(self, work: Callable[[str], object], argument: str) -> None:
        """Do something with the calls, on their event loop."""
        loop = self._loop
        if loop is not None and self._calls:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the calls with it
                loop.call_soon_threadsafe(work, argument)

    def cancel_named(self, name: str) -> bool:
        """Cancel the call that another process names; False if it does not run here."""
        for digest, id in self._calls:
            if _name(digest, id) == name:
                return self.cancel(digest, id)
        return False

    def __len__(self) -> int:
        return len(self._calls)


calls_in_flight = CallsInFlight()


async def tell_others_to_cancel(session_digest: str, id: bytes) -> None:
    """Have the process that runs this call, if any does, cancel it.

    Raises:
        django.db.Error: the others can't be told.
    """
    await in_thread(_tell, _name(session_digest, id))


def _tell(name: str) -> None:
    changed.send(sender=CallsInFlight, kind=CANCELLED, key=name)


def hear(kind: str, key: str) -> None:
    """Hear from another process that a call was cancelled, or a session ended with its calls.

    May be called on any thread. An empty ``key`` stands for "something was missed", which is no
    reason to end anything.
    """
    if not key:
        return
    calls = calls_in_flight
    calls.from_any_thread(calls.cancel_named if kind == CANCELLED else calls.cancel_session, key)


def _name(session_digest: str, id: bytes) -> str:
    return hashlib.sha256(session_digest.encode() + b"\n" + id).hexdigest()
