"""Two gateway processes behind a load balancer without stickiness, and the death of one (2.4).

The invariant of the chaos below: no tool is executed twice, and none is executed with its answer
lost without a word.
"""

import contextlib
import json
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.two_nodes import (
    UPSTREAMS,
    Nodes,
    answers_to,
    calls_left,
    given,
    questions_answered,
)
from tests.running_gateway import RunningGateway, another_node
from tests.virtualmcp.answering_client import REPLIES, ROOTS, SAMPLE, Answering, form
from tests.virtualmcp.stream_reader import (
    StreamReader,
    get_stream,
    listen,
    modern_stream,
    post_stream,
    until,
)
from tests.virtualmcp.wire_client import WireClient, messages, modern_meta

# The first test starts two processes, some another one, and leases of dead ones have to run out.
pytestmark = pytest.mark.timeout(300)

ROUNDS = int(os.environ.get("RACE_ROUNDS", "3"))
CELLS = [(client, up) for client in ("legacy", "modern") for up in ("legacy", "modern")]


@pytest.mark.parametrize(("era", "upstream"), CELLS)
def test_questions_and_cancellation_work_whichever_node_each_request_meets(
    nodes: Nodes, era: str, upstream: str
) -> None:
    client, up = nodes.client(era, upstream, nodes.proxy), nodes.upstreams[upstream]
    before = len(nodes.balancer.served)
    began = up.events.count("started:interview")
    answers = given(client.call("interview", {"rounds": [[form("One?"), SAMPLE], [ROOTS]]}))
    assert len(answers) == 3
    assert up.events.count("started:interview") == began + 1
    assert len(set(nodes.balancer.served[before:])) == 2
    if era == "legacy":
        cancelled = up.events.count("cancelled:hang")
        hanging = {"name": "hang", "arguments": {}}
        hung = threading.Thread(target=lambda: _drain(client, hanging))
        hung.start()
        assert up.wait(lambda u: u.events.count("started:hang") > cancelled)
        # It meets a node that does not run the call at least every second time.
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        assert client.post({**note, "params": {"requestId": "h"}}).status_code == 202
        assert up.wait(lambda u: u.events.count("cancelled:hang") > cancelled)
        hung.join(10)
        assert not hung.is_alive()


def _drain(client: Answering, params: dict[str, Any]) -> None:
    with client.stream(params, id="h") as arriving:
        list(arriving)


def test_a_log_level_holds_for_the_very_next_call_at_the_other_process(nodes: Nodes) -> None:
    bases = (nodes.first.listening, nodes.second.listening)
    client = nodes.client("legacy", "modern", bases[0]).client
    warning = {"name": "log", "arguments": {"level": "warning"}}
    for base in bases:
        client.http = nodes.http(base)
        assert len(messages(client.legacy("tools/call", warning))) == 1
    for turn, (level, heard) in enumerate([("info", 2), ("error", 1), ("debug", 2)]):
        client.http = nodes.http(bases[turn % 2])
        client.legacy("logging/setLevel", {"level": level})
        client.http = nodes.http(bases[(turn + 1) % 2])
        assert len(messages(client.legacy("tools/call", warning))) == heard


NOTE = "file:///notes/1"
UPDATED, TOOLS = "notifications/resources/updated", "notifications/tools/list_changed"


def _slow(client: WireClient, steps: int, id: str) -> StreamReader:
    params = {"name": "slow", "arguments": {"steps": steps, "pause": 0.3}}
    return post_stream(client, "tools/call", {**params, "_meta": {"progressToken": 1}}, id=id)


