"""The endpoint relays calls of both eras, over real sockets."""

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.wire_client import messages


@pytest.fixture
def board(ada, make_virtual_mcp, make_token, wire):
    """A client of a Virtual MCP over one upstream."""
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        client = wire("board", make_token(ada, "board"))
        client.upstream = upstream
        yield client


def test_a_stateless_call_is_answered_as_json(board):
    response = board.modern("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json()["result"]["content"] == [{"type": "text", "text": "hi"}]


def test_a_stateful_client_opens_a_session_and_calls(board):
    opened = board.initialize()
    assert opened.status_code == 200
    assert board.tell("notifications/initialized").status_code == 202
    response = board.legacy("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
    assert response.status_code == 200, response.text
    assert messages(response)[0]["result"]["content"] == [{"type": "text", "text": "hi"}]
