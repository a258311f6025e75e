"""What stateful upstreams ask outside of their calls' streams (protocol.md 2.3.5).

Two nodes, with event loops of their own: answers go to the other one than the call and the stream.
"""

import contextlib
import json
import threading

import httpx
import pytest
from django.conf import settings as django_settings
from django.db import OperationalError

from tests.fakes.asgi_server import serve
from tests.fakes.mcp_upstream import FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp.answering_client import (
    EVERYTHING,
    REPLIES,
    ROOTS,
    SAMPLE,
    Answering,
    form,
    question,
)
from tests.virtualmcp.stream_reader import get_stream, post_stream, until
from upstreams import unrelated_questions
from virtualmcp.models import SharedNote
from virtualmcp.routing import shared_notes
from virtualmcp.transport import session_questions

PAGE = question(
    "elicitation/create", mode="url", message="Open", url="https://e.example/x", elicitationId="e-1"
)
KINDS = {"form": form("Name?"), "page": PAGE, "sampling": SAMPLE, "roots": ROOTS}
CANCELLED, COMPLETE = "notifications/cancelled", "notifications/elicitation/complete"


@pytest.fixture
def upstream():
    """A stateful upstream that asks on the session's stream, whatever it is about."""
    with FakeUpstream(era="legacy", asks_apart=True).serve() as upstream:
        yield upstream


@pytest.fixture
def second_node(endpoint, gateway):
    """Another node of the same gateway."""
    with (
        serve(endpoint) as base,
        httpx.Client(
            base_url=base, headers={"host": django_settings.PUBLIC_HOST}, timeout=PATIENCE
        ) as http,
    ):
        yield http


@pytest.fixture
def answering(ada, upstream, make_virtual_mcp, make_token, wire, second_node):
    """Make clients of the same person whose answers go to the second node."""
    make_virtual_mcp("board", {"fake": upstream.url})
    make_virtual_mcp("both", {"fake": upstream.url, "other": upstream.url})

    def make(era="legacy", capabilities=EVERYTHING, revision="2025-11-25", slug="board"):
        client = wire(slug, make_token(ada, slug))
        if era == "legacy":
            client.initialize(revision, capabilities=capabilities)
        return Answering(client, era, [second_node], capabilities=capabilities)

    return make


def asks(upstream, one, id="u-1", to=None):
    upstream.announce_raw({"jsonrpc": "2.0", "id": id, **one}, to=to)


def answered(upstream, id="u-1"):
    """Wait for the answer to a question; returns it."""
    assert upstream.wait(lambda up: up.answer_to(id) is not None)
    return upstream.answer_to(id)


def canonical(value):
    return json.dumps(value, sort_keys=True)


def requests_on(stream):
    return [message for message in stream.messages if "id" in message]


@contextlib.contextmanager
def listening(client, upstream, **headers):
    """Open the client's GET stream, and see that the gateway listens at the upstream."""
    with get_stream(client.client, **headers) as stream:
        assert upstream.wait(lambda up: up.listening >= 1)
        yield stream


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_what_is_asked_while_a_call_runs_goes_to_the_call(answering, upstream, era):
    client = answering(era)
    message = client.call("interview", {"rounds": [list(KINDS.values()), [form("Again?")]]})
    given = json.loads(message["result"]["content"][0]["text"])
    expected = [REPLIES[one["method"]] for one in [*KINDS.values(), KINDS["form"]]]
    assert sorted(map(canonical, given)) == sorted(map(canonical, expected))
    assert len(client.asked) == 5
    assert upstream.events.count("started:interview") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_outside_of_calls_a_client_is_asked_on_its_own_stream(answering, upstream, kind):
    client = answering()
    with listening(client, upstream) as stream:
        asks(upstream, KINDS[kind])
        assert stream.wait(requests_on)
        asked = requests_on(stream)[0]
        assert asked["id"] != "u-1"
        assert asked["method"] == KINDS[kind]["method"]
        assert asked.get("params", {}) == KINDS[kind].get("params", {})
        assert client.respond(asked).status_code == 202
        assert answered(upstream)["result"] == REPLIES[asked["method"]]
        assert until(lambda: not SharedNote.objects.filter(key__startswith="asked:").exists())


def test_a_client_whose_stream_is_on_another_node_is_asked_there(answering, upstream, second_node):
    client = answering()
    client.call("echo", {"text": "x"})
    assert upstream.wait(lambda up: up.listening == 1)
    here, client.client.http = client.client.http, second_node
    with listening(client, upstream) as stream:
        client.client.http = here
        assert upstream.wait(lambda up: up.listening == 2)
        asks(upstream, form("Name?"), to=0)
        assert stream.wait(requests_on)
        client.respond(requests_on(stream)[0])
        assert answered(upstream)["result"] == REPLIES["elicitation/create"]
        session = upstream.requests[-1].headers["mcp-session-id"]
        assert session == upstream.initialized[0]


