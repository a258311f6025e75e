"""Questions of upstreams of both eras to clients of both, over two nodes (protocol.md 2.4).

The two nodes are two servers with event loops of their own: what one knows in memory the other
does not, and answers and retries always go to the other.
"""

import json
import time

import httpx
import pytest
from django.conf import settings as django_settings

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
from tests.virtualmcp.wire_client import META
from virtualmcp.models import NodeMail, UpstreamChoice
from virtualmcp.routing import parked_mail, parking
from virtualmcp.transport import client_questions

PAGE = question(
    "elicitation/create",
    mode="url",
    message="Open",
    url="https://e.example/x",
    elicitationId="page-1",
)
CELLS = [(client, upstream) for client in ("legacy", "modern") for upstream in ("legacy", "modern")]
NAMES = [f"{c[0].upper()}{u[0].upper()}" for c, u in CELLS]


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
def answering(ada, make_virtual_mcp, make_token, wire, second_node):
    """Make a client of one era over upstreams, whose answers go to the second node."""

    def make(era, *upstreams, capabilities=EVERYTHING, revision="2025-11-25"):
        urls = {up.name: up.url for up in upstreams}
        row = make_virtual_mcp("board", urls)
        client = wire("board", make_token(ada, "board"))
        if era == "legacy":
            client.initialize(revision, capabilities=capabilities)
        made = Answering(client, era, [second_node], capabilities=capabilities)
        made.row = row
        return made

    return make


@pytest.fixture(params=CELLS, ids=NAMES)
def cell(request, answering):
    """One of the four cells."""
    era, upstream_era = request.param
    with FakeUpstream(era=upstream_era).serve() as upstream:
        yield answering(era, upstream), upstream


def text_of(message):
    assert "result" in message, message
    return message["result"]["content"][0]["text"]


def given(message):
    return json.loads(text_of(message))


def test_form_page_sampling_and_roots_are_asked_at_once_and_answered_on_another_node(cell):
    client, upstream = cell
    page = question("elicitation/create", mode="url", message="Open", url="https://e.example/x")
    if upstream.era == "legacy":
        page["params"]["elicitationId"] = "upstream-1"
    answer = client.call("interview", {"rounds": [[form("Name?"), page, SAMPLE, ROOTS]]})
    assert sorted(json.dumps(one, sort_keys=True) for one in given(answer)) == sorted(
        json.dumps(REPLIES[method], sort_keys=True)
        for method in ("elicitation/create", "elicitation/create", *list(REPLIES)[1:])
    )
    asked = {(one["method"], one["params"].get("mode")): one["params"] for one in client.asked}
    assert len(asked) == 4
    # The id of a page belongs to the stateful revision alone (2.3.5).
    url = asked[("elicitation/create", "url")]
    assert ("elicitationId" in url) == (client.era == "legacy")
    assert url["url"] == "https://e.example/x"
    told = [event for event in upstream.events if event.endswith(":interview")]
    assert told == ["started:interview", "asked:interview", "finished:interview"]


def test_round_follows_round_and_the_tool_runs_once(cell):
    client, upstream = cell
    answer = client.call("interview", {"rounds": [[form("One?")], [form("Two?")], [ROOTS]]})
    assert len(given(answer)) == 3
    assert [one["params"].get("message") for one in client.asked] == ["One?", "Two?", None]
    assert upstream.events.count("started:interview") == 1
    assert upstream.events.count("finished:interview") == 1
    assert not NodeMail.objects.exists()
    assert _soon(lambda: parking.count() == 0)


