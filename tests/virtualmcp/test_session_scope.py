"""Who shares a session with a stateful upstream, as the administrator chose (protocol.md 2.3.1)."""

import httpx
import pytest
from django.conf import settings as django_settings

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.answering_client import EVERYTHING, Answering, form
from tests.virtualmcp.wire_client import messages, modern_headers, modern_meta
from upstreams import legacy_sessions
from upstreams.models import Upstream


@pytest.fixture
def stateful():
    """A stateful upstream."""
    with FakeUpstream(era="legacy").serve() as upstream:
        yield upstream


@pytest.fixture
def board(ada, stateful, make_virtual_mcp, make_token, wire):
    """Return a function that makes a client of Ada's, with the upstream's sessions shared so."""
    make_virtual_mcp("board", {"fake": stateful.url})
    token = make_token(ada, "board")

    def make(scope):
        Upstream.objects.update(session_scope=scope)
        client = wire("board", token)
        client.initialize()
        return client

    return make


def call(client, tool="echo", **arguments):
    """Call a tool as a stateful client."""
    return messages(client.legacy("tools/call", {"name": tool, "arguments": arguments}))[-1]


def sessions_of_calls(upstream):
    """Return the session that each call came in."""
    seen = [one for one in upstream.requests if one.message.get("method") == "tools/call"]
    return [one.headers["mcp-session-id"] for one in seen]


def test_a_persons_clients_share_a_session_unless_they_are_to_have_their_own(board, stateful):
    first, second = board("person"), board("person")
    for client in (first, second):
        assert "result" in call(client, text="x")
    assert len(set(sessions_of_calls(stateful))) == 1


def test_what_an_upstream_remembers_is_one_client_sessions_own(board, stateful, http):
    first, second = board("client"), board("client")
    for client in (first, second, first, second):
        assert "result" in call(client, text="x")
    one, other, again, once_more = sessions_of_calls(stateful)
    assert (one, other) == (again, once_more)
    assert one != other
    # A stateless client has no session: its calls are of the client that it is.
    for _ in range(2):
        assert first.modern("tools/call", {"name": "echo", "arguments": {}}).status_code == 200
    stateless = sessions_of_calls(stateful)[4:]
    assert len(set(stateless)) == 1 and stateless[0] not in (one, other)
    # The upstream's session goes with the client's, and the others stay.
    http.delete(first.path, headers=first.headers(**first.session_headers()))
    assert stateful.wait(lambda up: one in up.deleted)
    assert "result" in call(second, text="y")
    assert sessions_of_calls(stateful)[-1] == other
    assert stateful.deleted == [one]


def test_a_session_of_one_client_outlives_the_idle_time_of_shared_ones(board, stateful):
    client = board("client")
    call(client, text="x")
    (pool,) = [found for found in legacy_sessions._sessions.values() if found._open]
    for session in pool._open.values():
        session.last_used -= legacy_sessions.IDLE_SECONDS + 1
    pool._loop.call_soon_threadsafe(pool._end_idle)
    call(client, text="y")
    assert len(set(sessions_of_calls(stateful))) == 1


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_each_call_may_have_a_session_that_ends_with_it(board, stateful, era):
    client = board("call")
    for _ in range(2):
        if era == "legacy":
            assert "result" in call(client, text="x")
        else:
            client.modern("tools/call", {"name": "echo", "arguments": {}})
    used = sessions_of_calls(stateful)
    assert len(set(used)) == 2
    assert stateful.wait(lambda up: set(used) <= set(up.deleted))


def test_who_leaves_a_call_ends_it_and_the_session_it_had_for_itself(board, stateful, gateway):
    client = board("call")
    params = {"name": "hang", "arguments": {}, "_meta": modern_meta()}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {**client.headers(), **modern_headers("tools/call", params)}
    headers["host"] = django_settings.PUBLIC_HOST
    with (
        httpx.Client(base_url=gateway, timeout=1) as impatient,
        pytest.raises(httpx.ReadTimeout),
    ):
        impatient.post(client.path, json=message, headers=headers)
    assert stateful.wait(lambda up: "cancelled:hang" in up.events, 10)
    (used,) = sessions_of_calls(stateful)
    assert stateful.wait(lambda up: used in up.deleted, 10)


@pytest.mark.parametrize("scope", ["client", "call"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_question_in_a_session_of_its_own_is_answered_before_it_ends(
    board, stateful, make_token, ada, wire, era, scope
):
    board(scope)
    client = wire("board", make_token(ada, "board"))
    client.initialize(capabilities=EVERYTHING)
    answering = Answering(client, era, capabilities=EVERYTHING)
    answer = answering.call("interview", {"rounds": [[form("Name?")], [form("Again?")]]})
    assert "result" in answer
    if scope == "call":
        assert stateful.wait(lambda up: set(sessions_of_calls(up)) <= set(up.deleted))
    assert stateful.events.count("finished:interview") == 1
