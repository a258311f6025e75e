"""Sessions that several processes share, and what happens while they can't."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.upstreams.relaying import NO_CREDENTIAL, facts_for, until
from upstreams import (
    legacy_sessions,
    legacy_takeover,
    mcp_client,
    session_sharing,
    session_stream,
    stream_turns,
)
from upstreams.canonical_call import CanonicalCall, ClientFacts, Outcome, SilentSink
from upstreams.legacy_exchange import LegacyCall
from upstreams.legacy_sessions import LegacySessions
from upstreams.session_opening import LegacySession


@dataclass
class Shelf:
    """What the processes share; ``away`` while it can't be reached, ``broken`` how the keys begin
    that can't be read or taken."""

    notes: dict[str, bytes] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)
    away: bool = False
    broken: str = "-"
    asked: int = 0


class Process:
    """One process: its view of the shelf (``session_sharing.Notes``), and its sessions."""

    def __init__(self, name: str, shelf: Shelf, upstream: FakeUpstream) -> None:
        self.PROCESS = name
        self.shelf = shelf
        self.facts = facts_for(upstream.url, era="legacy")
        self.pool = LegacySessions(asyncio.get_running_loop())

    async def take(self, person: str = "person-1") -> LegacySession:
        """Take the person's session, as a call in this process does."""
        session_sharing.share_by(self)
        return await self.pool.take(self.facts, NO_CREDENTIAL, ClientFacts(), person)

    async def keep(self) -> None:
        """Do what is done every half minute."""
        session_sharing.share_by(self)
        await self.pool._keep_shared(list(self.pool._open.values()))

    async def look_for_idle(self) -> None:
        """End what was not used for long."""
        session_sharing.share_by(self)
        self.pool._end_idle()
        await until(lambda: not self.pool._background)

    async def close(self) -> None:
        """End as a process does."""
        session_sharing.share_by(self)
        await self.pool.close()

    async def log_at(self, level: str) -> None:
        """Make a call that wants log messages of this level."""
        session = await self.take()
        call = CanonicalCall(
            "tools/call", b'{"name":"echo","arguments":{}}', log_level=level, principal="person-1"
        )
        await LegacyCall(session, NO_CREDENTIAL, call, SilentSink()).run()

    def _there(self, key: str = "") -> Shelf:
        self.shelf.asked += 1
        if self.shelf.away or key.startswith(self.shelf.broken):
            raise ConnectionError
        return self.shelf

    async def set_once(self, key: str, value: bytes, seconds: float, /) -> bool:
        return self._there().notes.setdefault(key, value) is value

    async def get(self, key: str, /) -> bytes | None:
        return self._there(key).notes.get(key)

    async def swap(self, key: str, expected: bytes, value: bytes, seconds: float, /) -> bool:
        if self._there().notes.get(key) != expected:
            return False
        self.shelf.notes[key] = value
        return True

    async def discard(self, key: str, expected: bytes, /) -> bool:
        if self._there().notes.get(key) != expected:
            return False
        del self.shelf.notes[key]
        return True

    async def discard_all(self, expected: dict[str, bytes], /) -> set[str]:
        stood = set(expected) & self._there().notes.keys()
        for key in [key for key in stood if self.shelf.notes[key] == expected[key]]:
            del self.shelf.notes[key]
        return stood

    async def extend(self, keys: list[str], seconds: float, /) -> set[str]:
        return set(keys) & self._there().notes.keys()

    async def take_lease(self, key: str, holder: str, seconds: float, /) -> bool:
        return self._there(key).leases.setdefault(key, holder) == holder

    async def extend_leases(self, keys: list[str], holder: str, seconds: float, /) -> set[str]:
        return {key for key in keys if self._there().leases.get(key) == holder}

    async def holders(self, prefix: str, /) -> set[str]:
        return {who for key, who in self._there().leases.items() if key.startswith(prefix)}

    async def leases(self, prefix: str, /) -> set[str]:
        return {key for key in self._there().leases if key.startswith(prefix)}

    async def held(self, keys: list[str], /) -> set[str]:
        return set(keys) & self._there().leases.keys()

    async def end_lease(self, key: str, holder: str, /) -> None:
        if self._there().leases.get(key) == holder:
            del self.shelf.leases[key]

    async def end_leases(self, keys: list[str], holder: str, /) -> None:
        leases = self._there().leases
        self.shelf.leases = {k: who for k, who in leases.items() if k not in keys or who != holder}