@pytest.mark.parametrize(
    ("kind", "declared", "lacking"),
    [
        (SAMPLE, {}, {"sampling": {}}),
        (ROOTS, {"sampling": {}}, {"roots": {}}),
        (form("Who?"), {"sampling": {}}, {"elicitation": {"form": {}}}),
        (form("Who?"), {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}),
        (PAGE, {"elicitation": {}}, {"elicitation": {"url": {}}}),
        (PAGE, {"elicitation": {"form": {}}}, {"elicitation": {"url": {}}}),
    ],
    ids=["sampling", "roots", "form", "form to url only", "url to unsaid", "url to form only"],
)
def test_a_client_is_asked_only_what_it_declared(cell, kind, declared, lacking):
    client, upstream = cell
    client.capabilities = declared
    if client.era == "legacy":
        client.client.initialize(capabilities=declared)
    answer = client.call("interview", {"rounds": [[kind]]})
    assert client.asked == []
    if upstream.era == "legacy":
        # The upstream is told so, and its call goes on.
        assert given(answer)[0]["error"]["code"] == -32603
    elif client.era == "modern":
        assert answer["error"]["code"] == -32021
        assert answer["error"]["data"] == {"requiredCapabilities": lacking}
    else:
        assert "Use a client that supports it" in answer["error"]["message"]
    opened = upstream.calls("initialize" if upstream.era == "legacy" else "tools/call")[-1]
    told = opened["params"].get("_meta") or opened["params"]
    said = told.get(META + "clientCapabilities", told.get("capabilities"))
    assert set(said) <= set(declared)
    assert set(said.get("elicitation", {})) <= {*declared.get("elicitation", {}), "form"}


def test_sampling_with_tools_is_asked_only_of_who_declared_that(cell):
    client, _ = cell
    tools = [{"name": "look", "inputSchema": {"type": "object"}}]
    with_tools = question(SAMPLE["method"], **{**SAMPLE["params"], "tools": tools})
    for declared, asked in (({}, 0), ({"tools": {}}, 1)):
        client.capabilities = {"sampling": declared}
        if client.era == "legacy":
            client.client.initialize(capabilities=client.capabilities)
        answer = client.call("interview", {"rounds": [[with_tools]]})
        assert len(client.asked) == asked
        if asked:
            assert client.asked[0]["params"]["tools"] == tools
            assert given(answer) == [REPLIES[SAMPLE["method"]]]
        elif "error" in answer and client.era == "modern":
            assert answer["error"]["data"] == {"requiredCapabilities": {"sampling": {"tools": {}}}}


def test_a_person_may_decline(cell):
    client, _ = cell
    client.replies["elicitation/create"] = {"action": "decline"}
    assert given(client.call("interview", {"rounds": [[form("Name?")]]})) == [{"action": "decline"}]


def test_progress_rises_over_all_rounds_and_comes_by_the_clients_token(cell):
    client, _ = cell
    asking = {"rounds": [[form("One?")], [form("Two?")]]}
    assert given(client.call("interview", asking, progressToken="mine"))
    seen = [one["params"] for one in client.notices if "progress" in one["params"]]
    assert {one["progressToken"] for one in seen} == {"mine"}
    # One sequence for a stateful client; one for each round of a stateless one (section 6, 15).
    rounds = 2 if client.era == "modern" else 1
    assert [one["progress"] for one in seen] == [1, 2] * rounds


def test_a_stateful_client_hears_that_the_page_it_opened_is_done(answering):
    with FakeUpstream(era="legacy").serve() as upstream:
        client = answering("legacy", upstream)
        page = question("elicitation/create", mode="url", message="Open", url="https://e.example/")
        page["params"]["elicitationId"] = "page-1"
        client.call("interview", {"rounds": [[page]]})
        done = [one["params"] for one in client.notices if "elicitation" in one["method"]]
        assert done == [{"elicitationId": "page-1"}]