@pytest.mark.parametrize("upstream", ["legacy", "modern"])
def test_a_call_that_was_cut_off_is_resumed_on_the_other_process(
    nodes: Nodes, upstream: str
) -> None:
    client = nodes.client("legacy", upstream, nodes.first.listening).client
    before = nodes.upstreams[upstream].events.count("started:slow")
    with _slow(client, 12, "cut") as stream:
        assert stream.wait(lambda reader: bool(reader.events))
    client.http = nodes.http(nodes.second.listening)
    with get_stream(client, last_event_id=stream.events[-1][0]) as resumed:
        assert resumed.wait(lambda reader: reader.ended, 30)
    steps = [m["params"]["progress"] for m in stream.messages + resumed.messages[:-1]]
    assert steps == list(range(1, 13))
    assert resumed.messages[-1]["id"] == "cut" and "result" in resumed.messages[-1]
    assert nodes.upstreams[upstream].events.count("started:slow") == before + 1


def test_a_call_that_was_cut_off_from_daphne_is_resumed_there_and_elsewhere(nodes: Nodes) -> None:
    with another_node(nodes.first, server="daphne") as third:
        for base in (third.listening, nodes.first.listening):
            client = nodes.client("legacy", "legacy", third.listening).client
            with _slow(client, 8, "cut") as stream:
                assert stream.wait(lambda reader: bool(reader.events))
            client.http = nodes.http(base)
            with get_stream(client, last_event_id=stream.events[-1][0]) as resumed:
                assert resumed.wait(lambda reader: reader.ended, 40)
            steps = [m["params"]["progress"] for m in stream.messages + resumed.messages[:-1]]
            assert steps == list(range(1, 9)), base
            assert resumed.messages[-1]["id"] == "cut" and "result" in resumed.messages[-1]


def test_a_session_outlives_its_process_and_ends_everywhere_once_it_is_deleted(
    nodes: Nodes,
) -> None:
    with another_node(nodes.first) as third:
        client = nodes.client("legacy", "legacy", third.listening).client
        assert third.process is not None
        third.process.kill()
        third.process.wait(10)
    first, second = nodes.http(nodes.first.listening), nodes.http(nodes.second.listening)
    for client.http in (first, second):
        assert "result" in messages(client.legacy("tools/list"))[0]
    client.http = first
    with get_stream(client) as open_stream:
        assert open_stream.wait(lambda reader: bool(reader.primed))
        headers = client.headers(**client.session_headers())
        assert second.delete(client.path, headers=headers).status_code in (200, 204)
        # The process that had no part in it hears of it within a second.
        assert open_stream.wait(lambda reader: reader.ended, 20)
    for client.http in (first, second):
        assert client.legacy("tools/list").status_code == 404


def test_a_session_expires_on_every_process_and_is_its_persons_alone_on_each(nodes: Nodes) -> None:
    client = nodes.client("legacy", "legacy", nodes.first.listening).client
    bases = [nodes.http(node.listening) for node in (nodes.first, nodes.second)]
    # As ``initialize`` opens one, but for a few seconds; and as somebody else's.
    made = nodes.first.manage("shell", "-c", _SESSIONS, given=client.token).split()[-2:]
    client.session, theirs = made
    for client.http in bases:
        assert "result" in messages(client.legacy("tools/list"))[0]
    for client.http in bases:
        # Also where it is remembered.
        assert until(lambda: client.legacy("tools/list").status_code == 404, 30)
    client.session = theirs
    for client.http in bases:
        assert client.legacy("tools/list").status_code == 404


_SESSIONS = """
from dataclasses import replace
from django.conf import settings
from oauthserver import bearer_tokens
from virtualmcp.eras import era_in
holder = bearer_tokens._load(input().encode(), None)
opened = lambda who: era_in.open_session("legacy", who, "2025-11-25", b"{}", b"{}")[0]
theirs, era_in.LIFETIME = opened(replace(holder, user_id=holder.user_id + 1)), 10
print(opened(holder), theirs)
"""


