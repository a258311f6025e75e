"""Sessions with stateful upstreams are the same in every process (protocol.md 2.5 S3)."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.fakes.asgi_server import serve
from tests.fakes.mcp_catalogue import COUNT
from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.journeys.counting_server import counting_app
from tests.journeys.two_nodes import Nodes, Served, two_nodes_over
from tests.running_gateway import another_node
from tests.virtualmcp.answering_client import EVERYTHING, REPLIES, Answering, form
from tests.virtualmcp.stream_reader import get_stream, until
from tests.virtualmcp.wire_client import WireClient, messages

# Starts several processes, and leases of dead ones have to run out.
pytestmark = pytest.mark.timeout(300)

SCOPES = ("person", "client")
TOOLS, UPDATED = "notifications/tools/list_changed", "notifications/resources/updated"
NOTE = "file:///notes/1"


@dataclass
class Official:
    """A server made with the official SDK."""

    url: str
    era: str = "legacy"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Run two processes over stateful upstreams that keep something in their sessions."""
    with contextlib.ExitStack() as stack:
        ups = {
            scope: stack.enter_context(
                FakeUpstream(era="legacy", name=scope, one_stream=True).serve()
            )
            for scope in SCOPES
        }
        for up in ups.values():
            up.tools.append(COUNT)
        official = stack.enter_context(serve(counting_app(Counter()), lifespan=True))
        further = {scope: {"session_scope": scope} for scope in SCOPES}
        served: dict[str, Served] = {**ups, "official": Official(f"{official}/mcp")}
        yield stack.enter_context(two_nodes_over(served, further))


def connected(nodes: Nodes, scope: str, base: str) -> WireClient:
    """Return a client with a session of the gateway, that can't be asked anything."""
    client = WireClient(nodes.http(base), scope, nodes.tokens[scope])
    client.initialize()
    return client


def count(client: WireClient) -> int:
    """Return how often ``count`` was called in the upstream's session."""
    answer = messages(client.legacy("tools/call", {"name": "count", "arguments": {}}))[-1]
    assert "result" in answer, answer
    return int(answer["result"]["content"][0]["text"])


def in_turn(nodes: Nodes, client: WireClient) -> Iterator[None]:
    """Have the client's next requests meet one process, then the other, and so on."""
    while True:
        for node in (nodes.first, nodes.second):
            client.http = nodes.http(node.listening)
            yield


@pytest.mark.parametrize("scope", SCOPES)
def test_what_an_upstream_keeps_in_its_session_is_there_whichever_process_is_met(
    nodes: Nodes, scope: str
) -> None:
    up, client = nodes.upstreams[scope], connected(nodes, scope, nodes.proxy)
    before, opened = count(client), len(up.initialized)
    assert [count(client) for _ in range(6)] == list(range(before + 1, before + 7))
    assert len(set(nodes.balancer.served[-6:])) == 2
    assert len(up.initialized) == opened
    # In one session no id of a request comes twice, whichever process sent it.
    seen = [
        (one.headers["mcp-session-id"], one.message["id"])
        for one in up.requests
        if "mcp-session-id" in one.headers and "id" in one.message
    ]
    assert len(set(seen)) == len(seen)


def test_a_server_of_the_official_sdk_keeps_one_session_for_both_processes(nodes: Nodes) -> None:
    clients = [
        connected(nodes, "official", base)
        for base in (nodes.first.listening, nodes.second.listening)
    ]
    with get_stream(clients[0]), get_stream(clients[1]):
        assert [count(client) for client in clients * 3] == [1, 2, 3, 4, 5, 6]


def test_processes_that_begin_at_the_same_moment_open_one_session(nodes: Nodes) -> None:
    up = nodes.upstreams["client"]
    client = connected(nodes, "client", nodes.proxy)
    before = len(up.initialized)
    clients = [
        WireClient(nodes.http(base), "client", client.token)
        for base in (nodes.first.listening, nodes.second.listening) * 4
    ]
    counted: list[int] = []

    def call(one: WireClient) -> None:
        one.session = client.session
        counted.append(count(one))

    calls = [threading.Thread(target=call, args=(one,)) for one in clients]
    for thread in calls:
        thread.start()
    for thread in calls:
        thread.join(60)
    assert sorted(counted) == list(range(1, 9))
    assert len(up.initialized) == before + 1


