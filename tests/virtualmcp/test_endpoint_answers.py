"""What holds for the answers of every method, to clients of both eras (protocol.md 1(a)).

What every answer to a stateless client keeps to besides is asserted by ``WireClient`` itself.
"""

import base64
import json
import time
from types import SimpleNamespace

import pytest

from tests.virtualmcp.answering_client import form
from tests.virtualmcp.stream_reader import get_stream
from tests.virtualmcp.wire_client import META, MODERN, messages, modern_meta
from upstreams.revisions import SUPPORTED
from virtualmcp.eras import era_in
from virtualmcp.models import UpstreamChoice
from virtualmcp.routing import sealed_state
from virtualmcp.routing.relay_bindings import LIFETIME

ERAS = ("modern", "legacy")
UNKNOWN = "9999-01-01"
FILE, NOWHERE = "file:///notes/1", "none:1"
PROMPT = {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "n", "value": ""}}
CACHED = {
    "tools/list": {},
    "prompts/list": {},
    "resources/list": {},
    "resources/templates/list": {},
    "resources/read": {"uri": FILE},
}
CALLED = {
    "tools/call": {"name": "echo", "arguments": {"text": "x"}},
    "prompts/get": {"name": "greet", "arguments": {"name": "Ada"}},
    "completion/complete": PROMPT,
}


@pytest.mark.parametrize(
    ("method", "params"), [*CACHED.items(), *CALLED.items(), ("server/discover", {})]
)
def test_every_result_is_typed_signed_and_hinted_where_it_can_be_kept(board, method, params):
    """(a3, a7, a40)"""
    result = board.modern(method, params).json()["result"]
    assert result["resultType"] == "complete"
    assert result["_meta"][META + "serverInfo"]["name"] == "board"
    kept = method in CACHED or method == "server/discover"
    assert ("ttlMs" in result, "cacheScope" in result) == (kept, kept)
    if kept:
        assert type(result["ttlMs"]) is int and result["ttlMs"] >= 0
        assert result["cacheScope"] == "private"


def test_a_question_in_place_of_a_result_may_not_be_kept(board):
    """(a40)"""
    able = modern_meta(**{META + "clientCapabilities": {"elicitation": {"form": {}}}})
    params = {"name": "interview", "arguments": {"rounds": [[form("Who?")]]}}
    result = messages(board.modern("tools/call", params, meta=able))[-1]["result"]
    assert result["resultType"] == "input_required"
    assert not {"ttlMs", "cacheScope"} & set(result)


@pytest.mark.parametrize(
    "how", ["tampered", "other tool", "other arguments", "other method", "other server", "too late"]
)
def test_what_was_asked_is_answered_for_its_own_request_alone(
    ada, board, upstream, make_virtual_mcp, make_token, wire, monkeypatch, how
):
    """(a43)"""
    able = modern_meta(**{META + "clientCapabilities": {"elicitation": {"form": {}}}})
    params = {"name": "interview", "arguments": {"rounds": [[form("Who?")]]}}
    asked = messages(board.modern("tools/call", params, meta=able))[-1]["result"]
    (key,) = asked["inputRequests"]
    answers = {key: {"action": "accept", "content": {"answer": "Ada"}}}
    retry = {**params, "requestState": asked["requestState"], "inputResponses": answers}
    client, method, wrong = board, "tools/call", dict(retry)
    if how == "tampered":
        wrong["requestState"] = retry["requestState"][:-2] + "xx"
    elif how == "other tool":
        wrong["name"] = "echo"
    elif how == "other arguments":
        wrong["arguments"] = {"rounds": []}
    elif how == "other method":
        method, wrong["name"] = "prompts/get", "greet"
    elif how == "other server":
        make_virtual_mcp("another", {"fake": upstream.url})
        client = wire("another", make_token(ada, "another"))
    with monkeypatch.context() as patch:
        if how == "too late":
            later = time.time() + LIFETIME + 1
            patch.setattr(sealed_state, "time", SimpleNamespace(time=lambda: later))
        response = client.modern(method, wrong, meta=able)
    assert messages(response)[-1]["error"]["code"] == -32602
    assert "finished:interview" not in upstream.events
    good = messages(board.modern("tools/call", retry, meta=able))[-1]["result"]
    assert json.loads(good["content"][0]["text"]) == [answers[key]]