def test_behind_one_url_with_several_upstreams_each_says_who_it_is_and_asks_what_it_may(answering):
    with (
        FakeUpstream(era="legacy", name="alpha").serve() as alpha,
        FakeUpstream(era="modern", name="beta").serve() as beta,
    ):
        stateful = answering("legacy", alpha, beta)
        for client in (stateful, Answering(stateful.client, "modern", stateful.elsewhere)):
            for key in ("alpha", "beta"):
                name = f"{key}_interview"
                client.client.legacy("tools/list")
                assert given(client.call(name, {"rounds": [[form("Name?")]]}))
                assert client.asked[-1]["params"]["message"] == f"[{key.title()}] Name?"
            refused = client.call("alpha_interview", {"rounds": [[SAMPLE, ROOTS]]})
            assert [one["error"]["code"] for one in given(refused)] == [-32603, -32603]
            assert "administrator" in text_of(refused)
            late = client.call("beta_interview", {"rounds": [[SAMPLE]]})
            assert "administrator can allow it" in late["error"]["message"]
        declared = alpha.calls("initialize")[-1]["params"]["capabilities"]
        assert set(declared) == {"elicitation"}
        UpstreamChoice.objects.filter(upstream__key="beta").update(may_sample=True)
        from virtualmcp import route_table

        route_table.forget()
        assert given(client.call("beta_interview", {"rounds": [[SAMPLE]]}))


def test_older_revisions_are_asked_in_the_words_they_know(answering):
    titled = {"type": "string", "oneOf": [{"const": "r", "title": "Red"}]}
    several = {"type": "array", "items": {"anyOf": [{"const": "r", "title": "Red"}]}}
    with FakeUpstream(era="modern").serve() as upstream:
        client = answering("legacy", upstream, revision="2025-06-18")
        asking = form("Colour?", mode="form")
        asking["params"]["requestedSchema"]["properties"] = {"colour": titled}
        assert given(client.call("interview", {"rounds": [[asking]]}))
        params = client.asked[-1]["params"]
        assert "mode" not in params
        colour = params["requestedSchema"]["properties"]["colour"]
        assert colour == {"type": "string", "enum": ["r"], "enumNames": ["Red"]}
        asking["params"]["requestedSchema"]["properties"] = {"colours": several}
        refused = client.call("interview", {"rounds": [[asking]]})
        assert "several values" in refused["error"]["message"]
        blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        sample = question(
            "sampling/createMessage", messages=[{"role": "user", "content": blocks}], maxTokens=1
        )
        assert given(client.call("interview", {"rounds": [[sample]]}))
        said = client.asked[-1]["params"]["messages"]
        assert [one["content"] for one in said] == blocks


def test_the_oldest_revision_has_no_elicitation_whatever_the_client_declares(answering):
    with FakeUpstream(era="legacy").serve() as upstream:
        client = answering("legacy", upstream, revision="2025-03-26")
        answer = client.call("interview", {"rounds": [[form("Name?")]]})
        assert given(answer)[0]["error"]["code"] == -32603
        assert client.asked == []
        assert "elicitation" not in upstream.calls("initialize")[-1]["params"]["capabilities"]


@pytest.mark.parametrize("upstream_era", ["legacy", "modern"])
def test_a_clients_refusal_is_told_to_a_stateful_upstream_and_ends_a_stateless_ones_call(
    answering, upstream_era
):
    with FakeUpstream(era=upstream_era).serve() as upstream:
        client = answering("legacy", upstream)
        params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
        with client.stream(params) as arriving:
            asked = next(arriving)
            client.respond(asked, error={"code": -1, "message": "not now"})
            answer = next(one for one in arriving if "method" not in one)
        if upstream_era == "legacy":
            assert given(answer)[0]["error"] == {"code": -1, "message": "not now"}
        else:
            assert answer["error"]["code"] == -1


