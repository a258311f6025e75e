"""What a stateful client's call leaves behind, so that another process can go on with it when this
one dies (protocol.md 2.3.7, 2.4.2, 2.4.4, S7).

The note is written with the first question; without one half a second after both the client's
stream and the upstream's could be resumed. Its lease is renewed until the call ends. Of
the holder and whoever takes over, one alone may act on an answer: a row that is written once says
which. For a stateful upstream it carries a mark until the answer has arrived there; who takes the
call over in between posts it again (``upstreams.legacy_takeover`` says why). A stateless upstream's
note is gone before its answers are sent, so that a call whose outcome nobody knows is never made
again.

The note of a call that asked nothing is not kept up to date. It says after which event of the
client's stream which event of the upstream's comes next: the upstream says the rest again, which
gets the numbers it had, so that the client is told only what it has not seen.

A process that is told to stop hands its calls over in the same way: it closes the upstream's stream
without a word, and the lease is given back at once.

A call that asks nothing, and whose upstream gave no event id, has no part in this.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import msgspec

from upstreams.canonical_call import (
    CallTakenOver,
    HandOver,
    Origin,
    QuestionOrigin,
    RoundOrigin,
)
from virtualmcp.routing import parked_mail, shared_notes
from virtualmcp.routing.lease_keeper import keeper
from virtualmcp.transport import call_notes, draining, event_log
from virtualmcp.transport.call_notes import (
    KEEP_SECONDS,
    UNDER_WAY,
    Asking,
    Note,
    Unposted,
    claim_key,
    key_of,
    lease_key,
    note_key,
)
from virtualmcp.transport.event_log import EventLog
from virtualmcp.transport.wanted_notices import NO_PROGRESS

logger = logging.getLogger(__name__)

# Calls that end sooner leave nothing, unless they ask.
LEAVE_AFTER_SECONDS: Final = 0.5


class _Holding:
    """A call that this process holds; ``lost`` is set, and ``tell`` called, when another one has
    taken it."""

    __slots__ = ("lost", "tell")

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.tell: Callable[[], None] | None = None


# By the names of their streams.
_here: dict[str, _Holding] = {}


class Owner(Protocol):
    """The call itself, as its client is answered; ``last_progress`` is how far it was told that
    the call is."""

    @property
    def last_progress(self) -> float:
        """See above."""

    def lost(self) -> None:
        """Another process has taken the call."""

    def hand_over(self) -> None:
        """This process is about to stop, and another one could go on with the call."""


class HeldCall:
    """One call of this process that another one could go on with.

    Args:
        log: that of the call's stream.
        note: what the call is; or, taken over, what the dead process left.
        owner: the call.
        taken_over: the questions of a dead process, with whether it may have posted an answer.
    """

    def __init__(
        self,
        log: EventLog,
        note: Note,
        owner: Owner,
        taken_over: Unposted | None = None,
    ) -> None:
        self._log = log
        self._owner = owner
        self._name = event_log.name_of(log.token)
        self._answered: set[bytes] = set()
        self._doubtful = {one.origin for one, doubtful in taken_over or () if doubtful}
        self._lock = asyncio.Lock()
        # What was taken over is written down already.
        self._version = self._written = int(taken_over is not None)
        self._leaving: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._hand_over = HandOver()
        self.note = note
        self._handed_over = False
        self._undrained: Callable[[], None] | None = None
        if self._name in _here:
            _here[self._name].tell = owner.lost
            self._undrained = draining.register(owner.hand_over)

    def known(self, origin: Origin) -> str:
        """Return the id under which the client was asked this already, ``""`` if it was not."""
        key = key_of(origin)
        return next((one.id for one in self.note.asking if one.origin == key), "")

    async def asked(self, question: str, origin: Origin, method: str, params: bytes) -> None:
        """Leave word of a question that the client was asked just now.

        Raises:
            CallTakenOver: another process goes on with the call.
            django.db.Error, VaultError: it can't be written.
        """
        note = self.note
        note.asking.append(Asking(question, key_of(origin), method, params))
        self._take_down(origin)
        await self._write()

    def leave(self, origin: QuestionOrigin) -> None:
        """Leave word of a call that has not asked anything, soon; what the client was told so far
        is all that the upstream said. Best effort."""
        self._hand_over = origin.hand_over
        if self._version:
            return
        self._take_down(origin)
        self._leaving = asyncio.get_running_loop().create_task(self._leave())

    async def withdraw(self) -> None:
        """What was left of a call that has asked nothing can't be gone on with any more."""
        self._over.set()
        if self._leaving is not None:
            await asyncio.wait((self._leaving,))
        if self.note.asking or not self._version:
            return
        try:
            await shared_notes.remove(note_key(self._name))
        except Exception:
            logger.exception("what was left of a call could not be withdrawn")
        self._version, self._written, self._over = 0, 0, asyncio.Event()

    async def _leave(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), LEAVE_AFTER_SECONDS)
            return
        try:
            await self._write()
        except CallTakenOver:
            self._owner.lost()
        except Exception:
            logger.exception("a call could not be left for another process")

    def _take_down(self, origin: Origin) -> None:
        """Note where upstream and client are now."""
        note, log = self.note, self._log
        self._hand_over = origin.hand_over
        note.upstream_id, note.task_id = origin.upstream_id, origin.task_id
        if isinstance(origin, RoundOrigin):
            note.round = origin.result
        else:
            note.request_id, note.session_id = origin.request_id, origin.session_id
            note.revision, note.last_event_id = origin.revision, origin.last_event_id or b""
        note.number, note.events = log.number, event_log.newest(log)
        # Of a notice that is just about to be the first, the client does not know yet.
        note.progress = self._owner.last_progress if log.number else NO_PROGRESS
        self._version += 1

    async def _write(self) -> None:
        async with self._lock:
            # Questions that come together are written together.
            if self._written < self._version:
                await self._write_down()

    async def _write_down(self) -> None:
        version, content = self._version, msgspec.msgpack.encode(self.note)
        if not self._written:
            await self._begin_to_hold()
        elif not await self._still_holds():
            raise CallTakenOver
        await shared_notes.put(note_key(self._name), content, KEEP_SECONDS)
        self._written = version
        if self._undrained is None:
            self._undrained = draining.register(self._owner.hand_over)

    async def _begin_to_hold(self) -> None:
        if self._name in _here:
            return
        lease, seconds = lease_key(self._name), parked_mail.LEASE_SECONDS
        await shared_notes.take_lease(lease, shared_notes.PROCESS, seconds)
        _hold(self._name).tell = self._owner.lost

    async def _still_holds(self) -> bool:
        """Tell whether the call is this process's; it then stays so for as long as a lease.

        A lease that ran out, and that nobody took, is renewed: one that was taken and given back
        is not, since the call has ended elsewhere.
        """
        lease, seconds = lease_key(self._name), parked_mail.LEASE_SECONDS
        if self._name not in _here:
            return False
        if await shared_notes.extend_leases([lease], shared_notes.PROCESS, seconds):
            return True
        _lost(self._name)
        return False

    async def unless_taken_over(self, answer: Coroutine[Any, Any, bytes]) -> bytes:
        """Await the answer to a question.

        Raises:
            TimeoutError: as ``answer`` does.
            CallTakenOver: another process goes on with the call.
        """
        holding = _here.get(self._name)
        if holding is None:
            return await answer
        tasks = asyncio.ensure_future(answer), asyncio.ensure_future(holding.lost.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                raise CallTakenOver
            return tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()

    def hand_over(self) -> bool:
        """Leave the call to other processes, once it has ended here without a word; False if none
        could go on with it."""
        note = self.note
        if not self._written or self._name not in _here:
            return False
        # Of a round, the last answer may have been acted on.
        if not (note.asking if note.round else note.last_event_id):
            return False
        self._handed_over = True
        self.fall_silent()
        return True

    def fall_silent(self) -> None:
        """Say nothing more to the upstream: the call is another process's."""
        self._hand_over.done = True

    async def may_act(self, origin: Origin) -> bool:
        """Tell whether the answer to a question is this process's to act on; asked once for each.

        Of a round, the last answer decides for all.

        Raises:
            django.db.Error, VaultError: that can't be found out.
        """
        key = key_of(origin)
        if self._written and not await self._still_holds():
            return False
        if not isinstance(origin, RoundOrigin):
            if key in self._doubtful:
                return True
            claim = claim_key(self._name, key)
            return await shared_notes.set_once(claim, UNDER_WAY, 2 * KEEP_SECONDS)
        self._answered.add(key)
        if len(self._answered) < origin.questions:
            return True
        self._answered.clear()
        claim = claim_key(self._name, b"round %d" % self.note.rounds)
        if not await shared_notes.set_once(claim, b"", 2 * KEEP_SECONDS):
            return False
        self.note.rounds += 1
        self.note.asking.clear()
        await shared_notes.remove(note_key(self._name))
        return True

    async def answered(self, question_id: bytes) -> None:
        """A stateful upstream has an answer; best effort."""
        try:
            await shared_notes.put(claim_key(self._name, question_id), b"", 2 * KEEP_SECONDS)
        except Exception:
            logger.exception("it could not be noted that an upstream has an answer")

    async def end(self) -> None:
        """The call has ended; best effort."""
        self._over.set()
        if self._leaving is not None:
            # What it may just be writing is taken away again.
            await asyncio.wait((self._leaving,))
        if self._name not in _here:
            return
        self.let_go()
        try:
            if self._handed_over:
                await shared_notes.end_lease(lease_key(self._name), shared_notes.PROCESS)
                return
            await shared_notes.remove(note_key(self._name))
            await shared_notes.end_lease(lease_key(self._name), shared_notes.PROCESS)
        except Exception:
            logger.exception("what was left of a call that has ended could not be removed")

    def let_go(self) -> None:
        """Hold it no more; the lease ends by itself."""
        self._over.set()
        if self._undrained is not None:
            self._undrained()
        _let_go(self._name)


async def left_of(name: str) -> Note | None:
    """Return what a dead process left of a call, which this one then holds; None if there is
    nothing, or its holder lives.

    Raises:
        django.db.Error, VaultError: that can't be found out.
    """
    if name in _here or not await call_notes.may_be_left(name):
        return None
    lease = lease_key(name)
    if not await shared_notes.take_lease(lease, shared_notes.PROCESS, parked_mail.LEASE_SECONDS):
        return None
    if name in _here:
        # Its client came twice at once.
        return None
    _hold(name)
    note = None
    try:
        note = await _what_is_left(name)
    finally:
        if note is None:
            await give_back(name)
    return note


async def _what_is_left(name: str) -> Note | None:
    # Before it died, its holder may have come to the point from which there is no way back.
    content = await shared_notes.get(note_key(name))
    if content is None:
        return None
    try:
        note = call_notes.read(content)
    except msgspec.MsgspecError:
        logger.exception("what another version of the gateway left of a call can't be read")
        await call_notes.forget(name)
        return None
    acted_on = claim_key(name, b"round %d" % note.rounds)
    if note.round and await shared_notes.get(acted_on) is not None:
        return None
    return note


async def give_back(name: str) -> None:
    """Hold a call no more that was not gone on with: another process may, or this one later.

    Raises:
        django.db.Error: the database can't be reached; the lease ends by itself then.
    """
    _let_go(name)
    await shared_notes.end_lease(lease_key(name), shared_notes.PROCESS)


def _hold(name: str) -> _Holding:
    _here[name] = holding = _Holding()
    keeper().keep(lease_key(name), lambda: _lost(name))
    return holding


def _lost(name: str) -> None:
    holding = _here.pop(name, None)
    keeper().drop(lease_key(name))
    if holding is not None:
        holding.lost.set()
        if holding.tell is not None:
            holding.tell()


def _let_go(name: str) -> None:
    _here.pop(name, None)
    keeper().drop(lease_key(name))
