"""Which process holds the GET stream of a session that several share (protocol.md 2.5 S11).

Servers allow one such stream in a session. A process holds a lease on it, which it renews for all
its streams in one statement; the others look every ``TURN_SECONDS`` whether one is free. While
the lease can't be asked for, each process tries to open the stream itself.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from upstreams import session_sharing
from upstreams.process_notes import Notes
from upstreams.running_loop import PerLoop
from upstreams.session_opening import LegacySession

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 10.0
TURN_SECONDS: Final = 2.5
CLOSE_SECONDS: Final = 2.0


class StreamTurn:
    """This process's turn in one session's stream.

    ``lost`` is called when another process has it, because this one did not renew it in time.
    """

    def __init__(self, session: LegacySession, lost: Callable[[], None]) -> None:
        self._session = session
        self.notes: Notes | None = None
        self.lost = lost
        self.leading = False
        self.free = asyncio.Event()
        self.taking: asyncio.Task[bool] | None = None
        self._office = _offices.here()

    @property
    def lease(self) -> str:
        """The lease's key."""
        return f"session-stream:{self._session.shared}"

    async def comes(self, waiting: Callable[[], None]) -> bool:
        """Wait for the turn; returns whether another process had it until now.

        ``waiting`` is called if it has.
        """
        notes = self.notes = session_sharing.notes_of(self._session)
        if notes is None:
            return False
        waited = False
        await self._office.until_left(self.lease)
        self._office.add(self)
        while True:
            self.free.clear()
            try:
                if await self._take(notes):
                    break
            except Exception as failure:
                log.warning("each process holds streams itself now: %s", type(failure).__name__)
                break
            waited = True
            waiting()
            await self.free.wait()
        self.leading = True
        return waited

    async def _take(self, notes: Notes) -> bool:
        # What a thread has begun to write is written although nobody waits for it any more.
        taking = notes.take_lease(self.lease, notes.PROCESS, LEASE_SECONDS)
        self.taking = asyncio.get_running_loop().create_task(taking)
        return await asyncio.shield(self.taking)

    def end(self) -> None:
        """Let another process have it."""
        self._office.leave(self)
        self.leading = False


class _Office:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._turns: dict[str, StreamTurn] = {}
        self._task: asyncio.Task[None] | None = None
        self._leaving: dict[str, asyncio.Task[None]] = {}

    def add(self, turn: StreamTurn) -> None:
        self._turns[turn.lease] = turn
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep_turning())

    def leave(self, turn: StreamTurn) -> None:
        """Give a lease back, also one that is just being taken."""
        lease = turn.lease
        if self._turns.get(lease) is not turn:
            return
        del self._turns[lease]
        task = asyncio.get_running_loop().create_task(_end(turn))
        self._leaving[lease] = task
        task.add_done_callback(lambda _: self._left(lease, task))

    def _left(self, lease: str, task: "asyncio.Task[None]") -> None:
        if self._leaving.get(lease) is task:
            del self._leaving[lease]

    async def until_left(self, lease: str) -> None:
        """Wait until a lease that was held here is given back."""
        leaving = self._leaving.get(lease)
        if leaving is not None:
            await asyncio.wait((leaving,))

    async def _keep_turning(self) -> None:
        while self._turns:
            await asyncio.sleep(TURN_SECONDS)
            notes = session_sharing.notes()
            if notes is None:
                continue
            try:
                await self._turn(notes)
            except Exception as failure:
                log.warning("leases on streams are not renewed: %s", type(failure).__name__)

    async def _turn(self, notes: Notes) -> None:
        """Renew what this process holds, and look whether what others hold is free."""
        leading = {lease: turn for lease, turn in self._turns.items() if turn.leading}
        waiting = {lease: turn for lease, turn in self._turns.items() if not turn.leading}
        if leading:
            kept = await notes.extend_leases(list(leading), notes.PROCESS, LEASE_SECONDS)
            for lease in leading.keys() - kept:
                if not await notes.take_lease(lease, notes.PROCESS, LEASE_SECONDS):
                    leading[lease].lost()
        if waiting:
            held = await notes.held(list(waiting))
            for lease in waiting.keys() - held:
                waiting[lease].free.set()

    async def close(self) -> None:
        """Wait, for a moment, until other processes may have the streams."""
        if self._task is not None:
            self._task.cancel()
        for turn in list(self._turns.values()):
            self.leave(turn)
        if self._leaving:
            await asyncio.wait(self._leaving.values(), timeout=CLOSE_SECONDS)


async def _end(turn: StreamTurn) -> None:
    if turn.taking is not None:
        await asyncio.wait((turn.taking,))
    try:
        if turn.notes is not None:
            await turn.notes.end_lease(turn.lease, turn.notes.PROCESS)
    except Exception as failure:
        log.warning("a stream's lease was not given back: %s", type(failure).__name__)


_offices = PerLoop(_Office)


async def close() -> None:
    """Let other processes have the streams of this one; call it when the process ends."""
    await _offices.here().close()
