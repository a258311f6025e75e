"""Calls whose process died while its client was asked something (protocol.md 2.4.2, 2.4.4).

The death is played: the call is cut off in this process as it stands, and its lease has run out.
``tests/journeys/test_questions_over_nodes.py`` kills processes.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User

from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.task_tools import TASK_TOOLS
from tests.virtualmcp.answering_client import REPLIES, Answering, form
from tests.virtualmcp.stream_reader import StreamReader, get_stream, post_stream, until
from upstreams import token_vault
from upstreams.models import Upstream
from virtualmcp import rate_limits
from virtualmcp.models import SharedNote
from virtualmcp.transport import call_notes, draining, event_log, held_calls, resumption
from virtualmcp.transport.calls_in_flight import calls_in_flight


@dataclass
class Asked:
    """A stateful client whose call asks it something."""

    client: Answering
    stream: StreamReader
    upstream: FakeUpstream

    def dies(self) -> None:
        """The call's process ends, and its lease soon after."""
        loop = event_log.loop()
        assert loop is not None
        for call in list(calls_in_flight._calls.values()):
            loop.call_soon_threadsafe(call._task.cancel)  # type: ignore[attr-defined]
        assert until(lambda: not calls_in_flight)
        self.stream.close()
        event_log._logs.clear()
        leases().delete()

    def comes_back(self) -> StreamReader:
        return get_stream(self.client.client, last_event_id=self.stream.events[0][0])

    def answer(self) -> int:
        return self.client.respond(self.stream.messages[0]).status_code


def leases() -> Any:
    return SharedNote.objects.filter(key__startswith="stream-holder:")


def notes() -> Any:
    return SharedNote.objects.filter(key__startswith="stream-call:")


@pytest.fixture(params=["modern"])
def asked(
    request: pytest.FixtureRequest,
    ada: User,
    make_virtual_mcp: Callable[..., Any],
    make_token: Callable[..., str],
    wire: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Asked]:
    monkeypatch.setattr(resumption, "OWNER_SECONDS", 0.2)
    event_log._logs.clear()
    era, _, way = request.param.partition(" ")
    fake = FakeUpstream(era=era, asks_apart=way == "apart", resumable=way in ("alone", "quiet"))
    with fake.serve() as upstream:
        upstream.tools += TASK_TOOLS
        make_virtual_mcp("board", {"fake": upstream.url})
        if way == "alone":
            Upstream.objects.update(session_scope="call")
        client = Answering(wire("board", make_token(ada, "board")), "legacy")
        client.client.initialize(capabilities=client.capabilities)
        params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
        if way == "task":
            arguments = {"looks": 1, "question": "Name?", "insists": True}
            params = {"name": "batch", "arguments": arguments}
        if way == "quiet":
            arguments = {"steps": 1000, "pause": 0.05}
            params = {"name": "slow", "arguments": arguments, "_meta": {"progressToken": 1}}
        with post_stream(client.client, "tools/call", params, id="cut") as stream:
            assert stream.wait(lambda reader: bool(reader.events))
            assert until(lambda: notes().exists())
            yield Asked(client, stream, upstream)


def result_of(stream: StreamReader) -> Any:
    assert stream.wait(lambda reader: reader.ended), stream.messages
    last = stream.messages[-1]
    assert "result" in last, last
    return json.loads(last["result"]["content"][0]["text"])


def test_a_call_waits_where_its_person_has_too_many_and_goes_on_then(
    asked: Asked, ada: User, settings: Any
) -> None:
    asked.dies()
    settings.GATEWAY_CALLS_IN_FLIGHT_PER_USER = 1
    assert rate_limits.enter(ada.pk)
    with asked.comes_back() as back:
        assert back.wait(lambda reader: reader.comments >= 3)
        # It is anybody's still.
        assert notes().exists() and not leases().exists()
        rate_limits.leave(ada.pk)
        assert asked.answer() == 202
        assert result_of(back) == [REPLIES["elicitation/create"]]
    assert until(lambda: not rate_limits.in_flight(ada.pk))
    assert not notes().exists() and not leases().exists()


