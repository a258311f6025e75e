"""What becomes of the calls that a gateway process holds when it is told to stop (2.4.3, 2.4.4)."""

import contextlib
import sqlite3
import threading
from typing import Any

import httpx
import pytest

from tests.journeys.two_nodes import (
    Nodes,
    answers_to,
    calls_left,
    given,
    last_id,
    questions_answered,
    slow,
)
from tests.running_gateway import RunningGateway, another_node
from tests.virtualmcp.answering_client import REPLIES, Answering, form
from tests.virtualmcp.stream_reader import get_stream, post_stream, until

pytestmark = pytest.mark.timeout(300)

ASKS: dict[str, Any] = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
WORKS_ON = {"name": "interview", "arguments": {"rounds": [[form("Name?")]], "pause": 8}}
ANSWER = [REPLIES["elicitation/create"]]


def stop(node: RunningGateway) -> None:
    """As an operator does (SIGTERM)."""
    assert node.process is not None
    node.process.terminate()


def leases(nodes: Nodes) -> int:
    """Return how many calls are some process's."""
    with contextlib.closing(sqlite3.connect(nodes.first.folder / "gateway.sqlite3")) as database:
        query = "SELECT COUNT(*) FROM virtualmcp_sharednote WHERE key LIKE '%-holder:%'"
        return int(database.execute(query).fetchone()[0])


def stream_of(client: Answering, params: dict[str, Any]) -> Any:
    return post_stream(client.client, "tools/call", params, id="cut")


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_a_process_that_is_told_to_stop_hands_over_what_another_one_can_go_on_with(
    nodes: Nodes, server: str
) -> None:
    """It ends at once, its upstreams hear nothing of it, and its clients' next requests find what
    they came for."""
    ups, first = nodes.upstreams, nodes.http(nodes.first.listening)
    up = ups["resumable"]
    began = {key: len(one.events) for key, one in ups.items()}
    told = {key: len(one.calls("notifications/cancelled")) for key, one in ups.items()}
    posted, ended = len(answers_to(up)), list(up.deleted)
    left, held = calls_left(nodes), leases(nodes)
    late: list[Any] = []
    with contextlib.ExitStack() as stack:
        # It would wait a minute for what it can't hand over.
        leaving = stack.enter_context(another_node(nodes.first, server=server, drain=60))
        base = leaving.listening
        running, steps = slow(nodes, base, 40, 0.3, progressToken=1)
        stack.enter_context(steps)
        asked = {key: nodes.client("legacy", key, base) for key in ("resumable", "modern")}
        streams = {key: stack.enter_context(stream_of(one, ASKS)) for key, one in asked.items()}
        for stream in streams.values():
            assert stream.wait(lambda reader: bool(reader.messages))
        parked, waiting = (nodes.client("modern", "resumable", base) for _ in range(2))
        retry = parked.retry_of(ASKS, parked.send(ASKS)["result"])
        sent = waiting.retry_of(WORKS_ON, waiting.send(WORKS_ON)["result"])
        thread = threading.Thread(target=lambda: late.append(waiting.send(sent, first)))
        thread.start()
        assert up.wait(lambda u: len(answers_to(u)) > posted)
        assert until(lambda: calls_left(nodes) == left + 3)

        stop(leaving)
        for stream in (steps, *streams.values()):
            assert stream.wait(lambda reader: reader.ended)
            assert stream.retries
        assert leaving.process is not None
        leaving.process.wait(30)
        # Another process need not wait for them.
        assert leases(nodes) <= held + 1
        for key, client in asked.items():
            client.client.http, client.elsewhere = first, [first]
            assert client.respond(streams[key].messages[0]).status_code == 202
        running.http = first
        assert given(parked.send(retry, first)) == ANSWER
        back = {
            key: stack.enter_context(get_stream(client.client, last_event_id=last_id(streams[key])))
            for key, client in asked.items()
        }
        with get_stream(running, last_event_id=last_id(steps)) as resumed:
            assert resumed.wait(lambda reader: reader.ended, 60), resumed.messages
        said = steps.messages + resumed.messages[:-1]
        assert [one["params"]["progress"] for one in said] == list(range(1, 41))
        assert "result" in resumed.messages[-1]
        for key, stream in back.items():
            assert stream.wait(lambda reader: reader.ended), (key, stream.messages)
            assert given(stream.messages[-1]) == ANSWER, key
        thread.join(60)
    assert given(late[0]) == ANSWER
    events = up.events[began["resumable"] :]
    assert events.count("started:interview") == events.count("finished:interview") == 3
    assert events.count("started:slow") == events.count("finished:slow") == 1
    assert ups["modern"].events[began["modern"] :].count("finished:interview") == 1
    for key, one in ups.items():
        assert len(one.calls("notifications/cancelled")) == told[key], key
    assert up.deleted == ended
    assert questions_answered(up, posted) == 3
    assert until(lambda: calls_left(nodes) == left and leases(nodes) <= held)