@pytest.mark.parametrize("upstream", ["legacy", "modern"])
def test_clients_of_both_eras_on_both_processes_hear_of_a_change(
    nodes: Nodes, upstream: str
) -> None:
    up = nodes.upstreams[upstream]
    bases = (nodes.first.listening, nodes.second.listening)
    stateful = nodes.client("legacy", upstream, nodes.proxy).client
    stateless = [nodes.client("modern", upstream, base).client for base in bases]
    for one in stateless:
        one.modern("tools/list")
    wanted = {"toolsListChanged": True, "resourceSubscriptions": [NOTE]}
    with contextlib.ExitStack() as open_streams:
        readers = [open_streams.enter_context(listen(one, wanted)) for one in stateless]
        # Subscribed on one process, listened to on another or the same.
        stateful.http = nodes.http(bases[0])
        own = open_streams.enter_context(get_stream(stateful))
        stateful.http = nodes.http(bases[1])
        subscribed = stateful.legacy("resources/subscribe", {"uri": NOTE})
        assert messages(subscribed)[0]["result"] == {}
        for reader in readers:
            assert reader.wait(lambda r: bool(r.events))
            assert reader.messages[0]["params"]["notifications"] == wanted
        # The other process hears of the subscription within a second, and asks the upstream.
        deadline = time.monotonic() + 20
        while not own.methods.count(UPDATED) and time.monotonic() < deadline:
            up.announce(UPDATED, {"uri": NOTE})
            own.wait(lambda r: UPDATED in r.methods, 0.5)
        up.tools.append({"name": f"new-{upstream}", "inputSchema": {"type": "object"}})
        up.announce(TOOLS)
        for reader in [*readers, own]:
            assert reader.heard(TOOLS) and reader.heard(UPDATED)


BOARD = "ui://board/view.html"


def _listening(stack: contextlib.ExitStack, client: WireClient, wanted: Any) -> StreamReader:
    """Listen; on a busy machine the upstream's word may come too late to be acknowledged. Then it
    is known to who listens next, while the first one stays: nothing is asked for anew."""
    with contextlib.ExitStack() as too_early:
        for _ in range(5):
            reader = listen(client, wanted)
            with contextlib.ExitStack() as opened:
                opened.enter_context(reader)
                assert reader.wait(lambda r: bool(r.events), 20)
                if reader.messages[0]["params"]["notifications"] == wanted:
                    stack.push(opened.pop_all())
                    return reader
                too_early.push(opened.pop_all())
    raise AssertionError(reader.messages)


def test_one_process_listens_to_a_stateless_upstream_for_all_until_it_dies(nodes: Nodes) -> None:
    up = nodes.upstreams["modern"]
    assert up.wait(lambda u: not u.listening, 20)
    with contextlib.ExitStack() as stack:
        third = stack.enter_context(another_node(nodes.first))
        leading = nodes.client("modern", "modern", third.listening).client
        following = nodes.client("modern", "modern", nodes.first.listening).client
        for one in (leading, following):
            one.modern("tools/list")
        lists = {"toolsListChanged": True}
        first = _listening(stack, leading, {**lists, "resourceSubscriptions": [NOTE]})
        second = _listening(stack, following, {**lists, "resourceSubscriptions": [BOARD]})
        # What the follower wants more is asked for on a new stream, before the old one ends.
        assert up.wait(lambda u: u.listening == 1 and _asked_of(u) == [NOTE, BOARD], 20)
        up.announce(UPDATED, {"uri": NOTE})
        up.announce(UPDATED, {"uri": BOARD})
        up.tools.append({"name": "seen-by-both", "inputSchema": {"type": "object"}})
        up.announce(TOOLS)
        for reader in (first, second):
            assert reader.wait(lambda r: {TOOLS, UPDATED} <= set(r.methods), 20)
        assert _updated(first) == [NOTE] and _updated(second) == [BOARD]

        listens = len(up.calls("subscriptions/listen"))
        assert third.process is not None
        third.process.kill()
        third.process.wait(10)
        # What may have been missed meanwhile is made up for.
        assert second.wait(lambda r: len(_updated(r)) == 2, 40)
        assert up.wait(lambda u: u.listening == 1, 20)
        assert len(up.calls("subscriptions/listen")) == listens + 1
        up.tools.append({"name": "seen-by-the-survivor", "inputSchema": {"type": "object"}})
        up.announce(TOOLS)
        assert second.wait(lambda r: r.methods.count(TOOLS) >= 2, 20)


