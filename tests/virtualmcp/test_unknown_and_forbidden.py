"""What somebody may not use is, for them, what does not exist: every method, both eras."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.stream_reader import listen
from tests.virtualmcp.test_access_rules import narrow, rule
from tests.virtualmcp.test_endpoint_tasks import TASKS, making_tasks, names, started
from tests.virtualmcp.wire_client import META, messages, modern_meta
from virtualmcp import actions

ERAS = ("modern", "legacy")
VARYING = ("date", "content-length", "x-request-id")
ASKED = modern_meta(**{META + "clientCapabilities": {"elicitation": {"form": {}}}})


def answer_to(response: Any, *own_names: str) -> tuple[int, str, dict[str, str]]:
    """Return status, body and headers, with what the request itself said taken out."""
    body = messages(response)[-1] if response.content else None
    if isinstance(body, dict):
        body.pop("id", None)
    text = json.dumps(body)
    for name in own_names:
        text = text.replace(json.dumps(name)[1:-1], "…")
    headers = {n: v for n, v in response.headers.items() if n.lower() not in VARYING}
    return response.status_code, text, headers


# A whole Virtual MCP -----------------------------------------------------------------------
METHODS = (
    *("tools/list", "prompts/list", "resources/list", "resources/templates/list"),
    *("server/discover", "tools/call", "prompts/get", "resources/read", "completion/complete"),
    *("subscriptions/listen", "tasks/get", "no/such"),
)


@pytest.fixture
def elsewhere(bob, make_virtual_mcp, make_token, wire):
    """A client of Bob's at a server that is for a group he is not in, and one of nothing."""
    row = make_virtual_mcp("closed", {"alpha": "http://127.0.0.1:9/mcp"}, audience="groups")
    row.groups.add(Group.objects.create(name="leads"))
    token = make_token(bob, "closed")
    return wire("closed", token), wire("nobody", token)


def test_a_server_of_others_answers_every_method_as_no_server_does_to_the_last_header(elsewhere):
    params = {"name": "echo", "uri": "file:///notes/1", "taskId": "t"}
    for method in METHODS:
        closed, nobody = (answer_to(client.modern(method, params)) for client in elsewhere)
        assert closed == nobody, method
        assert closed[0] == 404


def test_a_server_of_others_opens_knows_and_ends_no_session(elsewhere):
    opened = [answer_to(client.initialize()) for client in elsewhere]
    assert opened[0] == opened[1] and opened[0][0] == 404
    for client in elsewhere:
        client.session, client.revision = "v1.made.up", "2025-11-25"
    for method in ("tools/list", "tools/call", "ping"):
        asked = [answer_to(client.legacy(method, {"name": "echo"})) for client in elsewhere]
        assert asked[0] == asked[1] and asked[0][0] == 404
    told = [answer_to(client.tell("notifications/initialized")) for client in elsewhere]
    assert told[0] == told[1]
    for verb in ("GET", "DELETE"):
        headers = {"mcp_session_id": "v1.made.up", "mcp_protocol_version": "2025-11-25"}
        heard = [
            client.http.request(verb, client.path, headers=client.headers(**headers))
            for client in elsewhere
        ]
        assert answer_to(heard[0]) == answer_to(heard[1])
        assert heard[0].status_code == 404


# Parts of a Virtual MCP --------------------------------------------------------------------
@pytest.fixture(params=["the only upstream", "one of two"])
def hidden(request, make_virtual_mcp, bob, make_token, wire):
    """What Bob may not see of the server he uses, and names of the same shape that nothing has."""
    with FakeUpstream().serve() as first, FakeUpstream(name="beta").serve() as second:
        alone = request.param == "the only upstream"
        urls = {"beta": second.url} if alone else {"alpha": first.url, "beta": second.url}
        row = make_virtual_mcp("board", urls)
        narrow(row, rule("leads", upstream="beta"))
        theirs = {
            "tool": "echo" if alone else "beta_echo",
            "prompt": "greet" if alone else "beta_greet",
            "uri": "file:///notes/1" if alone else "beta+file:///notes/1",
            "template": "notes://{number}" if alone else "beta+notes://{number}",
        }
        nothing = {
            "tool": "ohce" if alone else "zeta_echo",
            "prompt": "teerg" if alone else "zeta_greet",
            "uri": "file:///seton/1" if alone else "zeta+file:///notes/1",
            "template": "seton://{number}" if alone else "zeta+notes://{number}",
        }
        yield wire("board", make_token(bob, "board")), theirs, nothing, second


