"""Which process listens to a stateless upstream for all of them (protocol.md 2.3.6, S11).

One of the processes whose clients want to hear of an upstream with the same credential leads: it
holds a lease, listens for everybody, writes down what the upstream agreed to, and passes every
notice on by the change feed (``notice_feed``). The others write down what they want. What one
wrote the others learn of by the change feed:

    changed(kind="listening", key="want <stream> <process>" | "state <stream>" | "vacant <stream>")

When the leader dies its lease runs out, another one takes it, and every listener is told once
that anything may have changed. While the database can't be reached each process listens for
itself. Nothing runs while nobody listens; with listeners, a process renews all its leases in one
statement each ``TURN_SECONDS``.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from upstreams.change_interest import Interest
from upstreams.running_loop import PerLoop
from upstreams.shared_interest import SharedInterest
from virtualmcp.routing import shared_notes
from virtualmcp.routing.shared_notes import PROCESS
from virtualmcp.signals import changed

logger = logging.getLogger(__name__)

KIND: Final = "listening"
LEASE_SECONDS: Final = 10.0
TURN_SECONDS: Final = 2.5
KEEP_SECONDS: Final = 86_400.0
# A note is written anew well before it expires.
AGAIN_SECONDS: Final = 6 * 3600.0
CLOSE_SECONDS: Final = 2.0
# A leader reads anew what all want after so many turns: one that was taken for dead does not say
# it again.
TURNS_TO_HEAR_ALL: Final = 10
# How often, and how long, a follower looks for the leader's answer without being told of it.
LOOK_SECONDS: Final = 0.2
HURRY_SECONDS: Final = 3.0


class _State(msgspec.Struct, array_like=True):
    """What a leader's upstream was asked for and agreed to; ``gaps`` counts the times in which
    something may have been missed."""

    leader: str
    gaps: int
    asked: Interest
    honoured: Interest


_state = msgspec.msgpack.Decoder(_State)
_interest = msgspec.msgpack.Decoder(Interest)


class SharedStream:
    """This process's part in one stream; a ``change_streams.Sharing``.

    Args:
        name: the same in every process.
        shared: what the clients of this process want.
        again: has this process decide anew whether it leads.
    """

    def __init__(self, name: str, shared: SharedInterest, again: Callable[[], None]) -> None:
        self.name = name
        self.lease = f"listening:{name}"
        self.leading = False
        self.shared = shared
        self._again = again
        self._office = _offices.here()
        self._news = asyncio.Event()
        self._vacant = False
        self._followed: tuple[str, int] | None = None
        self._said: Interest | None = None
        self._said_at = 0.0
        self._agreed: tuple[Interest, Interest] | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[bool] | None = None
        # So that what was read earlier does not take the place of what was read later.
        self._hearing = asyncio.Lock()

    async def lead(self) -> bool:
        """Become or stay the leader; False while another process is."""
        self._office.add(self)
        await self._office.until_left(self.name)
        try:
            self.leading = await self._take_lease()
            if self.leading:
                await self._hear_all()
        except Exception as failure:
            logger.warning("each process listens for itself now: %s", type(failure).__name__)
            self.leading = True
        if self.leading:
            self.shared.missed = self.shared.missed or self._followed is not None
            self._followed, self._said = None, None
            self.shared.told = self._told
        return self.leading

    async def _take_lease(self) -> bool:
        # What a thread has begun to write is written although nobody waits for it any more.
        taking = shared_notes.take_lease(self.lease, PROCESS, LEASE_SECONDS)
        self._taking = asyncio.get_running_loop().create_task(taking)
        return await asyncio.shield(self._taking)

    async def _hear_all(self) -> None:
        """Take in what the other processes want."""
        async with self._hearing:
            found = await shared_notes.all_of(_want(self.name, ""))
            wants = {key.rpartition(":")[2]: _interest.decode(body) for key, body in found.items()}
            wants.pop(PROCESS, None)
            alive = await shared_notes.held([_presence(process) for process in wants])
            self.shared.others = {p: one for p, one in wants.items() if _presence(p) in alive}

    async def hear_again(self) -> None:
        """Take in what was not heard of; the upstream is asked if that is something else."""
        before = self.shared.others
        await self._hear_all()
        if self.shared.others != before:
            self.shared.wish()

    async def follow(self) -> None:
        """Hear by the leader; returns when there is none any more."""
        self._vacant = False
        self.shared.told, self.shared.others = None, {}
        try:
            await self._office.appear()
            while not self._vacant:
                self._news.clear()
                await self._want()
                await self._take_in()
                await self._something_new()
        except Exception:
            logger.exception("a stream that another process leads can't be followed")
            await asyncio.sleep(TURN_SECONDS)

    async def _something_new(self) -> None:
        """Wait until there is; while a client waits for an answer, look without being told."""
        since = asyncio.get_running_loop().time() - self._said_at
        hurried = since < HURRY_SECONDS and not self.shared.all_answered
        waiting = {asyncio.ensure_future(one) for one in (self._news.wait(), self.shared.wished())}
        try:
            await asyncio.wait(
                waiting,
                timeout=LOOK_SECONDS if hurried else AGAIN_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in waiting:
                task.cancel()
        if since > AGAIN_SECONDS:
            self._said = None

    async def _want(self) -> None:
        """Say what is wanted here, if that is something else than before."""
        wanted = self.shared.wanted()
        if wanted == self._said:
            return
        content = msgspec.msgpack.encode(wanted)
        await shared_notes.put(_want(self.name, PROCESS), content, KEEP_SECONDS)
        self._said, self._said_at = wanted, asyncio.get_running_loop().time()
        _tell(f"want {self.name} {PROCESS}")

    async def _take_in(self) -> None:
        """Take in what the leader's upstream has agreed to."""
        content = await shared_notes.get(_agreed(self.name))
        state = None if content is None else _state.decode(content)
        if state is None or state.leader != await shared_notes.lease_holder(self.lease):
            return
        seen = (state.leader, state.gaps)
        self.shared.missed = self.shared.missed or self._followed not in (None, seen)
        self._followed = seen
        self.shared.settle(state.asked, state.honoured)

    def _told(self, asked: Interest, honoured: Interest) -> None:
        """The upstream has agreed to something else."""
        self._agreed = (asked, honoured)
        if self._publishing is None or self._publishing.done():
            self._publishing = self._office.run(self._publish())

    async def _publish(self) -> None:
        published = None
        while self.leading and self._agreed is not None and self._agreed is not published:
            published = self._agreed
            content = msgspec.msgpack.encode(_State(PROCESS, self.shared.gaps, *published))
            await shared_notes.put(_agreed(self.name), content, KEEP_SECONDS)
            if self.shared.others:
                _tell(f"state {self.name}")

    async def hear_want(self, process: str) -> None:
        """Another process wants something else."""
        async with self._hearing:
            content = await shared_notes.get(_want(self.name, process))
            if content is None:
                self.drop(process)
            elif self.leading:
                self.shared.others[process] = _interest.decode(content)
                self.shared.wish()

    def drop(self, process: str) -> None:
        """Another process no longer listens."""
        if self.shared.others.pop(process, None) is not None:
            self.shared.wish()

    def say_again(self) -> None:
        """The leader may have taken this process for dead, and no longer ask for what it wants."""
        self._said = None
        self._news.set()

    def hear_state(self) -> None:
        """The leader's upstream has agreed to something else."""
        self._news.set()

    def vacate(self) -> None:
        """There is no leader any more."""
        if not self.leading:
            self._vacant = True
            self._news.set()

    def lose(self) -> None:
        """Another process leads now."""
        self.leading = False
        self._again()

    def end(self) -> None:
        """Nobody here listens any more."""
        self._office.remove(self)
        self.shared.told = None
        self._office.leave(self.name, self._leave(leading=self.leading))
        self.leading = False

    async def _leave(self, *, leading: bool) -> None:
        if not leading and self._taking is not None:
            await asyncio.wait((self._taking,))
            leading = self._taking.exception() is None and self._taking.result()
        if leading:
            await shared_notes.end_lease(self.lease, PROCESS)
            _tell(f"vacant {self.name}")
        else:
            await shared_notes.remove(_want(self.name, PROCESS))
            _tell(f"want {self.name} {PROCESS}")