def test_of_two_sessions_the_one_with_a_stream_is_asked_and_of_two_streams_none(
    answering, upstream
):
    gone, client = answering(), answering()
    for one in (gone, client):
        one.call("echo", {"text": "x"})
    with listening(client, upstream) as stream:
        asks(upstream, form("Name?"))
        assert stream.wait(requests_on)
        client.respond(requests_on(stream)[0])
        assert "result" in answered(upstream)
        with listening(gone, upstream) as other:
            asks(upstream, form("Whose?"), id="u-2")
            assert answered(upstream, "u-2")["error"]["code"] == -32603
            assert not requests_on(other) and len(requests_on(stream)) == 1


def test_nobody_is_asked_who_does_not_listen_or_is_stateless(answering, upstream, monkeypatch):
    monkeypatch.setattr(session_questions, "FOUND_SECONDS", 0.3)
    before = unrelated_questions.ended.copy()
    for number, era in enumerate(("modern", "legacy")):
        client = answering(era, {**EVERYTHING, "experimental": {era: {}}})
        client.call("echo", {"text": "x"})
        assert upstream.wait(lambda up, most=number: up.listening > most)
        asks(upstream, form("Name?"), id=era, to=number)
        assert answered(upstream, era)["error"]["code"] == -32603
    refused = unrelated_questions.ended - before
    assert sum(count for (_, how), count in refused.items() if how == "refused") == 2


def test_what_a_client_did_not_declare_is_refused_whichever_stream_it_comes_on(answering, upstream):
    client = answering(capabilities={"roots": {}})
    with listening(client, upstream) as stream:
        asks(upstream, SAMPLE)
        assert "sampling" in answered(upstream)["error"]["message"]
        assert not requests_on(stream)


def test_behind_several_upstreams_it_is_said_who_asks_and_what_is_off_is_refused(
    answering, upstream
):
    client = answering(slug="both")
    with listening(client, upstream) as stream:
        assert upstream.wait(lambda up: up.listening == 2)
        asks(upstream, form("Name?"), to=0)
        assert stream.wait(requests_on)
        assert requests_on(stream)[0]["params"]["message"] in ("[Fake] Name?", "[Other] Name?")
        asks(upstream, SAMPLE, id="u-2", to=0)
        assert "not" in answered(upstream, "u-2")["error"]["message"]
        assert len(requests_on(stream)) == 1


def test_a_question_that_is_taken_back_is_taken_back_from_the_client(answering, upstream):
    client = answering()
    with listening(client, upstream) as stream:
        asks(upstream, form("Name?"))
        assert stream.wait(requests_on)
        upstream.announce_raw(
            {"jsonrpc": "2.0", "method": CANCELLED, "params": {"requestId": "u-1"}}
        )
        assert stream.heard(CANCELLED)
        told = next(m for m in stream.messages if m.get("method") == CANCELLED)
        assert told["params"]["requestId"] == requests_on(stream)[0]["id"]
        assert upstream.answer_to("u-1") is None


def test_a_question_outlives_a_broken_stream_and_is_asked_once(answering, upstream):
    client = answering()
    with listening(client, upstream) as stream:
        asks(upstream, form("Name?"))
        assert stream.wait(requests_on)
        seen, asked = next(one for one in stream.events if "id" in one[1])
    token, _, number = seen.rpartition(".")
    unseen = {"last_event_id": f"{token}.{int(number) - 1}"}
    with listening(client, upstream, **unseen) as stream:
        assert stream.wait(requests_on)
        again, repeated = next(one for one in stream.events if "id" in one[1])
        assert repeated == asked
    with listening(client, upstream, last_event_id=again) as stream:
        client.respond(asked)
        assert answered(upstream)["result"] == REPLIES["elicitation/create"]
        assert not requests_on(stream)


@pytest.mark.parametrize("how", ["leaves", "ends its session"])
def test_a_question_ends_with_the_client(answering, upstream, monkeypatch, how):
    monkeypatch.setattr(session_questions, "GONE_SECONDS", 0.2)
    client = answering()
    with listening(client, upstream) as stream:
        asks(upstream, form("Name?"))
        assert stream.wait(requests_on)
        if how == "ends its session":
            path, headers = client.client.path, client.client.session_headers()
            client.client.http.delete(path, headers=client.client.headers(**headers))
            assert answered(upstream)["error"]["code"] == -32603
    assert answered(upstream)["error"]["code"] == -32603


