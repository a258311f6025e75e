"""What becomes of the calls that a gateway process holds when it dies (2.3.7, 2.4.2 to 2.4.4)."""

import contextlib
import threading
from typing import Any

import pytest

from tests.fakes.resumable_streams import StreamLogs
from tests.journeys.two_nodes import Nodes, answers_to, calls_left, given, last_id, slow
from tests.running_gateway import RunningGateway, another_node
from tests.virtualmcp.answering_client import REPLIES, form
from tests.virtualmcp.stream_reader import get_stream, post_stream, until

# Leases of dead processes have to run out.
pytestmark = pytest.mark.timeout(300)

# When the upstream's side of the connection is lost, and how long its tool runs after the answer.
LOST_ANSWERS = [("before", 0.0), ("after", 1.0), ("after", 12.0)]


def kill(node: RunningGateway) -> None:
    assert node.process is not None
    node.process.kill()
    node.process.wait(10)


def test_an_answer_that_was_under_way_when_its_process_died_arrives_and_counts_once(
    nodes: Nodes,
) -> None:
    """Of a POST that was cut off nobody knows whether the upstream acted on it. The process that
    takes the call over has the stream again first, on which the result comes if it did. If nothing
    came after a moment it sends the same answer to the same question once more: an upstream that
    had it waits for no answer with this id any more and drops it (JSON-RPC 2.0, 5), so that the
    tool goes on once whichever of them it heard."""
    up, first = nodes.upstreams["resumable"], nodes.http(nodes.first.listening)
    began, posted = len(up.events), len(answers_to(up))
    texts = {f"{when} {pause}?": (when, pause) for when, pause in LOST_ANSWERS}
    up.vanishing = {text: when for text, (when, _) in texts.items()}
    ended: dict[tuple[str, str], Any] = {}
    with another_node(nodes.first) as doomed, contextlib.ExitStack() as stack:
        threads, streams = [], {}
        for text, (_, pause) in texts.items():
            arguments = {"rounds": [[form(text)]], "pause": pause}
            params = {"name": "interview", "arguments": arguments}
            stateless = nodes.client("modern", "resumable", doomed.listening)
            retry = stateless.retry_of(params, stateless.send(params)["result"])

            def send(client: Any = stateless, sent: Any = retry, key: str = text) -> None:
                ended["modern", key] = client.send(sent, first)

            threads.append(threading.Thread(target=send))
            stateful = nodes.client("legacy", "resumable", doomed.listening)
            stream = stack.enter_context(
                post_stream(stateful.client, "tools/call", params, id="cut")
            )
            streams[text] = (stateful, stream)
            assert stream.wait(lambda reader: bool(reader.messages))
        for thread in threads:
            thread.start()
        for client, stream in streams.values():
            client.elsewhere = [first]
            assert client.respond(stream.messages[0]).status_code == 202
        assert up.wait(lambda u: u.events[began:].count("vanished") == 2 * len(texts))
        kill(doomed)
        back = {}
        for text, (client, stream) in streams.items():
            assert stream.wait(lambda reader: reader.ended)
            client.client.http = first
            last = stream.events[-1][0]
            resumed = get_stream(client.client, last_event_id=last)
            back[text] = stack.enter_context(resumed)
        for text, resumed in back.items():
            assert resumed.wait(lambda reader: reader.ended, 60), (text, resumed.messages)
            ended["legacy", text] = resumed.messages[-1]
        for thread in threads:
            thread.join(60)

    assert {key: given(message) for key, message in ended.items()} == {
        (era, text): [REPLIES["elicitation/create"]]
        for era in ("modern", "legacy")
        for text in texts
    }
    events = up.events[began:]
    assert events.count("started:interview") == events.count("finished:interview") == len(ended)
    answers = answers_to(up)[posted:]
    # One of each era was acted on and its result came soon: no other answer was needed, unless a
    # busy machine made it late.
    assert 2 * len(ended) - 2 <= len(answers) <= 2 * len(ended)
    assert len({str(one) for one in answers}) == len(ended)


def test_a_call_that_asked_nothing_goes_on_elsewhere_when_its_process_dies(nodes: Nodes) -> None:
    """The upstream says again what followed the first event; the client hears each message once,
    whether it was connected to the end, had left before, or was not told anything yet."""
    up, first = nodes.upstreams["resumable"], nodes.http(nodes.first.listening)
    began, left = len(up.events), calls_left(nodes)
    told = len(up.calls("notifications/cancelled"))
    steps, up.primes = 30, True
    with another_node(nodes.first) as doomed, contextlib.ExitStack() as stack:
        base = doomed.listening
        calls = {
            "connected": slow(nodes, base, steps, 0.4, progressToken=1),
            "away": slow(nodes, base, steps, 0.4, progressToken=1),
            "silent": slow(nodes, base, 1, 20),
        }
        streams = {key: stack.enter_context(stream) for key, (_, stream) in calls.items()}
        assert streams["away"].wait(lambda reader: len(reader.events) > 1)
        streams["away"].close()
        # Nothing is said on it for five seconds; then it can be come back to.
        assert streams["silent"].wait(lambda reader: bool(reader.primed))
        assert until(lambda: calls_left(nodes) == left + len(calls))
        kill(doomed)
        for stream in streams.values():
            assert stream.wait(lambda reader: reader.ended)
        back = {}
        for key, (client, stream) in calls.items():
            client.http = first
            resumed = get_stream(client, last_event_id=last_id(stream))
            back[key] = stack.enter_context(resumed)
        for key, resumed in back.items():
            assert resumed.wait(lambda reader: reader.ended, 60), (key, resumed.messages)
    for key in ("connected", "away"):
        said = streams[key].messages + back[key].messages[:-1]
        assert [one["params"]["progress"] for one in said] == list(range(1, steps + 1)), key
    assert back["silent"].messages[:-1] == streams["silent"].messages == []
    for key, resumed in back.items():
        assert resumed.messages[-1]["id"] == "cut"
        assert resumed.messages[-1]["result"]["content"][0]["text"] == "done", key
    events = up.events[began:]
    assert events.count("started:slow") == events.count("finished:slow") == len(calls)
    assert len(up.calls("notifications/cancelled")) == told
    assert until(lambda: calls_left(nodes) == left)


def test_a_call_whose_stream_the_upstream_no_longer_has_ends_with_what_is_known(
    nodes: Nodes,
) -> None:
    up, first = nodes.upstreams["resumable"], nodes.http(nodes.first.listening)
    began, left = up.events.count("started:slow"), calls_left(nodes)
    told = len(up.calls("notifications/cancelled"))
    with another_node(nodes.first) as doomed:
        client, stream = slow(nodes, doomed.listening, 100, 0.3, progressToken=1)
        with stream:
            assert until(lambda: calls_left(nodes) == left + 1)
            kill(doomed)
            assert stream.wait(lambda reader: reader.ended)
    up.streams = StreamLogs()
    client.http = first
    with get_stream(client, last_event_id=last_id(stream)) as resumed:
        assert resumed.wait(lambda reader: reader.ended, 40)
    (last,) = resumed.messages
    assert "look before you repeat" in last["error"]["message"]
    assert up.events.count("started:slow") == began + 1
    # Nobody could collect its result.
    assert up.wait(lambda u: len(u.calls("notifications/cancelled")) == told + 1)
    assert until(lambda: calls_left(nodes) == left)