@pytest.mark.parametrize("upstream_era", ["legacy", "modern"])
def test_cancelling_on_another_node_takes_the_question_back_and_ends_the_call(
    answering, upstream_era, settings
):
    with FakeUpstream(era=upstream_era).serve() as upstream:
        client = answering("legacy", upstream)
        params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
        with client.stream(params, id=77) as arriving:
            asked = next(arriving)
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
            assert client.post({**note, "params": {"requestId": 78}}).status_code == 202
            assert client.post({**note, "params": {"requestId": 77}}).status_code == 202
            withdrawn = list(arriving)
        assert [one["method"] for one in withdrawn] == ["notifications/cancelled"]
        assert withdrawn[0]["params"]["requestId"] == asked["id"]
        if upstream_era == "legacy":
            assert upstream.wait(lambda up: up.calls("notifications/cancelled"))
        # A late answer is taken and goes nowhere.
        assert client.respond(asked).status_code == 202


def test_a_question_nobody_answers_in_time_is_taken_back(answering, monkeypatch):
    monkeypatch.setattr(client_questions, "QUESTION_SECONDS", 0.2)
    for upstream_era in ("legacy", "modern"):
        with FakeUpstream(era=upstream_era, name=upstream_era).serve() as upstream:
            if upstream_era == "legacy":
                client = answering("legacy", upstream)
            else:
                UpstreamChoice.objects.all().delete()
                from upstreams.models import Upstream
                from virtualmcp import route_table

                row = Upstream.objects.create(key="modern", title="M", url=upstream.url)
                UpstreamChoice.objects.create(virtual_mcp=client.row, upstream=row)
                route_table.forget()
            params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
            with client.stream(params) as arriving:
                asked, withdrawn, answer = list(arriving)
            assert withdrawn["method"] == "notifications/cancelled"
            assert withdrawn["params"]["requestId"] == asked["id"]
            assert "in time" in json.dumps(answer)


def test_an_answer_counts_only_in_the_session_that_was_asked(answering, bob, make_token, wire):
    with FakeUpstream(era="legacy").serve() as upstream:
        client = answering("legacy", upstream)
        stranger = wire("board", make_token(bob, "board"))
        stranger.initialize(capabilities=EVERYTHING)
        own = wire("board", client.client.token)
        own.initialize(capabilities=EVERYTHING)
        params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
        with client.stream(params) as arriving:
            asked = next(arriving)
            wrong = {"action": "accept", "content": {"answer": "Eve"}}
            for other in (stranger, own):
                message = {"jsonrpc": "2.0", "id": asked["id"], "result": wrong}
                assert other.post(message, **other.session_headers()).status_code == 202
            # Somebody else's session is no session of this person (c11).
            message = {"jsonrpc": "2.0", "id": asked["id"], "result": wrong}
            stolen = stranger.post(message, **client.client.session_headers())
            assert stolen.status_code == 404
            for forged in ("ask-xyz", "ask-" + "A" * 38, 7):
                assert client.post({**message, "id": forged}).status_code == 202
            assert not NodeMail.objects.exists()
            client.respond(asked)
            answer = next(one for one in arriving if "method" not in one)
        assert given(answer) == [REPLIES["elicitation/create"]]


# A stateless client, a stateful upstream: parked calls ---------------------------------------
@pytest.fixture
def parked(answering):
    """A call that waits for answers: client, upstream, params, and the result that asks."""
    with FakeUpstream(era="legacy").serve() as upstream:
        client = answering("modern", upstream)
        params = {"name": "interview", "arguments": {"rounds": [[form("Name?"), ROOTS]]}}
        result = client.send(params, client.client.http)["result"]
        assert result["resultType"] == "input_required"
        yield client, upstream, params, result


def test_partial_missing_wrong_and_unknown_answers_are_asked_again(parked):
    client, upstream, params, result = parked
    whole = client.retry_of(params, result)
    keys = sorted(result["inputRequests"], key=lambda k: result["inputRequests"][k]["method"])
    for answers in (
        None,
        {},
        {"other": {"action": "accept"}},
        {keys[0]: {"action": "perhaps"}, keys[1]: 7},
    ):
        sent = {**whole, "inputResponses": answers}
        if answers is None:
            del sent["inputResponses"]
        again = client.send(sent)["result"]
        assert set(again["inputRequests"]) == set(keys)
    first = {**whole, "inputResponses": {keys[0]: whole["inputResponses"][keys[0]]}}
    rest = client.send(first)["result"]
    assert list(rest["inputRequests"]) == [keys[1]]
    answer = client.send(client.retry_of(params, rest))
    assert len(given(answer)) == 2
    assert upstream.events.count("started:interview") == 1