@pytest.mark.parametrize("scope", SCOPES)
def test_a_session_that_the_upstream_forgot_is_opened_anew_once_for_all(
    nodes: Nodes, scope: str
) -> None:
    up, client = nodes.upstreams[scope], connected(nodes, scope, nodes.proxy)
    turns = in_turn(nodes, client)
    for _ in range(2):
        next(turns)
        count(client)
    opened = len(up.initialized)
    up.forget_sessions()
    counted = []
    for _ in range(4):
        next(turns)
        counted.append(count(client))
    assert counted == [1, 2, 3, 4]
    assert len(up.initialized) == opened + 1


def test_a_session_outlives_the_process_that_opened_it(nodes: Nodes) -> None:
    up = nodes.upstreams["client"]
    with another_node(nodes.first) as third:
        client = connected(nodes, "client", third.listening)
        assert count(client) == 1
        opened = len(up.initialized)
        assert third.process is not None
        third.process.kill()
        third.process.wait(10)
    client.http = nodes.http(nodes.proxy)
    assert [count(client) for _ in range(3)] == [2, 3, 4]
    assert len(up.initialized) == opened


def test_a_process_that_dies_while_it_opens_a_session_is_waited_for_only_a_moment(
    nodes: Nodes,
) -> None:
    up = nodes.upstreams["client"]
    with another_node(nodes.first) as third:
        client = connected(nodes, "client", third.listening)
        up.script.append(Canned(200, b"", delay=60.0))
        before = len(up.calls("initialize"))

        def call() -> None:
            with contextlib.suppress(httpx.HTTPError):
                client.legacy("tools/call", {"name": "count", "arguments": {}})

        dying = threading.Thread(target=call)
        dying.start()
        assert up.wait(lambda u: len(u.calls("initialize")) > before)
        assert third.process is not None
        third.process.kill()
        third.process.wait(10)
        dying.join(30)
    client.http = nodes.http(nodes.proxy)
    assert [count(client) for _ in range(3)] == [1, 2, 3]


def test_a_process_that_stops_leaves_a_session_to_those_who_use_it(nodes: Nodes) -> None:
    up = nodes.upstreams["client"]
    with another_node(nodes.first) as third:
        client = connected(nodes, "client", third.listening)
        assert count(client) == 1
        session = up.last_headers("tools/call")["mcp-session-id"]
        client.http = nodes.http(nodes.first.listening)
        assert count(client) == 2
    assert session not in up.deleted
    assert count(client) == 3
    with another_node(nodes.first) as third:
        other = connected(nodes, "client", third.listening)
        assert count(other) == 1
        alone = up.last_headers("tools/call")["mcp-session-id"]
    # Nobody else used that one.
    assert alone in up.deleted


def test_the_upstream_is_told_once_that_a_clients_session_is_over(nodes: Nodes) -> None:
    up, client = nodes.upstreams["client"], connected(nodes, "client", nodes.proxy)
    turns = in_turn(nodes, client)
    for expected in (1, 2):
        next(turns)
        assert count(client) == expected
    session = up.last_headers("tools/call")["mcp-session-id"]
    headers = client.headers(**client.session_headers())
    assert client.http.delete(client.path, headers=headers).status_code in (200, 204)
    assert up.wait(lambda u: session in u.deleted)
    # By then every process has heard of it.
    other = connected(nodes, "client", nodes.proxy)
    for _ in range(2):
        assert count(other)
    ends = [one for one in up.requests if one.http == "DELETE"]
    assert [one.headers["mcp-session-id"] for one in ends].count(session) == 1