def _asked_of(upstream: Any) -> list[str]:
    """Return the resources that the newest stream from the gateway asks about."""
    asked = upstream.calls("subscriptions/listen")[-1]["params"]["notifications"]
    return sorted(asked.get("resourceSubscriptions", []), key=[NOTE, BOARD].index)


def _updated(reader: StreamReader) -> list[str]:
    return [one["params"]["uri"] for one in reader.messages if one.get("method") == UPDATED]


def test_a_stream_whose_process_was_killed_ends_with_an_error_and_is_not_made_again(
    nodes: Nodes,
) -> None:
    """Every cell, over a call that has asked nothing: a stateless client sees its connection end,
    a stateful one comes back and hears what is known."""
    ups = {key: nodes.upstreams[key] for key in ("legacy", "modern")}
    began = {key: up.events.count("started:slow") for key, up in ups.items()}
    told = {key: len(up.calls("notifications/cancelled")) for key, up in ups.items()}
    with another_node(nodes.first) as third, contextlib.ExitStack() as stack:
        clients = {cell: nodes.client(*cell, third.listening).client for cell in CELLS}
        streams = {
            (era, key): stack.enter_context(
                _slow(client, 100, "lost") if era == "legacy" else _slow_stateless(client)
            )
            for (era, key), client in clients.items()
        }
        notices = stack.enter_context(get_stream(clients["legacy", "legacy"]))
        for stream in streams.values():
            assert stream.wait(lambda reader: bool(reader.events))
        assert notices.wait(lambda reader: bool(reader.primed))
        assert third.process is not None
        third.process.kill()
        third.process.wait(10)
        for stream in streams.values():
            assert stream.wait(lambda reader: reader.ended)
    for cell, stream in streams.items():
        assert set(stream.methods) == {"notifications/progress"}, cell
        assert len(stream.methods) == len(stream.messages), cell
    for key in ups:
        client = clients["legacy", key]
        client.http = nodes.http(nodes.second.listening)
        last = streams["legacy", key].events[-1][0]
        with get_stream(client, last_event_id=last) as resumed:
            assert resumed.wait(lambda reader: reader.ended, 30)
        assert [message["id"] for message in resumed.messages] == ["lost"]
        assert "look before you repeat" in resumed.messages[0]["error"]["message"]
    for key, up in ups.items():
        assert up.events.count("started:slow") == began[key] + 2
        # Nobody knows the call any more; that the connection ended is all its upstream hears.
        assert len(up.calls("notifications/cancelled")) == told[key]
    # The session lives on, and its notices with it.
    client = clients["legacy", "legacy"]
    with get_stream(client, last_event_id=notices.primed[0][0]) as again:
        assert again.heard(TOOLS)


def _slow_stateless(client: WireClient) -> StreamReader:
    arguments = {"steps": 100, "pause": 0.3}
    params = {"name": "slow", "arguments": arguments, "_meta": modern_meta(progressToken=1)}
    return modern_stream(client, "tools/call", params, id="lost")


@dataclass
class Cut:
    """A stateful client whose call was asked something by a process that is then killed."""

    client: Answering
    stream: StreamReader

    @property
    def questions(self) -> list[dict[str, Any]]:
        """What it was asked so far."""
        return [one for one in self.stream.messages if "id" in one and "method" in one]

    def was_asked(self, questions: int) -> None:
        assert self.stream.wait(lambda _: len(self.questions) >= questions), self.stream.messages

    def answer(self, question: dict[str, Any], http: httpx.Client) -> None:
        self.client.elsewhere = [http]
        assert self.client.respond(question).status_code == 202

    def come_back(self, http: httpx.Client) -> StreamReader:
        """Resume the stream as the client does, from the last event it has."""
        self.client.client.http = http
        return get_stream(self.client.client, last_event_id=self.stream.events[-1][0])


def _cut(nodes: Nodes, upstream: str, base: str, **arguments: Any) -> Cut:
    client = nodes.client("legacy", upstream, base)
    params = {"name": "interview", "arguments": arguments}
    return Cut(client, post_stream(client.client, "tools/call", params, id="cut"))


