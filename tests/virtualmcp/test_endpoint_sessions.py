"""Stateful clients over the endpoint: opening, ending, batches, levels, and other people's ids."""

import json

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.wire_client import MODERN, messages
from virtualmcp.eras import era_in


@pytest.fixture
def board(ada, make_virtual_mcp, make_token, wire):
    """A client of a Virtual MCP over one upstream."""
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        yield wire("board", make_token(ada, "board"))


def test_initialize_answers_with_the_revision_and_what_is_served(board):
    response = board.initialize()
    result = response.json()["result"]
    assert result["protocolVersion"] == "2025-11-25"
    assert "tools" in result["capabilities"]
    assert result["serverInfo"]["name"]
    assert board.session.isascii()
    assert len(board.session) >= 64


@pytest.mark.parametrize(
    ("asked", "answered"),
    [(MODERN, "2025-11-25"), ("2024-11-05", "2024-11-05"), ("2025-03-26", "2025-03-26")],
)
def test_every_stateful_revision_can_list_tools(board, asked, answered):
    board.initialize(asked)
    assert board.revision == answered
    tools = messages(board.legacy("tools/list"))[0]["result"]["tools"]
    assert "echo" in [tool["name"] for tool in tools]


@pytest.mark.parametrize("params", [{"protocolVersion": 7}, {"protocolVersion": None}])
def test_initialize_without_a_revision_has_invalid_params(board, params):
    response = board.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32602)