def test_a_retry_that_comes_twice_gets_the_same_outcome_and_nothing_is_posted_twice(parked):
    client, upstream, params, result = parked
    whole = client.retry_of(params, result)
    first, second = client.send(whole), client.send(whole, client.client.http)
    assert first["result"] == second["result"]
    assert upstream.events.count("finished:interview") == 1
    posted = [seen.message for seen in upstream.requests if "result" in seen.message]
    assert len(posted) == 2


def test_a_state_opens_for_its_own_request_alone(parked, bob, make_token, wire):
    client, upstream, params, result = parked
    whole = client.retry_of(params, result)
    other = {**whole, "arguments": {"rounds": []}}
    assert client.send(other)["error"]["code"] == -32602
    tampered = {**whole, "requestState": whole["requestState"][:-2] + "xx"}
    assert client.send(tampered)["error"]["code"] == -32602
    stranger = Answering(wire("board", make_token(bob, "board")), "modern")
    assert stranger.send(whole)["error"]["code"] == -32602
    assert "finished:interview" not in upstream.events
    assert given(client.send(whole))


def test_a_call_nobody_comes_back_to_is_taken_back_at_the_upstream(answering, monkeypatch):
    monkeypatch.setattr(parked_mail, "PARK_SECONDS", 0.2)
    with FakeUpstream(era="legacy").serve() as upstream:
        client = answering("modern", upstream)
        params = {"name": "interview", "arguments": {"rounds": [[form("Name?"), ROOTS]]}}
        client.send(params)
        assert upstream.wait(lambda up: "finished:interview" in up.events)
        posted = [seen.message for seen in upstream.requests if "method" not in seen.message]
        assert {"action": "cancel"} in [one.get("result") for one in posted]
        assert -32603 in [one["error"]["code"] for one in posted if "error" in one]
        assert _soon(lambda: parking.count() == 0)


def test_hanging_up_while_a_retry_waits_cancels_the_call(answering, gateway):
    with FakeUpstream(era="legacy").serve() as upstream:
        client = answering("modern", upstream)
        arguments = {"rounds": [[form("Name?")]], "hang": True}
        params = {"name": "interview", "arguments": arguments}
        result = client.send(params, client.client.http)["result"]
        retry = client.retry_of(params, result)
        headers = {"host": django_settings.PUBLIC_HOST}
        with (
            httpx.Client(base_url=gateway, headers=headers, timeout=0.5) as impatient,
            pytest.raises(httpx.ReadTimeout),
        ):
            client.send(retry, impatient)
        assert upstream.wait(lambda up: "cancelled:hang" in up.events)
        assert "cancelled" in client.send(retry)["error"]["message"]
        assert _soon(lambda: parking.count() == 0)


def test_only_so_many_calls_are_parked_for_one_person(answering, monkeypatch):
    monkeypatch.setattr(parking, "MOST_PARKED_PER_PERSON", 1)
    with FakeUpstream(era="legacy").serve() as upstream:
        client = answering("modern", upstream)
        params = {"name": "interview", "arguments": {"rounds": [[form("Name?")]]}}
        first = client.send(params, client.client.http)["result"]
        # The upstream is told that nobody can be asked now, and its call goes on.
        refused = client.send(params, client.client.http)
        assert "too many" in text_of(refused)
        assert given(client.send(client.retry_of(params, first)))


def _soon(what, seconds=PATIENCE):
    """Wait, bounded, for something of a server's thread that gives no signal."""
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.01)
    return what()