CASES = {
    "call": ("tools/call", lambda n: {"name": n["tool"], "arguments": {"text": "hi"}}),
    "prompt": ("prompts/get", lambda n: {"name": n["prompt"], "arguments": {"name": "x"}}),
    "read": ("resources/read", lambda n: {"uri": n["uri"]}),
    "subscribe": ("resources/subscribe", lambda n: {"uri": n["uri"]}),
    "unsubscribe": ("resources/unsubscribe", lambda n: {"uri": n["uri"]}),
    "complete a prompt": (
        "completion/complete",
        lambda n: {
            "ref": {"type": "ref/prompt", "name": n["prompt"]},
            "argument": {"name": "name", "value": "a"},
        },
    ),
    "complete a template": (
        "completion/complete",
        lambda n: {
            "ref": {"type": "ref/resource", "uri": n["template"]},
            "argument": {"name": "number", "value": "1"},
        },
    ),
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("listed_before", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_what_a_group_hides_answers_as_what_is_not_there(hidden, era, case, listed_before):
    client, theirs, nothing, upstream = hidden
    if era == "legacy":
        client.initialize()
    ask = client.modern if era == "modern" else client.legacy
    if listed_before:
        for what in ("tools", "prompts", "resources", "resources/templates"):
            ask(f"{what}/list")
    method, params = CASES[case]
    before = len(upstream.calls(method))
    told = answer_to(ask(method, params(theirs)), *theirs.values())
    assert told == answer_to(ask(method, params(nothing)), *nothing.values())
    if case != "unsubscribe":
        assert '"error"' in told[1]
    assert len(upstream.calls(method)) == before


@pytest.mark.parametrize("era", ERAS)
def test_lists_say_nothing_of_what_is_hidden(era, ada, bob, make_virtual_mcp, make_token, wire):
    with FakeUpstream().serve() as first, FakeUpstream(name="beta").serve() as second:
        row = make_virtual_mcp("board", {"alpha": first.url, "beta": second.url})
        narrow(row, rule("leads", upstream="beta"))
        ada.groups.add(Group.objects.get(name="leads"))
        hers, his = (wire("board", make_token(person, "board")) for person in (ada, bob))
        for client in (hers, his):
            if era == "legacy":
                client.initialize()
        for what, member in (
            ("tools", "tools"),
            ("prompts", "prompts"),
            ("resources", "resources"),
            ("resources/templates", "resourceTemplates"),
        ):
            seen, less = (
                messages((c.modern if era == "modern" else c.legacy)(f"{what}/list"))[-1]["result"]
                for c in (hers, his)
            )
            assert "beta" in json.dumps(seen) and "beta" not in json.dumps(less)
            assert less[member] == [one for one in seen[member] if "beta" not in json.dumps(one)]


def test_a_filter_for_what_is_hidden_is_acknowledged_as_one_for_nothing(hidden):
    client, theirs, nothing, upstream = hidden
    heard = []
    for names_ in (theirs, nothing):
        wanted = {"resourceSubscriptions": [names_["uri"]], "toolsListChanged": True}
        with listen(client, wanted) as stream:
            assert stream.wait(lambda reader: bool(reader.events))
            heard.append(stream.messages[0]["params"]["notifications"])
    assert heard[0] == heard[1]
    assert "resourceSubscriptions" not in heard[0]
    assert upstream.listening == 0


# What was given before the group was lost ----------------------------------------------------
@pytest.fixture(params=["tool", "upstream", "server"])
def losing(request, bob, make_virtual_mcp, make_token, wire):
    """Bob's client, and what takes the group from him that opens a tool, its upstream or all."""
    with making_tasks().serve() as alpha, making_tasks(name="beta").serve() as beta:
        row = make_virtual_mcp("board", {"alpha": alpha.url, "beta": beta.url})
        leads = Group.objects.create(name="leads")
        bob.groups.add(leads)
        if request.param == "server":
            actions.update_virtual_mcp(row, {"audience": "groups"}, groups=[leads], actor=None)
        else:
            tools = ("pending", "ask") if request.param == "tool" else ()
            narrow(row, rule("leads", tools=tools, upstream="beta"))
        client = wire("board", make_token(bob, "board"))
        assert "beta_pending" in names(client, TASKS)
        yield client, beta, bob.groups.clear


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_a_task_of_a_tool_that_was_lost_is_one_that_never_was(losing, method):
    client, beta, lose = losing
    task = started(client, "beta_pending")
    more = {"inputResponses": {}} if method == "tasks/update" else {}

    def asked(one: str) -> Any:
        answer = client.modern(method, {"taskId": one, **more}, meta=TASKS, mcp_name=one)
        return answer_to(answer, one)

    assert '"error"' not in asked(task)[1]
    lose()
    before = len(beta.calls(method))
    assert asked(task) == asked("v1.made.up")
    assert len(beta.calls(method)) == before


def test_an_answer_to_a_tool_that_was_lost_reaches_it_no_more(losing):
    client, beta, lose = losing
    call = {"name": "beta_ask", "arguments": {"question": "Who?"}}
    question = messages(client.modern("tools/call", call, meta=ASKED))[-1]["result"]
    (key,) = question["inputRequests"]
    said = {key: {"action": "accept", "content": {"answer": "Bob"}}}
    retry = {**call, "requestState": question["requestState"], "inputResponses": said}
    lose()
    before = len(beta.calls("tools/call"))
    told = answer_to(client.modern("tools/call", retry, meta=ASKED), "beta_ask")
    unknown = {**retry, "name": "zeta_ask"}
    assert told == answer_to(client.modern("tools/call", unknown, meta=ASKED), "zeta_ask")
    assert len(beta.calls("tools/call")) == before


def test_a_stream_hears_no_more_of_a_task_whose_tool_was_lost(losing):
    client, beta, lose = losing
    task = started(client, "beta_pending")
    with listen(client, {"taskIds": [task]}, meta=TASKS) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        assert stream.messages[0]["params"]["notifications"] == {"taskIds": [task]}
        assert beta.wait(lambda seen: seen.listening == 1)
        lose()
        assert beta.wait(lambda seen: seen.listening == 0)
        assert len(stream.events) == 1 or "notifications/tasks" not in stream.methods