def test_a_client_that_takes_only_events_gets_one(board):
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}},
    }
    response = board.post(message, accept="text/event-stream")
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["mcp-session-id"]
    assert messages(response)[0]["result"]["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "application/*"])
def test_a_client_that_takes_json_gets_json(board, accept):
    board.initialize()
    response = board.legacy("ping", accept=accept)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["result"] == {}


@pytest.mark.parametrize("version", ["2025-11-25", ""])
def test_a_stateful_request_without_its_session_is_a_400(board, version):
    """ChatGPT was seen to speak 2025-11-25 without a session id (clients.md 1.2)."""
    board.initialize()
    response = board.legacy("tools/list", mcp_session_id="", mcp_protocol_version=version)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == -32600
    assert "initialize" in response.json()["error"]["message"]


def test_a_client_that_probes_and_falls_back_gets_its_tools(board):
    """The journey recorded for ChatGPT: discover, initialize, initialized, list, call."""
    assert board.modern("server/discover").status_code == 200
    board.initialize()
    board.tell("notifications/initialized")
    assert messages(board.legacy("tools/list"))[0]["result"]["tools"]
    called = board.legacy("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    assert messages(called)[0]["result"]["content"][0]["text"] == "x"


def test_an_ended_session_is_gone(board, http):
    board.initialize()
    headers = board.headers(**board.session_headers())
    assert http.delete(board.path, headers=headers).status_code == 204
    assert board.legacy("tools/list").status_code == 404
    assert http.delete(board.path, headers=headers).status_code == 404
    era_in.forget()
    assert board.legacy("tools/list").status_code == 404
    assert board.initialize().status_code == 200


def test_ending_a_session_needs_its_owner(board, bob, make_token, http, wire):
    board.initialize()
    assert http.delete(board.path, headers={"mcp-session-id": board.session}).status_code == 401
    other = wire("board", make_token(bob, "board"))
    headers = other.headers(mcp_session_id=board.session)
    assert http.delete(board.path, headers=headers).status_code == 404
    assert board.legacy("ping").status_code == 200


def test_a_session_of_another_person_or_server_is_unknown(
    ada, board, bob, make_virtual_mcp, make_token, wire
):
    make_virtual_mcp("another")
    board.initialize()
    for client in (
        wire("board", make_token(bob, "board")),
        wire("another", make_token(ada, "another")),
    ):
        client.session, client.revision = board.session, board.revision
        response = client.legacy("ping")
        assert response.status_code == 404
        assert "initialize" in response.json()["message"]


@pytest.mark.parametrize("session", ["x", "v1.a.b", "a" * 10_000, "v1.00000000." + "A" * 200])
def test_a_guessed_session_is_unknown(board, session):
    board.session, board.revision = session, "2025-11-25"
    assert board.legacy("ping").status_code == 404


def test_a_stateless_request_ignores_a_session_and_gets_none(board):
    response = board.modern("server/discover", mcp_session_id="dead", last_event_id="1")
    assert response.status_code == 200
    assert "mcp-session-id" not in response.headers


def test_discover_tells_what_is_served(board):
    result = board.modern("server/discover").json()["result"]
    assert result["resultType"] == "complete"
    assert result["supportedVersions"][0] == MODERN
    assert result["cacheScope"] == "private"
    assert result["ttlMs"] >= 0
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]
    assert result["capabilities"]["tools"] == {"listChanged": True}


@pytest.mark.parametrize(
    "method",
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "rpc.x", "x" * 10_000],
)
def test_a_method_the_stateless_revision_lacks_is_404(board, method):
    response = board.modern(method)
    assert (response.status_code, response.json()["error"]["code"]) == (404, -32601)


@pytest.mark.parametrize("method", ["subscriptions/listen", "__proto__", "x" * 10_000])
def test_a_method_a_stateful_session_lacks_is_an_error_with_status_200(board, method):
    board.initialize()
    response = board.legacy(method)
    assert (response.status_code, response.json()["error"]["code"]) == (200, -32601)


@pytest.mark.parametrize("id", ["a", "", 0, -1, 2**53 + 1, 10**25, "x" * 1_000])
def test_an_answer_repeats_the_id(board, id):
    board.initialize()
    said = board.legacy("ping", id=id).json()
    assert (said["id"], set(said)) == (id, {"jsonrpc", "id", "result"})
    refused = board.legacy("vendor/method", id=id).json()
    assert (refused["id"], set(refused)) == (id, {"jsonrpc", "id", "error"})
    assert type(refused["error"]["code"]) is int


def test_notifications_are_accepted_and_go_nowhere(board):
    board.initialize()
    for method in ("notifications/initialized", "notifications/unknown", "notifications/cancelled"):
        response = board.tell(method, {"requestId": "nothing", "huge": "x" * 10_000})
        assert (response.status_code, response.content) == (202, b"")
    stray = {"jsonrpc": "2.0", "id": "unasked", "result": {}}
    assert board.post(stray, **board.session_headers()).status_code == 202


def test_a_stateless_client_may_notify_but_not_respond(board):
    notice = {"jsonrpc": "2.0", "method": "notifications/x"}
    assert board.post(notice, mcp_protocol_version=MODERN).status_code == 202
    stray = {"jsonrpc": "2.0", "id": "unasked", "result": {}}
    assert board.post(stray, mcp_protocol_version=MODERN).status_code == 400


def test_a_log_level_must_be_one(board):
    board.initialize()
    assert board.legacy("logging/setLevel", {"level": "warning"}).json()["result"] == {}
    for level in ("loud", 3, None):
        response = board.legacy("logging/setLevel", {"level": level})
        assert response.json()["error"]["code"] == -32602


def test_a_batch_is_served_in_the_one_revision_that_has_them(board):
    board.initialize("2025-03-26")
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {
            "jsonrpc": "2.0",
            "id": "two",
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"text": "x"}},
        },
        {"jsonrpc": "2.0", "id": 3, "method": "nonsense"},
        {"jsonrpc": "2.0", "id": 4, "method": "initialize"},
        {"id": 5},
    ]
    answers = {a["id"]: a for a in board.post(batch, mcp_session_id=board.session).json()}
    assert answers[1]["result"] == {}
    assert answers["two"]["result"]["content"][0]["text"] == "x"
    assert answers[3]["error"]["code"] == -32601
    assert answers[4]["error"]["code"] == -32600
    assert answers[5]["error"]["code"] == -32600
    assert len(answers) == 5


def test_a_batch_of_notifications_is_accepted(board):
    board.initialize("2025-03-26")
    batch = [{"jsonrpc": "2.0", "method": "notifications/initialized"}]
    assert board.post(batch, mcp_session_id=board.session).status_code == 202


@pytest.mark.parametrize("count", [0, 51, 10_000])
def test_a_batch_is_bounded(board, count):
    board.initialize("2025-03-26")
    batch = [{"jsonrpc": "2.0", "id": n, "method": "ping"} for n in range(count)]
    assert board.post(batch, mcp_session_id=board.session).status_code == 400


def test_other_revisions_have_no_batches(board):
    board.initialize("2025-06-18")
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}]
    for headers in (board.session_headers(), {"mcp_session_id": board.session}):
        response = board.post(batch, **headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32600)


def test_capabilities_beyond_measure_are_refused(board):
    capabilities = {"experimental": {str(n): {} for n in range(1_000)}}
    response = board.initialize(capabilities=capabilities)
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32602)


def test_a_fault_of_the_gateway_is_said_and_not_shown(board, monkeypatch):
    from virtualmcp.routing import method_table

    async def broken(request, sink):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(method_table, "answer", broken)
    response = board.modern("tools/list")
    assert (response.status_code, response.json()["error"]["code"]) == (500, -32603)
    assert "secret" not in json.dumps(response.json())