def test_what_cannot_be_handed_over_is_waited_for_and_then_ends_honestly(nodes: Nodes) -> None:
    up, first = nodes.upstreams["legacy"], nodes.http(nodes.first.listening)
    began, posted = len(up.events), len(answers_to(up))
    told = len(up.calls("notifications/cancelled"))
    with another_node(nodes.first, drain=20) as leaving, contextlib.ExitStack() as stack:
        base = leaving.listening
        answered, forgotten = (nodes.client("modern", "legacy", base) for _ in range(2))
        retries = [one.retry_of(ASKS, one.send(ASKS)["result"]) for one in (answered, forgotten)]
        stateful = nodes.client("legacy", "legacy", base)
        asked = stack.enter_context(stream_of(stateful, ASKS))
        assert asked.wait(lambda reader: bool(reader.messages))
        stop(leaving)
        # It takes no connection any more, and still hears of answers by the other nodes.
        assert until(lambda: not listens(nodes, base))
        assert given(answered.send(retries[0], first)) == ANSWER
        stateful.client.http, stateful.elsewhere = first, [first]
        assert stateful.respond(asked.messages[0]).status_code == 202
        assert asked.wait(lambda reader: reader.ended)
        assert given(asked.messages[-1]) == ANSWER
        assert leaving.process is not None and leaving.process.poll() is None
        leaving.process.wait(60)
    assert "error" in forgotten.send(retries[1], first)
    events = up.events[began:]
    assert events.count("started:interview") == 3
    assert events.count("finished:interview") == len(answers_to(up)) - posted == 2
    assert len(up.calls("notifications/cancelled")) == told + 1


def listens(nodes: Nodes, base: str) -> bool:
    try:
        nodes.http(base).get("/healthz")
    except httpx.TransportError:
        return False
    return True


def test_a_retry_that_waits_in_a_process_until_it_stops_finds_its_call_elsewhere(
    nodes: Nodes,
) -> None:
    """Nobody else waits for it, so the call stays for as long as the process may; that its client
    is cut off then does not cancel it."""
    up, first = nodes.upstreams["resumable"], nodes.http(nodes.first.listening)
    began, posted = len(up.events), len(answers_to(up))
    told = len(up.calls("notifications/cancelled"))
    cut: list[Any] = []
    with another_node(nodes.first, drain=4) as leaving:
        client = nodes.client("modern", "resumable", leaving.listening)
        params = {**ASKS, "arguments": {**ASKS["arguments"], "pause": 20}}
        retry = client.retry_of(params, client.send(params)["result"])

        def wait_here() -> None:
            with contextlib.suppress(httpx.TransportError, ValueError):
                cut.append(client.send(retry, nodes.http(leaving.listening)))

        thread = threading.Thread(target=wait_here)
        thread.start()
        assert up.wait(lambda u: len(answers_to(u)) > posted)
        stop(leaving)
        assert leaving.process is not None
        leaving.process.wait(60)
        thread.join(60)
        assert given(client.send(retry, first)) == ANSWER
    assert not [one for one in cut if "result" in one]
    events = up.events[began:]
    assert events.count("started:interview") == events.count("finished:interview") == 1
    assert questions_answered(up, posted) == 1
    assert len(up.calls("notifications/cancelled")) == told