def test_a_stateful_client_that_comes_back_gets_its_result_or_hears_what_became_of_its_call(
    nodes: Nodes,
) -> None:
    """All four are asked by a process that is killed then; they come back to another one."""
    first, second = nodes.http(nodes.first.listening), nodes.http(nodes.second.listening)
    ups = nodes.upstreams
    began = {key: len(up.events) for key, up in ups.items()}
    posted = {key: len(answers_to(up)) for key, up in ups.items()}
    rounds = [[form("One?"), SAMPLE], [ROOTS]]
    with contextlib.ExitStack() as stack:
        third = stack.enter_context(another_node(nodes.first))
        asked = {
            "modern": _cut(nodes, "modern", third.listening, rounds=rounds),
            "resumable": _cut(nodes, "resumable", third.listening, rounds=rounds),
            "legacy": _cut(nodes, "legacy", third.listening, rounds=[[form("One?")]]),
            "sent": _cut(nodes, "modern", third.listening, rounds=[[form("One?")]], pause=30),
        }
        for cut in asked.values():
            stack.enter_context(cut.stream)
        for key, cut in asked.items():
            cut.was_asked(2 if key in ("modern", "resumable") else 1)
        # One of two answers comes in time; and one call is under way again, with its answer.
        for key in ("modern", "resumable", "sent"):
            asked[key].answer(asked[key].questions[0], second)
        assert ups["resumable"].wait(lambda up: len(answers_to(up)) > posted["resumable"])
        assert ups["modern"].wait(lambda up: "answered:interview" in up.events[began["modern"] :])
        assert third.process is not None
        third.process.kill()
        third.process.wait(10)
        for cut in asked.values():
            assert cut.stream.wait(lambda reader: reader.ended)
        # The other answer is given before anybody has taken the call over.
        for key in ("modern", "resumable"):
            asked[key].answer(asked[key].questions[1], second)
        back = {key: stack.enter_context(cut.come_back(first)) for key, cut in asked.items()}
        for key in ("modern", "resumable"):
            cut, resumed = asked[key], back[key]
            assert resumed.wait(lambda r: "roots/list" in r.methods, 30), (key, resumed.messages)
            cut.answer(resumed.messages[0], second)
        for key, resumed in back.items():
            assert resumed.wait(lambda reader: reader.ended, 40), (key, resumed.messages)

    last = {key: resumed.messages[-1] for key, resumed in back.items()}
    assert {one["id"] for one in last.values()} == {"cut"}
    for key in ("modern", "resumable"):
        kinds = [REPLIES[method] for method in ("elicitation/create", "sampling/createMessage")]
        assert given(last[key]) == [*kinds, REPLIES["roots/list"]], key
        assert len(back[key].messages) == 2, back[key].messages
    # Where the upstream can't be come back to, nothing is posted, and it is told to stop.
    assert "was not passed on and the call was cancelled" in last["legacy"]["error"]["message"]
    assert len(answers_to(ups["legacy"])) == posted["legacy"]
    # What was under way is never made again.
    assert "look before you repeat" in last["sent"]["error"]["message"]

    events = {key: up.events[began[key] :] for key, up in ups.items()}
    assert events["modern"].count("started:interview") == 2
    assert events["modern"].count("answered:interview") == 1
    assert events["modern"].count("finished:interview") == 1
    assert events["resumable"].count("started:interview") == 1
    assert events["resumable"].count("finished:interview") == 1
    assert questions_answered(ups["resumable"], posted["resumable"]) == 3
    assert "finished:interview" not in events["legacy"]