class _Office:
    """The shared streams of one event loop, and the leases that this process renews for them."""

    def __init__(self) -> None:
        self._streams: dict[str, SharedStream] = {}
        self._turns: asyncio.Task[None] | None = None
        self._turn_count = 0
        self._running: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._seen_at = 0.0

    def add(self, stream: SharedStream) -> None:
        self._streams[stream.name] = stream
        if self._turns is None or self._turns.done():
            self._turns = asyncio.get_running_loop().create_task(self._keep_turning())

    def remove(self, stream: SharedStream) -> None:
        if self._streams.get(stream.name) is stream:
            del self._streams[stream.name]

    def run(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do something beside; a failure is logged."""
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def leave(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Have what a stream wrote taken back; who comes next with its name waits for that."""
        task = self._leaving[name] = self.run(work)
        task.add_done_callback(lambda _: self._left(name, task))

    def _left(self, name: str, task: "asyncio.Task[None]") -> None:
        if self._leaving.get(name) is task:
            del self._leaving[name]

    async def until_left(self, name: str) -> None:
        """Wait until what an earlier stream of this name wrote is taken back."""
        leaving = self._leaving.get(name)
        if leaving is not None:
            await asyncio.wait((leaving,))

    async def appear(self) -> None:
        """Be seen to live, so that what is wanted here is not taken for a dead process's."""
        await shared_notes.take_lease(_presence(PROCESS), PROCESS, LEASE_SECONDS)
        self._seen_at = time.monotonic()

    async def _keep_turning(self) -> None:
        while self._streams:
            await asyncio.sleep(TURN_SECONDS)
            try:
                await self._turn()
            except Exception as failure:
                logger.warning("leases on streams are not renewed: %s", type(failure).__name__)

    async def _turn(self) -> None:
        """Renew what this process leads, look whether others still lead, and forget the dead."""
        leading = {one.lease: one for one in self._streams.values() if one.leading}
        following = {one.lease: one for one in self._streams.values() if not one.leading}
        mine = [_presence(PROCESS), *leading]
        kept = await shared_notes.extend_leases(mine, PROCESS, LEASE_SECONDS)
        lapsed = time.monotonic() - self._seen_at > LEASE_SECONDS
        if _presence(PROCESS) not in kept:
            await self.appear()
        self._seen_at = time.monotonic()
        if lapsed:
            for stream in following.values():
                stream.say_again()
        for lease, stream in leading.items():
            taken = lease in kept or await shared_notes.take_lease(lease, PROCESS, LEASE_SECONDS)
            if not taken:
                stream.lose()
        if following:
            held = await shared_notes.held(list(following))
            for lease, stream in following.items():
                if lease not in held:
                    stream.vacate()
        others = {process for one in leading.values() for process in one.shared.others}
        if others:
            alive = await shared_notes.held([_presence(process) for process in others])
            for process in [one for one in others if _presence(one) not in alive]:
                for stream in leading.values():
                    stream.drop(process)
        self._turn_count += 1
        if self._turn_count % TURNS_TO_HEAR_ALL == 0:
            for stream in [one for one in leading.values() if one.leading]:
                await stream.hear_again()

    def heard(self, key: str) -> None:
        """Take in what another process wrote down."""
        what, _, rest = key.partition(" ")
        name, _, process = rest.partition(" ")
        stream = self._streams.get(name)
        if stream is None:
            return
        if what == "state":
            stream.hear_state()
        elif what == "vacant":
            stream.vacate()
        elif what == "want" and process != PROCESS and stream.leading:
            self.run(stream.hear_want(process))

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._turns is not None:
            self._turns.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_SECONDS)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        logger.exception("what processes tell each other of a stream could not be written")


_offices = PerLoop(_Office)


def hear(key: str) -> None:
    """Hear what another process wrote down; from any thread."""
    for loop, office in _offices.everywhere():
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its streams with it
            loop.call_soon_threadsafe(office.heard, key)


async def close() -> None:
    """Wait, for a moment, until the other processes know that the streams here have ended."""
    await _offices.here().close()


def _tell(key: str) -> None:
    changed.send(sender=SharedStream, kind=KIND, key=key)


def _want(name: str, process: str) -> str:
    return f"listening-want:{name}:{process}"


def _agreed(name: str) -> str:
    return f"listening-state:{name}"


def _presence(process: str) -> str:
    return f"listening-process:{process}"