def test_a_question_whose_asking_process_died_is_taken_back_from_the_client(
    answering, upstream, monkeypatch
):
    real, failures = shared_notes.lease_holder, [OperationalError("away")]

    async def holder(key):
        if failures:
            raise failures.pop()
        return await real(key)

    monkeypatch.setattr(shared_notes, "lease_holder", holder)
    monkeypatch.setattr(session_questions, "LOOK_SECONDS", 0.05)
    client = answering()
    with listening(client, upstream) as stream:
        asks(upstream, form("Name?"))
        assert stream.wait(requests_on)
        # Its lease ends, which a living process would have renewed.
        leases = SharedNote.objects.filter(key__startswith="asking:")
        assert until(lambda: leases.all().exists())
        leases.all().delete()
        assert stream.heard(CANCELLED)
        taken_back = next(one for one in stream.messages if one.get("method") == CANCELLED)
        assert taken_back["params"]["requestId"] == requests_on(stream)[0]["id"]
        # What is answered leaves nothing behind, and is not taken back.
        asks(upstream, form("Again?"), id="u-2")
        assert stream.wait(lambda reader: len(requests_on(reader)) == 2)
        client.respond(requests_on(stream)[1])
        assert answered(upstream, "u-2")["result"] == REPLIES["elicitation/create"]
        assert until(lambda: not leases.all().exists())
        assert stream.methods.count(CANCELLED) == 1
    assert not failures


def test_a_question_nobody_answers_is_taken_back_in_time(answering, upstream, monkeypatch):
    monkeypatch.setattr(session_questions, "QUESTION_SECONDS", 0.5)
    client = answering()
    with listening(client, upstream) as stream:
        asks(upstream, form("Name?"))
        assert stream.heard(CANCELLED)
        assert "in time" in answered(upstream)["error"]["message"]


def test_only_so_many_questions_are_open_at_once(answering, upstream):
    client = answering()
    with listening(client, upstream) as stream:
        for number in range(unrelated_questions.MOST_OPEN + 1):
            asks(upstream, form("Name?"), id=f"n-{number}")
        last = f"n-{unrelated_questions.MOST_OPEN}"
        assert "too many" in answered(upstream, last)["error"]["message"]
        assert stream.wait(lambda s: len(requests_on(s)) == unrelated_questions.MOST_OPEN)


def test_who_opened_a_page_hears_on_the_stream_that_it_is_done(answering, upstream):
    client = answering()
    with listening(client, upstream) as stream:
        asks(upstream, PAGE)
        assert stream.wait(requests_on)
        client.respond(requests_on(stream)[0], result={"action": "accept"})
        answered(upstream)
        for page in ("another", "e-1"):
            params = {"elicitationId": page}
            upstream.announce_raw({"jsonrpc": "2.0", "method": COMPLETE, "params": params})
        assert stream.heard(COMPLETE)
        told = [m["params"] for m in stream.messages if m.get("method") == COMPLETE]
        assert told == [{"elicitationId": "e-1"}]


def test_after_a_notice_of_changed_roots_its_client_is_asked_for_them(
    answering, upstream, second_node
):
    told = "notifications/roots/list_changed"
    clients = [answering(capabilities={"roots": {"listChanged": True}}) for _ in range(2)]
    quiet = answering(capabilities={"roots": {}})
    with listening(clients[0], upstream) as stream, listening(clients[1], upstream) as other:
        for one in (*clients, quiet):
            one.call("echo", {"text": "x"})
        declared = upstream.calls("initialize")[0]["params"]["capabilities"]
        assert declared == {"roots": {"listChanged": True}}
        for one in (quiet, clients[0]):
            # To the other node than the one that holds the session.
            assert one.post({"jsonrpc": "2.0", "method": told}).status_code == 202
        assert upstream.wait(lambda up: up.calls(told))
        assert upstream.requests[-1].headers["mcp-session-id"] == upstream.initialized[0]
        asks(upstream, ROOTS, to=0)
        assert stream.wait(requests_on)
        clients[0].respond(requests_on(stream)[0])
        assert answered(upstream)["result"] == REPLIES["roots/list"]
        assert not requests_on(other)
        assert len(upstream.calls(told)) == 1


def test_of_many_notices_of_changed_roots_the_first_and_the_last_are_passed_on(answering, upstream):
    told = "notifications/roots/list_changed"
    client = answering(capabilities={"roots": {"listChanged": True}}, revision="2025-03-26")
    client.call("echo", {"text": "x"})
    assert client.post([{"jsonrpc": "2.0", "method": told}] * 5).status_code == 202
    assert upstream.wait(lambda up: len(up.calls(told)) == 2)
    client.call("echo", {"text": "y"})
    assert len(upstream.calls(told)) == 2


def test_a_question_that_outlives_its_call_goes_on_to_the_clients_stream(answering, upstream):
    client = answering()
    params = {"name": "slow", "arguments": {"steps": 4, "pause": 0.2}}
    with listening(client, upstream) as stream:
        call = post_stream(client.client, "tools/call", params, id="call")
        opening = threading.Thread(target=call.__enter__)
        opening.start()
        assert upstream.wait(lambda up: up.calls("tools/call"))
        asks(upstream, form("Name?"))
        opening.join()
        assert call.wait(lambda reader: reader.ended)
        said = [message.get("method") for message in call.messages]
        assert said == ["elicitation/create", CANCELLED, None]
        assert stream.wait(requests_on)
        client.respond(requests_on(stream)[0])
        assert answered(upstream)["result"] == REPLIES["elicitation/create"]