@pytest.mark.parametrize(("method", "params"), [*CACHED.items(), *CALLED.items()])
def test_a_stateful_client_gets_none_of_the_members_of_the_other_era(board, method, params):
    """(a3)"""
    result = messages(board.legacy(method, params))[0]["result"]
    assert not {"resultType", "ttlMs", "cacheScope"} & set(result)
    assert META + "serverInfo" not in json.dumps(result)


@pytest.mark.parametrize("id", ["a", "", 0, -1, 2**53 + 1, 10**25])
@pytest.mark.parametrize(
    ("method", "outcome"), [("tools/list", "result"), ("vendor/method", "error")]
)
def test_a_stateless_answer_repeats_the_id(board, id, method, outcome):
    """(a1)"""
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": {"_meta": modern_meta()}}
    answer = board.post(message, mcp_protocol_version=MODERN, mcp_method=method).json()
    assert (answer["id"], set(answer)) == (id, {"jsonrpc", "id", outcome})
    assert type(answer["id"]) is type(id)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("era", ERAS)
def test_answers_are_utf_8_in_either_form(board, era, accept):
    """(a2)"""
    said = "é 日本 \U0001f600"
    params = {"name": "echo", "arguments": {"text": said}}
    response = getattr(board, era)("tools/call", params, accept=accept)
    assert said in response.content.decode("utf-8") or json.dumps(said)[1:-1] in response.text
    assert messages(response)[0]["result"]["content"][0]["text"] == said


@pytest.mark.parametrize(
    ("stated", "header", "code"),
    [
        (UNKNOWN, UNKNOWN, -32022),
        (UNKNOWN, MODERN, -32020),
        (UNKNOWN, "", -32020),
        (MODERN, UNKNOWN, -32020),
        (None, UNKNOWN, -32022),
    ],
)
def test_a_revision_nobody_knows_is_refused_wherever_it_is_named(board, stated, header, code):
    """(a13, a29)"""
    meta = {} if stated is None else modern_meta(**{META + "protocolVersion": stated})
    response = board.modern("tools/list", meta=meta, mcp_protocol_version=header)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, code)
    if code == -32022:
        assert error["data"] == {"supported": list(SUPPORTED), "requested": UNKNOWN}


@pytest.mark.parametrize("version", [UNKNOWN, "2025-11", "x"])
def test_a_session_does_not_act_for_a_revision_nobody_knows(board, http, version):
    """(a13)"""
    headers = board.headers(
        mcp_session_id=board.session, mcp_protocol_version=version, accept="text/event-stream"
    )
    for method in ("GET", "DELETE"):
        response = http.request(method, board.path, headers=headers)
        assert response.status_code == 400, method
        assert response.json()["error"]["code"] == -32022
    assert board.legacy("ping", mcp_protocol_version=version).status_code == 400
    # It has not been ended.
    assert board.legacy("ping").status_code == 200


@pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18", "2025-03-26"])
def test_a_session_goes_on_without_the_header(board, revision):
    """(a14): clients of 2025-03-26 do not know it."""
    board.initialize(revision)
    assert board.legacy("ping", mcp_protocol_version="").json()["result"] == {}


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "OPTIONS"])
@pytest.mark.parametrize("era", ERAS)
def test_a_foreign_page_gets_nothing_by_any_method(board, http, era, method):
    """(a16)"""
    named = board.session_headers() if era == "legacy" else {"mcp_protocol_version": MODERN}
    headers = board.headers(origin="https://evil.example", accept="text/event-stream", **named)
    assert http.request(method, board.path, headers=headers).status_code == 403
    assert board.legacy("ping").status_code == 200