def test_a_task_that_asks_outlives_the_process_that_drove_it_or_is_cancelled(
    nodes: Nodes,
) -> None:
    """Tools that run as a task only, driven inside for stateful clients (2.3.8)."""
    first, second = nodes.http(nodes.first.listening), nodes.http(nodes.second.listening)
    began = {key: len(up.events) for key, up in nodes.upstreams.items()}
    arguments, left = {"looks": 1, "question": "Go on?", "insists": True}, calls_left(nodes)
    with contextlib.ExitStack() as stack:
        third = stack.enter_context(another_node(nodes.first))
        asked = {}
        for key in UPSTREAMS:
            client = nodes.client("legacy", key, third.listening)
            params = {"name": "batch", "arguments": arguments}
            stream = post_stream(client.client, "tools/call", params, id="cut")
            asked[key] = Cut(client, stack.enter_context(stream))
        for cut in asked.values():
            cut.was_asked(1)
        # They are left for others a moment after the client has them.
        assert until(lambda: calls_left(nodes) == left + len(asked))
        assert third.process is not None
        third.process.kill()
        third.process.wait(10)
        for cut in asked.values():
            assert cut.stream.wait(lambda reader: reader.ended)
            cut.answer(cut.questions[0], second)
        back = {key: stack.enter_context(cut.come_back(first)) for key, cut in asked.items()}
        for key, resumed in back.items():
            assert resumed.wait(lambda reader: reader.ended, 40), (key, resumed.messages)
    last = {key: resumed.messages[-1] for key, resumed in back.items()}
    # A task of the extension is known by its id; another one by the stream of its result.
    for key in ("modern", "resumable"):
        assert REPLIES["elicitation/create"] in given(last[key]).values(), last[key]
        assert len(back[key].messages) == 1
    assert "was not passed on and the call was cancelled" in last["legacy"]["error"]["message"]
    assert nodes.upstreams["legacy"].wait(lambda up: "task cancelled" in up.events)
    for key in ("modern", "resumable"):
        assert "task cancelled" not in nodes.upstreams[key].events[began[key] :]


def test_when_the_process_that_holds_calls_is_killed_each_ends_as_promised(nodes: Nodes) -> None:
    first, second = nodes.first.listening, nodes.second.listening
    began = {key: len(up.events) for key, up in nodes.upstreams.items()}
    params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
    answers = len(answers_to(nodes.upstreams["resumable"]))

    # In every cell a question is open; all of it is held by the second process.
    stateless = {key: nodes.client("modern", key, second) for key in UPSTREAMS}
    results = {key: one.send(params)["result"] for key, one in stateless.items()}
    slow = {"name": "interview", "arguments": {"rounds": [[form("Name?")]], "pause": 1}}
    posted = nodes.client("modern", "resumable", second)
    waiting = posted.send(slow)["result"]
    with contextlib.ExitStack() as streams:
        stateful = {key: nodes.client("legacy", key, second) for key in ("legacy", "modern")}
        arriving = {key: streams.enter_context(one.stream(params)) for key, one in stateful.items()}
        asked = {key: next(one) for key, one in arriving.items()}

        # One retry came in time: its answer is posted, its result is not there yet.
        late: list[Any] = []
        elsewhere = nodes.http(first)
        thread = threading.Thread(
            target=lambda: late.append(posted.send(posted.retry_of(slow, waiting), elsewhere))
        )
        thread.start()
        assert nodes.upstreams["resumable"].wait(lambda up: len(answers_to(up)) > answers)
        assert nodes.second.process is not None
        nodes.second.process.kill()
        nodes.second.process.wait(10)
        for one in arriving.values():
            with contextlib.suppress(httpx.HTTPError):
                assert not [m for m in one if "result" in m]

    def retried(key: str) -> dict[str, Any]:
        client = stateless[key]
        answer: dict[str, Any] = client.send(
            client.retry_of(params, results[key]), nodes.http(first)
        )
        return answer

    # Stateless on both sides: nothing was held, the retry simply goes on.
    assert given(retried("modern")) == [REPLIES["elicitation/create"]]
    # The upstream resumes: the surviving process takes over, and answers only then.
    assert given(retried("resumable")) == [REPLIES["elicitation/create"]]
    thread.join(30)
    assert given(late[0]) == [REPLIES["elicitation/create"]]
    # It does not: the answer is not posted, the call is cancelled, and the person is told so.
    lost = retried("legacy")
    assert "was not passed on" in lost["error"]["message"]
    assert retried("legacy")["error"] == lost["error"]
    # The answer of a stateful client that does not come back for its stream leads to nothing.
    for key, one in stateful.items():
        one.elsewhere = [nodes.http(first)]
        assert one.respond(asked[key]).status_code == 202

    events = {key: nodes.upstreams[key].events[began[key] :] for key in UPSTREAMS}
    assert events["resumable"].count("started:interview") == 2
    assert events["resumable"].count("finished:interview") == 2
    assert questions_answered(nodes.upstreams["resumable"], answers) == 2
    assert events["legacy"].count("started:interview") == 2
    assert "finished:interview" not in events["legacy"]
    assert events["modern"].count("finished:interview") == 1
    assert nodes.upstreams["legacy"].calls("notifications/cancelled")
    # And the survivor serves on.
    assert given(nodes.client("modern", "legacy", first).call("interview", params["arguments"]))