def test_what_no_version_of_the_gateway_can_read_ends_honestly(asked: Asked, ada: User) -> None:
    asked.dies()
    note = notes().get()
    note.value = token_vault.seal(msgspec.msgpack.encode({"not": "it"}), f"note:{note.key}")
    note.save()
    with asked.comes_back() as back:
        assert back.wait(lambda reader: reader.ended)
    assert "look before you repeat" in back.messages[-1]["error"]["message"]
    assert not notes().exists() and not leases().exists()
    assert not rate_limits.in_flight(ada.pk) and not held_calls._here


def test_what_is_no_request_any_more_ends_honestly(
    asked: Asked, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.dies()
    monkeypatch.setattr("virtualmcp.transport.call_takeover._request", lambda *_: b"{}")
    with asked.comes_back() as back:
        assert back.wait(lambda reader: reader.ended)
    assert "look before you repeat" in back.messages[-1]["error"]["message"]
    assert not notes().exists() and not leases().exists()
    assert not rate_limits.in_flight(ada.pk) and not held_calls._here


@pytest.mark.parametrize(
    "asked", ["modern", "legacy", "legacy apart", "modern task", "legacy task"], indirect=True
)
@pytest.mark.parametrize("answered", [False, True])
def test_a_process_that_was_taken_for_dead_leaves_the_call_to_who_has_it(
    asked: Asked, answered: bool
) -> None:
    posted = len(asked.upstream.requests)
    assert leases().update(value="another process") == 1
    if answered:
        assert asked.answer() == 202
    # Its client is not told anything; it comes back, and hears of the call where it is.
    assert asked.stream.wait(lambda reader: reader.ended)
    assert len(asked.stream.messages) == 1
    assert until(lambda: not calls_in_flight)
    assert not event_log._logs and not held_calls._here
    assert notes().exists() and leases().get().value == "another process"
    # Nor is the upstream: neither an answer nor that the call is cancelled.
    assert len(asked.upstream.requests) == posted
    assert not asked.upstream.calls("notifications/cancelled")
    assert not asked.upstream.calls("tasks/cancel")


@pytest.mark.parametrize("asked", ["legacy quiet"], indirect=True)
def test_a_process_that_was_taken_for_dead_leaves_a_call_that_asked_nothing_too(
    asked: Asked,
) -> None:
    assert leases().update(value="another process") == 1
    assert asked.stream.wait(lambda reader: reader.ended)
    assert all("method" in one for one in asked.stream.messages)
    assert until(lambda: not calls_in_flight)
    assert not event_log._logs and not held_calls._here
    assert notes().exists() and leases().get().value == "another process"
    assert not asked.upstream.calls("notifications/cancelled")


@pytest.mark.parametrize("asked", ["legacy"], indirect=True)
def test_nobody_answers_a_call_any_more_that_was_given_up(asked: Asked) -> None:
    note = call_notes.read(
        token_vault.open_sealed(notes().get().value, f"note:{notes().get().key}")
    )
    name = notes().get().key.partition(":")[2]
    open_now = [asyncio.run(call_notes.open_questions(name, note)) for _ in range(2)]
    assert [len(found) for found in open_now] == [1, 0]
    # What the holder hears now it may not act on, although its lease is its own.
    assert asked.answer() == 202
    assert asked.stream.wait(lambda reader: reader.ended)
    assert len(asked.stream.messages) == 1


@pytest.mark.parametrize("asked", ["legacy alone"], indirect=True)
def test_a_session_for_one_call_outlives_the_process_that_handed_it_over_and_ends_with_the_call(
    asked: Asked,
) -> None:
    loop = event_log.loop()
    assert loop is not None
    try:
        loop.call_soon_threadsafe(draining.begin)
        assert asked.stream.wait(lambda reader: reader.ended)
        assert until(lambda: not calls_in_flight and not leases().exists())
    finally:
        draining.reset()
    assert asked.stream.retries and notes().exists()
    session = asked.upstream.last_headers("tools/call")["mcp-session-id"]
    assert session not in asked.upstream.deleted
    with asked.comes_back() as back:
        assert asked.answer() == 202
        assert result_of(back) == [REPLIES["elicitation/create"]]
    assert asked.upstream.wait(lambda up: up.deleted.count(session) == 1)
    assert not asked.upstream.calls("notifications/cancelled")
    assert until(lambda: not notes().exists() and not leases().exists())