def test_a_session_id_is_visible_ascii_and_of_its_session_alone(board):
    """(a26)"""
    first = board.session
    board.initialize()
    assert all(0x21 <= ord(character) <= 0x7E for character in first + board.session)
    assert first != board.session


def test_a_session_outlives_the_rotation_of_its_key_and_ends_with_the_key(board, settings):
    """(2.5)"""
    first, second = (base64.urlsafe_b64encode(bytes(range(n, n + 32))).decode() for n in (0, 1))
    statuses = []
    settings.GATEWAY_ENCRYPTION_KEYS = [first]
    board.initialize()
    for keys in ([second, first], [second]):
        settings.GATEWAY_ENCRYPTION_KEYS = keys
        era_in.forget()
        statuses.append(board.legacy("tools/list").status_code)
    assert statuses == [200, 404]
    assert board.initialize().status_code == 200


def test_a_calls_answer_comes_on_its_own_stream_only(board):
    """(a24)"""
    params = {"name": "slow", "arguments": {"steps": 2}, "_meta": {"progressToken": "p"}}
    with get_stream(board) as stream:
        assert [*messages(board.legacy("tools/call", params))[-1]] == ["jsonrpc", "id", "result"]
        assert stream.wait(lambda reader: bool(reader.primed))
        assert stream.messages == []


def test_the_events_of_two_streams_of_a_session_have_ids_of_their_own(board):
    """(a25)"""
    params = {"name": "slow", "arguments": {"steps": 3}, "_meta": {"progressToken": "p"}}
    ids = [
        line
        for _ in range(2)
        for line in board.legacy("tools/call", params).text.splitlines()
        if line.startswith("id: ")
    ]
    assert len(ids) >= 8
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("era", ERAS)
def test_a_tool_that_is_not_offered_is_not_called(board, upstream, era):
    """(a32)"""
    UpstreamChoice.objects.update(tool_mode="chosen", chosen_tools=["echo"])
    from virtualmcp import route_table

    route_table.forget()
    error = getattr(board, era)("tools/call", {"name": "slow", "arguments": {}}).json()["error"]
    assert error["code"] == -32602
    assert not upstream.calls("tools/call")
    assert [t["name"] for t in messages(board.legacy("tools/list"))[0]["result"]["tools"]] == [
        "echo"
    ]


@pytest.mark.parametrize("accept", ["text/html", "image/*"])
def test_a_batch_too_is_answered_only_to_who_takes_its_form(board, accept):
    board.initialize("2025-03-26")
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}]
    response = board.post(batch, mcp_session_id=board.session, accept=accept)
    assert response.status_code == 406


@pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18"])
def test_only_the_revision_that_has_batches_takes_them(board, revision):
    """(a27): the stateless one is asked in ``test_endpoint_gate``."""
    board.initialize(revision)
    batch = [{"jsonrpc": "2.0", "id": 1, "method": "ping"}]
    response = board.post(batch, mcp_session_id=board.session)
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32600)


@pytest.mark.parametrize("era", ERAS)
def test_an_empty_cursor_begins_at_the_beginning(board, era):
    """(a39)"""
    ask = getattr(board, era)
    first, again = (
        messages(ask("tools/list", {**cursor}))[0]["result"] for cursor in ({}, {"cursor": ""})
    )
    assert first["tools"] and first["tools"] == again["tools"]


@pytest.mark.parametrize(("era", "code"), [("modern", -32602), ("legacy", -32002)])
def test_a_resource_of_nobody_is_an_error_of_the_call_and_not_of_http(board, era, code):
    """(a38)"""
    response = getattr(board, era)("resources/read", {"uri": NOWHERE})
    assert (response.status_code, response.json()["error"]["code"]) == (200, code)


def test_a_task_is_named_in_its_header(board):
    """(a50)"""
    able = modern_meta(**{META + "clientCapabilities": {"extensions": {META + "tasks": {}}}})
    for name in ("", "another"):
        response = board.modern("tasks/get", {"taskId": "x"}, meta=able, mcp_name=name)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)