@pytest.mark.races
@pytest.mark.timeout(300 + 30 * ROUNDS)
@pytest.mark.parametrize("end", ["killed", "told to stop"])
def test_wherever_a_holder_dies_no_tool_runs_twice_and_none_is_lost_without_a_word(
    nodes: Nodes, end: str
) -> None:
    """Rounds: ``RACE_ROUNDS``. The moment of death is drawn anew in each of them.

    An answer whose POST was cut off by the death may be posted once more, the same one and only
    where the stream was resumed (``test_death_of_a_holder`` says why that is right). So it is not
    the number of POSTs that is counted but how often a tool went on: each call once.
    """
    first = nodes.first.listening
    for number in range(ROUNDS):
        moment = random.Random(number).uniform(0, 0.8)
        with another_node(nodes.first) as doomed:
            outcomes = _retried_while_it_dies(nodes, first, doomed, moment, end)
        for key, (up, seen, answers) in outcomes.items():
            assert seen.count("started:interview") == len(answers), (number, moment, key)
            results = [one for one in answers if "result" in one]
            assert seen.count("finished:interview") >= len(results), (number, moment, key)
            assert seen.count("finished:interview") <= len(answers), (number, moment, key)
            posted = Counter(json.dumps(one, sort_keys=True) for one in answers_to(up))
            ids = {one["id"] for one in answers_to(up)}
            assert len(posted) == len(ids), (number, moment, key)
            most = 2 if key == "resumable" else 1
            assert max(posted.values(), default=0) <= most, (number, moment, key)
            for one in answers:
                assert "result" in one or one["error"]["message"], (number, moment, key)
            if key == "resumable":
                # Nothing is lost where the upstream can be come back to.
                assert results == answers, (number, moment, answers)


def _retried_while_it_dies(
    nodes: Nodes, first: str, doomed: RunningGateway, moment: float, end: str
) -> dict[str, tuple[FakeUpstream, list[str], list[Any]]]:
    """Have a process hold calls, send the retries to another, and end it meanwhile."""
    params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]], "pause": 0.3}}
    began = {key: len(nodes.upstreams[key].events) for key in ("legacy", "resumable")}
    waiting = []
    for key in began:
        for _ in range(4):
            client = nodes.client("modern", key, doomed.listening)
            waiting.append((key, client, client.retry_of(params, client.send(params)["result"])))
    answers: dict[str, list[Any]] = {key: [] for key in began}

    def retry(key: str, client: Answering, sent: dict[str, Any], delay: float) -> None:
        threading.Event().wait(delay)
        answers[key].append(client.send(sent, nodes.http(first)))

    threads = [
        threading.Thread(target=retry, args=(*one, place * 0.1))
        for place, one in enumerate(waiting)
    ]
    for thread in threads:
        thread.start()
    threading.Event().wait(moment)
    assert doomed.process is not None
    if end == "killed":
        doomed.process.kill()
    else:
        doomed.process.terminate()
    doomed.process.wait(30)
    for thread in threads:
        thread.join(60)
    return {
        key: (nodes.upstreams[key], nodes.upstreams[key].events[since:], answers[key])
        for key, since in began.items()
    }