def test_one_process_holds_the_sessions_stream_and_clients_of_all_hear_by_it(nodes: Nodes) -> None:
    up = nodes.upstreams["person"]
    bases = (nodes.first.listening, nodes.second.listening)
    clients = [connected(nodes, "person", base) for base in bases]
    with contextlib.ExitStack() as streams:
        readers = [streams.enter_context(get_stream(one)) for one in clients]
        for one in clients:
            assert messages(one.legacy("resources/subscribe", {"uri": NOTE}))[0]["result"] == {}
        assert up.wait(lambda u: u.listening == 1)
        up.tools.append({"name": "new", "inputSchema": {"type": "object"}})
        up.announce(TOOLS)
        up.announce(UPDATED, {"uri": NOTE})
        for reader in readers:
            assert reader.heard(TOOLS) and reader.heard(UPDATED)
        # What one wants no more is still told to the other.
        clients[0].legacy("resources/unsubscribe", {"uri": NOTE})
        readers[1].events.clear()

        def told() -> bool:
            up.announce(UPDATED, {"uri": NOTE})
            return readers[1].wait(lambda r: UPDATED in r.methods, 0.5)

        assert until(told, 20)
        assert NOTE in up.subscribed
    assert "second stream" not in up.events


def asking(nodes: Nodes, scope: str, node: int) -> Answering:
    """Return a client that can be asked, at one of the two processes."""
    base = (nodes.first.listening, nodes.second.listening)[node]
    client = WireClient(nodes.http(base), scope, nodes.tokens[scope])
    client.initialize(capabilities=EVERYTHING)
    return Answering(client, "legacy")


def ask_on_stream(up: FakeUpstream, question: str) -> None:
    """Ask on the stream of a session, as widely used servers do beside a call."""
    asked = form("Which?")
    up.announce_raw({"jsonrpc": "2.0", "id": question, **asked})


def answer_of(up: FakeUpstream, question: str) -> dict[str, object]:
    """Wait for the answer to a question."""
    assert up.wait(lambda u: u.answer_to(question) is not None)
    answer = up.answer_to(question)
    assert answer is not None
    return answer


def hang(client: Answering) -> "contextlib.AbstractContextManager[Iterator[object]]":
    """Begin a call that does not end by itself."""
    return client.stream({"name": "hang", "arguments": {}})


@pytest.mark.parametrize("holder", [0, 1])
def test_a_question_beside_a_call_meets_its_client_whichever_process_has_the_stream(
    nodes: Nodes, holder: int
) -> None:
    up, client = nodes.upstreams["client"], asking(nodes, "client", holder)
    # The process of the first call holds the stream of the session, the next runs in the other.
    assert count(client.client) == 1
    assert up.wait(lambda u: u.listening >= 1)
    client.client.http = nodes.http((nodes.second, nodes.first)[holder].listening)
    assert count(client.client) == 2
    hung = len(_running(up))
    with hang(client) as arriving:
        assert up.wait(lambda u: len(_running(u)) > hung)
        ask_on_stream(up, f"beside-{holder}")
        asked = next(iter(arriving))
        assert isinstance(asked, dict) and asked["method"] == "elicitation/create"
        assert client.respond(asked).status_code == 202
        answer = answer_of(up, f"beside-{holder}")
        assert answer["result"] == REPLIES["elicitation/create"]
        # One that is taken back leaves the client's screen in the other process too.
        ask_on_stream(up, f"withdrawn-{holder}")
        asked = next(iter(arriving))
        taken_back = {
            "method": "notifications/cancelled",
            "params": {"requestId": f"withdrawn-{holder}"},
        }
        up.announce_raw({"jsonrpc": "2.0", **taken_back})
        over = next(iter(arriving))
        assert isinstance(over, dict) and over["method"] == "notifications/cancelled"
    assert "second stream" not in up.events
    client.client.http.delete(
        client.client.path, headers=client.client.headers(**client.client.session_headers())
    )
    assert up.wait(lambda u: not u.listening)


def test_calls_of_two_clients_in_two_processes_leave_it_open_who_is_asked(nodes: Nodes) -> None:
    up = nodes.upstreams["person"]
    first, second = asking(nodes, "person", 0), asking(nodes, "person", 1)
    for client in (first, second):
        count(client.client)
    with hang(first), hang(second):
        assert up.wait(lambda u: len(_running(u)) == 2)
        ask_on_stream(up, "whose")
        error = answer_of(up, "whose")["error"]
    assert isinstance(error, dict) and error["code"] == -32603
    assert "several clients" in error["message"]


def _running(up: FakeUpstream) -> list[str]:
    return [one for one in up.events if one == "started:hang"]