@pytest.fixture(autouse=True)
async def forgotten_afterwards() -> AsyncIterator[None]:
    mcp_client.forget()
    yield
    session_sharing.share_by(None)
    await mcp_client.close_all()


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """A stateful upstream."""
    with FakeUpstream(era="legacy").serve() as upstream:
        yield upstream


@pytest.fixture
async def processes(upstream: FakeUpstream) -> tuple[Process, Process]:
    """Two processes that share a shelf."""
    shelf = Shelf()
    return Process("one", shelf, upstream), Process("two", shelf, upstream)


async def test_while_nothing_can_be_shared_each_process_has_its_own_and_later_they_are_one(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    one.shelf.away = True
    own, other = await one.take(), await two.take()
    assert own.id != other.id and len(upstream.initialized) == 2
    await one.keep()
    assert not own.shared
    one.shelf.away = False
    await one.keep()
    assert own.shared
    # The second one's is given up for it, once no call runs in it.
    other.in_use = 1
    await two.keep()
    assert (await two.take()) is other
    other.in_use = 0
    await two.keep()
    assert (await two.take()).id == own.id
    assert await upstream.seen(lambda up: up.deleted == [other.id.decode()])
    assert len(upstream.initialized) == 2


async def test_a_call_does_not_wait_for_notes_that_nobody_can_write_for_long(
    processes: tuple[Process, Process], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_sharing, "SOON_SECONDS", 0.05)
    one, two = processes
    free, write = asyncio.Event(), one.set_once

    async def busy(key: str, value: bytes, seconds: float, /) -> bool:
        await free.wait()
        return await write(key, value, seconds)

    monkeypatch.setattr(one, "set_once", busy)
    session = await asyncio.wait_for(one.take(), 10)
    assert not session.shared
    # What was begun is written all the same, later.
    free.set()
    await until(lambda: session.shared)
    assert (await two.take()).id == session.id


async def test_a_session_whose_note_was_lost_is_shared_again(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    session = await one.take()
    one.shelf.notes.clear()
    one.shelf.leases.clear()
    await one.keep()
    assert (await two.take()).id == session.id
    # Also as one that is used: it does not end with the other.
    await two.close()
    assert not upstream.deleted


async def test_a_process_that_could_not_be_seen_to_use_a_session_is_seen_later(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    one.shelf.broken = "session-user:"
    session = await one.take()
    assert one.shelf.notes and not session.shared
    one.shelf.broken = "-"
    await one.keep()
    assert (await two.take()).id == session.id
    # The other one leaves, and does not end it under the first.
    await two.close()
    assert not upstream.deleted


async def test_an_idle_session_ends_with_the_last_process_that_used_it(
    processes: tuple[Process, Process], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = processes
    session = await one.take()
    await two.take()
    monkeypatch.setattr(legacy_sessions, "IDLE_SECONDS", -1.0)
    await one.look_for_idle()
    assert not upstream.deleted
    await two.look_for_idle()
    assert await upstream.seen(lambda up: up.deleted == [session.id.decode()])
    assert not any(key.startswith("upstream-session:") for key in one.shelf.notes)
    assert not one.shelf.leases


async def test_a_process_that_ends_leaves_many_sessions_as_quickly_as_a_few(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    alone = [await one.take(f"person-{number}") for number in range(40)]
    both = await two.take("person-7")
    before = one.shelf.asked
    await one.close()
    assert one.shelf.asked - before < 10
    own = {session.id.decode() for session in alone} - {both.id.decode()}
    assert await upstream.seen(lambda up: set(up.deleted) == own)
    await two.close()
    assert await upstream.seen(lambda up: both.id.decode() in up.deleted)
    assert not one.shelf.leases and not one.shelf.notes


async def test_a_session_is_not_ended_in_which_a_call_was_handed_over_once_more(
    processes: tuple[Process, Process], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handed_over(call: LegacyCall) -> None:
        call._session.handed_over = True
        raise asyncio.CancelledError

    one, _ = processes
    session = await one.take()
    monkeypatch.setattr(legacy_takeover._TakenOver, "run", handed_over)
    monkeypatch.setattr(legacy_sessions, "sessions", lambda: one.pool)
    call = CanonicalCall("tools/call", principal="person-1")
    held = legacy_takeover.HeldCall("1", session.id, session.revision, b"1", ())
    with pytest.raises(asyncio.CancelledError):
        await legacy_takeover.take_over(one.facts, NO_CREDENTIAL, call, SilentSink(), held)
    await one.close()
    assert not upstream.deleted


async def test_a_session_stays_for_a_call_that_was_handed_over_whoever_leaves_it(
    processes: tuple[Process, Process],
    upstream: FakeUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = processes
    session = await one.take()
    assert (await two.take()).id == session.id
    # The first one stops, and nobody has come for the call yet.
    session.handed_over = True
    await one.close()
    await two.close()
    assert not upstream.deleted
    # The call goes on in a process that has made no other one in that session.
    one.shelf.leases.clear()
    both = await two.take()
    assert both.id == session.id
    began, ends = asyncio.Event(), asyncio.Event()

    async def goes_on(call: LegacyCall) -> tuple[Outcome, int]:
        began.set()
        await ends.wait()
        return Outcome(result=b"{}"), 200

    monkeypatch.setattr(legacy_takeover._TakenOver, "run", goes_on)
    call = CanonicalCall("tools/call", principal="person-1")
    held = legacy_takeover.HeldCall("1", session.id, session.revision, b"1", ())
    taken = asyncio.create_task(
        legacy_takeover.take_over(one.facts, NO_CREDENTIAL, call, SilentSink(), held)
    )
    await began.wait()
    monkeypatch.setattr(legacy_sessions, "IDLE_SECONDS", -1.0)
    await two.look_for_idle()
    assert not upstream.deleted
    ends.set()
    assert (await taken).result == b"{}"
    assert not one.shelf.leases


async def test_a_session_that_several_find_lost_is_replaced_by_one(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    lost = [await one.take(), await two.take()]
    upstream.forget_sessions()
    one.pool.drop(lost[0])
    fresh = await one.take()
    two.pool.drop(lost[1])
    assert (await two.take()).id == fresh.id != lost[0].id
    assert len(upstream.initialized) == 2


async def test_a_session_that_only_one_process_can_use_ends_with_that(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    # As where each process meets another server behind the upstream's address.
    own = await one.take()
    two.pool._gone[own.key] = own.id
    other = await two.take()
    assert own.id != other.id and (await one.take()) is own
    await one.keep()
    assert (await one.take()) is own
    await one.close()
    assert upstream.deleted == [own.id.decode()]
    await two.close()
    assert upstream.deleted == [own.id.decode(), other.id.decode()]


async def test_a_session_is_as_talkative_as_the_process_that_wants_most(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    await one.log_at("warning")
    await two.log_at("debug")
    # What would make it more silent is not said, nor what was said already.
    await one.log_at("info")
    await two.log_at("error")
    levels = [call["params"]["level"] for call in upstream.calls("logging/setLevel")]
    assert levels == ["warning", "debug"]


async def test_a_level_that_was_written_down_and_cant_be_read_holds_no_call_up(
    processes: tuple[Process, Process], upstream: FakeUpstream
) -> None:
    one, two = processes
    await one.log_at("warning")
    one.shelf.broken = "session-level:"
    await asyncio.wait_for(two.log_at("debug"), 10)
    levels = [call["params"]["level"] for call in upstream.calls("logging/setLevel")]
    assert levels == ["warning", "debug"]


async def test_a_stream_is_left_to_the_process_that_took_it_over(
    processes: tuple[Process, Process], upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_turns, "TURN_SECONDS", 0.05)
    one, _ = processes
    session = await one.take()
    stream = session_stream.SessionStream(session)
    await stream.known()
    assert await upstream.seen(lambda up: up.listening == 1)
    lease = f"session-stream:{session.shared}"
    one.shelf.leases[lease] = "two"
    await until(lambda: stream.over)
    assert await upstream.seen(lambda up: not up.listening)
    # The next one waits until it is free.
    later = session_stream.SessionStream(session)
    await later.known()
    assert not upstream.listening
    del one.shelf.leases[lease]
    assert await upstream.seen(lambda up: up.listening == 1)
    later.stop()
    await until(lambda: lease not in one.shelf.leases)
