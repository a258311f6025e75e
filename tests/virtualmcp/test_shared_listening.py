"""One process listens for all: leading, following, and what happens when neither is possible."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from django.db import OperationalError

from tests.patience import PATIENCE
from tests.upstreams.relaying import until
from upstreams.change_interest import UPDATED, Interest
from upstreams.shared_interest import SharedInterest, Subscription
from virtualmcp.routing import shared_listening, shared_notes
from virtualmcp.routing.shared_listening import SharedStream
from virtualmcp.signals import changed

pytestmark = pytest.mark.django_db(transaction=True)

NAME, NOTE, OTHER = "a-stream", "file:///notes/1", "file:///notes/2"
WANTED = Interest(frozenset({"tools"}), frozenset({NOTE}))
ELSEWHERE = "another-process"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_listening, "TURN_SECONDS", 0.05)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the other processes are told."""
    heard: list[str] = []

    def hear(sender: Any, kind: str, key: str = "", **_: Any) -> None:
        if kind == shared_listening.KIND:
            heard.append(key)

    changed.connect(hear)
    yield heard
    changed.disconnect(hear)


class Listener:
    """A client of this process and the stream it shares."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.begun_anew = 0
        self.shared = SharedInterest(lambda: None)
        part = Subscription(
            self.shared, 1, "c", WANTED, lambda method, _: self.heard.append(method), self.leave
        )
        self.shared.parts.add(part)
        self.stream = SharedStream(NAME, self.shared, self.anew)

    def leave(self, part: Subscription) -> None: ...

    def anew(self) -> None:
        self.begun_anew += 1


async def _leads_elsewhere() -> None:
    """Another process leads, and its upstream has agreed to everything."""
    assert await shared_notes.take_lease(f"listening:{NAME}", ELSEWHERE, 60)
    state = shared_listening._State(ELSEWHERE, 0, WANTED, WANTED)
    await shared_notes.put(f"listening-state:{NAME}", msgspec.msgpack.encode(state), 60)


async def _follows(stream: SharedStream) -> None:
    """Follow whoever leads, as a listener does: word of an earlier vacancy may come late."""
    while not await stream.lead():
        await stream.follow()


async def test_what_the_leader_agreed_to_holds_here_until_it_dies_and_this_process_leads(
    told: list[str],
) -> None:
    await _leads_elsewhere()
    listener = Listener()
    assert not await listener.stream.lead()
    following = asyncio.ensure_future(listener.stream.follow())
    await until(lambda: listener.shared.honoured == WANTED)
    want = f"listening-want:{NAME}:{shared_notes.PROCESS}"
    said = await shared_notes.get(want)
    assert said is not None and msgspec.msgpack.decode(said, type=Interest) == WANTED
    assert told == [f"want {NAME} {shared_notes.PROCESS}"]
    # The lease runs out, or is given back.
    await shared_notes.end_lease(f"listening:{NAME}", ELSEWHERE)
    await asyncio.wait_for(following, PATIENCE)
    assert await listener.stream.lead()
    # What may have been missed is made up for as soon as the upstream agrees.
    listener.heard.clear()
    listener.shared.settle(WANTED, WANTED)
    assert sorted(listener.heard) == [UPDATED, "notifications/tools/list_changed"]
    listener.stream.end()
    await shared_listening.close()
    assert not await shared_notes.lease_holder(f"listening:{NAME}")
    assert told[-1] == f"vacant {NAME}"


async def test_the_leader_asks_for_what_others_want_until_they_die(told: list[str]) -> None:
    listener = Listener()
    assert await listener.stream.lead()
    await shared_notes.take_lease(f"listening-process:{ELSEWHERE}", ELSEWHERE, 60)
    theirs = Interest(uris=frozenset({OTHER}))
    want = msgspec.msgpack.encode(theirs)
    await shared_notes.put(f"listening-want:{NAME}:{ELSEWHERE}", want, 60)
    shared_listening.hear(f"want {NAME} {ELSEWHERE}")
    await until(lambda: listener.shared.wanted() == WANTED | theirs)
    listener.shared.settle(WANTED | theirs, WANTED | theirs)
    await until(lambda: f"state {NAME}" in told)
    await shared_notes.end_lease(f"listening-process:{ELSEWHERE}", ELSEWHERE)
    await until(lambda: listener.shared.wanted() == WANTED)
    listener.stream.end()
    await shared_listening.close()


async def test_a_process_that_was_taken_for_dead_is_listened_for_again() -> None:
    listener = Listener()
    assert await listener.stream.lead()
    theirs = Interest(uris=frozenset({OTHER}))
    await shared_notes.take_lease(f"listening-process:{ELSEWHERE}", ELSEWHERE, 60)
    want = msgspec.msgpack.encode(theirs)
    await shared_notes.put(f"listening-want:{NAME}:{ELSEWHERE}", want, 60)
    shared_listening.hear(f"want {NAME} {ELSEWHERE}")
    await until(lambda: listener.shared.wanted() == WANTED | theirs)
    await shared_notes.end_lease(f"listening-process:{ELSEWHERE}", ELSEWHERE)
    await until(lambda: listener.shared.wanted() == WANTED)
    # It lives, and has nothing new to say.
    await shared_notes.take_lease(f"listening-process:{ELSEWHERE}", ELSEWHERE, 60)
    await until(lambda: listener.shared.wanted() == WANTED | theirs)
    listener.stream.end()
    await shared_listening.close()


async def test_a_leader_whose_lease_another_process_took_begins_anew() -> None:
    listener = Listener()
    assert await listener.stream.lead()
    await shared_notes.end_lease(f"listening:{NAME}", shared_notes.PROCESS)
    assert await shared_notes.take_lease(f"listening:{NAME}", ELSEWHERE, 60)
    await until(lambda: bool(listener.begun_anew))
    assert not await listener.stream.lead()
    listener.stream.end()
    await shared_listening.close()


async def test_who_leaves_takes_nothing_from_who_comes_right_after(told: list[str]) -> None:
    listener = Listener()
    assert await listener.stream.lead()
    listener.stream.end()
    after = Listener()
    assert await after.stream.lead()
    await shared_listening.close()
    assert await shared_notes.lease_holder(f"listening:{NAME}") == shared_notes.PROCESS
    assert after.stream.leading
    after.stream.end()
    await shared_listening.close()
    # The same of one that follows: what it wants is still written down.
    await _leads_elsewhere()
    want = f"listening-want:{NAME}:{shared_notes.PROCESS}"
    following = Listener()
    assert not await following.stream.lead()
    first = asyncio.ensure_future(_follows(following.stream))
    await until(lambda: following.shared.honoured == WANTED)
    first.cancel()
    following.stream.end()
    again = Listener()
    assert not await again.stream.lead()
    second = asyncio.ensure_future(_follows(again.stream))
    await until(lambda: again.shared.honoured == WANTED)
    second.cancel()
    assert await shared_notes.get(want) is not None
    again.stream.end()
    await shared_listening.close()
    assert await shared_notes.get(want) is None


async def test_who_leaves_while_it_takes_the_lease_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = shared_notes._take_lease
    begun, goes_on, written = threading.Event(), threading.Event(), threading.Event()

    def slow(*given: Any) -> bool:
        begun.set()
        assert goes_on.wait(10)
        taken = real(*given)
        written.set()
        return taken

    monkeypatch.setattr(shared_notes, "_take_lease", slow)
    listener = Listener()
    leading = asyncio.ensure_future(listener.stream.lead())
    assert await asyncio.to_thread(begun.wait, 10)
    leading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leading
    listener.stream.end()
    # The thread goes on, whoever waits for it.
    goes_on.set()
    assert await asyncio.to_thread(written.wait, 10)
    await shared_listening.close()
    assert not await shared_notes.lease_holder(f"listening:{NAME}")


async def test_a_follower_that_was_held_up_says_again_what_it_wants(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await _leads_elsewhere()
    listener = Listener()
    assert not await listener.stream.lead()
    following = asyncio.ensure_future(listener.stream.follow())
    await until(lambda: listener.shared.honoured == WANTED)
    assert len(told) == 1
    # Its leader has forgotten it by then.
    monkeypatch.setattr(shared_listening, "LEASE_SECONDS", -1.0)
    await until(lambda: len(told) > 1)
    assert set(told) == {f"want {NAME} {shared_notes.PROCESS}"}
    following.cancel()
    listener.stream.end()
    await shared_listening.close()


async def test_without_the_database_each_process_listens_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: Any) -> Any:
        raise OperationalError("away")

    monkeypatch.setattr(shared_notes, "take_lease", away)
    listener = Listener()
    assert await listener.stream.lead()
    listener.shared.settle(WANTED, WANTED)
    listener.shared.deliver(UPDATED, b'{"uri":"file:///notes/1"}')
    assert listener.heard == [UPDATED]
    listener.stream.end()
    await shared_listening.close()
