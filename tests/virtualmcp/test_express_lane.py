"""The express lane of a warm call: it answers as the endpoint does, or not at all."""

import json
import time
from contextlib import ExitStack

import pytest
from asgiref.sync import SyncToAsync
from django.db.backends.utils import CursorWrapper
from oauth2_provider.models import get_access_token_model

from oauthserver import bearer_tokens
from tests.fakes.asgi_server import serve
from tests.fakes.mcp_upstream import FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp.background_writes import settle
from tests.virtualmcp.express_client import (
    CountingLane,
    RawClient,
    call_request,
    read_request,
)
from upstreams import call_gate
from virtualmcp import (
    call_log,
    person_view,
    rate_limits,
    route_table,
)
from virtualmcp.models import VirtualMcp
from virtualmcp.transport import express_lane

ERAS = ("modern", "legacy")


@pytest.fixture
def lane(monkeypatch):
    """The lane, patient enough for a busy machine."""
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", 10.0)
    return CountingLane()


@pytest.fixture
def gateway(endpoint, transactional_db, lane):
    with serve(endpoint, http=lane.connection_class()) as base:
        yield base


@pytest.fixture
def board(ada, make_virtual_mcp, make_token, wire, gateway):
    """Return a function: (client's era, upstream's era, how many) to what sends a warm call."""
    with ExitStack() as stack:

        def make(client_era="modern", upstream_era="modern", several=False):
            fake = FakeUpstream(era=upstream_era, name="alpha")
            urls = {"alpha": stack.enter_context(fake.serve()).url}
            if several:
                urls["beta"] = stack.enter_context(
                    FakeUpstream(era=upstream_era, name="beta").serve()
                ).url
            make_virtual_mcp("board", urls)
            token = make_token(ada, "board")
            client = wire("board", token)
            if client_era == "legacy":
                client.initialize()
                client.tell("notifications/initialized")
            raw = stack.enter_context(RawClient(gateway))
            # The one who was seen first keeps a bare name.
            name = "beta_echo" if several else "echo"
            warm = Warm(raw, fake, token, client.session, name, "alpha+" if several else "")
            if several:
                client.legacy("tools/list") if client.session else client.modern("tools/list")
            for _ in range(3):
                assert warm.call()[0] == 200
                assert warm.read()[0] == 200
                settle()
            return warm

        yield make


class Warm:
    """A connection on which calls take the lane."""

    def __init__(self, raw, fake, token, session, name, scheme):
        self.raw, self.fake, self.token = raw, fake, token
        self.session, self.name = session, name
        self.uri = f"{scheme}file:///notes/1"

    def request(self, **more):
        """Return the request as head and body."""
        wanted = {"session": self.session, "name": self.name, **more}
        return call_request("board", self.token, **wanted)

    def call(self, **more):
        """Send a call; returns status and body."""
        return self.raw.ask(*self.request(**more))

    def reading(self, **more):
        """Return the request for a resource as head and body."""
        wanted = {"session": self.session, "uri": self.uri, **more}
        return read_request("board", self.token, **wanted)

    def read(self, **more):
        """Read a resource; returns status and body."""
        return self.raw.ask(*self.reading(**more))


def all_counted_out() -> bool:
    """Whether nothing is held for any call, a moment after the last answer."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        gates = [gate.in_flight for gate in call_gate.gates()]
        if not rate_limits._in_flight and not any(gates):
            return True
        time.sleep(0.005)
    return False


def said(body: bytes) -> str:
    return json.loads(body)["result"]["content"][0]["text"]


@pytest.fixture
def seen(lane, monkeypatch):
    """Return a function that begins to note what a call on the lane must do without."""

    def watch():
        loop = lane.connections[-1].loop
        noted = []

        def note(what, original):
            def noting(*args, **kwargs):
                noted.append(what)
                return original(*args, **kwargs)

            return noting

        monkeypatch.setattr(loop, "create_task", note("task", loop.create_task))
        monkeypatch.setattr(loop, "create_future", note("future", loop.create_future))
        monkeypatch.setattr(loop, "run_in_executor", note("thread", loop.run_in_executor))
        monkeypatch.setattr(SyncToAsync, "__call__", note("hop", SyncToAsync.__call__))
        monkeypatch.setattr(CursorWrapper, "execute", note("query", CursorWrapper.execute))
        return noted

    return watch


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("upstream_era", ERAS)
@pytest.mark.parametrize("client_era", ERAS)
def test_a_warm_call_takes_the_lane_without_a_task_or_a_query(
    board, lane, seen, client_era, upstream_era, several
):
    warm = board(client_era, upstream_era, several)
    assert all_counted_out()
    noted = seen()
    for _ in range(10):
        settle()
        noted.clear()
        began, handed_on, logged = lane.began, lane.handed_on, len(call_log.call_log._queue)
        texts = [said(warm.call(arguments={"text": "x" * n})[1]) for n in (1, 20, 300)]
        assert texts == ["x" * n for n in (1, 20, 300)]
        for id in (1, 20):
            (read,) = json.loads(warm.read(id=id)[1])["result"]["contents"]
            assert (read["uri"], read["text"]) == (warm.uri, "note file:///notes/1")
        assert (lane.began, lane.handed_on) == (began + 5, handed_on)
        if not noted:
            break
    # What the first requests began beside them may last on a busy machine.
    assert noted == []
    assert all_counted_out()
    records = list(call_log.call_log._queue)[logged:]
    assert [(one.method, one.name, one.outcome) for one in records] == [
        *[("tools/call", warm.name, "ok")] * 3,
        *[("resources/read", warm.uri, "ok")] * 2,
    ]


@pytest.mark.parametrize("what", ["request", "reading"])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize("client_era", ERAS)
def test_the_lane_answers_byte_for_byte_as_the_endpoint(
    board, lane, client_era, several, what, gateway
):
    warm = board(client_era, several=several)
    answers = []
    with RawClient(gateway) as fresh:
        for raw in (warm.raw, fresh):
            began = lane.began
            raw.send(*getattr(warm, what)(id=99))
            found = raw.answer()
            headers = [(n, v) for n, v in found.getheaders() if n.lower() != "date"]
            answers.append((found.status, headers, found.body, lane.began - began))
    assert answers[0][:3] == answers[1][:3]
    assert [one[3] for one in answers] == [1, 0]


def test_a_page_of_an_allowed_origin_gets_its_headers_on_the_lane(board, lane, settings):
    warm = board()
    settings.GATEWAY_ALLOWED_ORIGINS = ["https://page.example"]
    for number in range(3):
        began = lane.began
        warm.raw.send(*warm.request(origin="https://page.example"))
        found = warm.raw.answer()
        assert found.getheader("access-control-allow-origin") == "https://page.example"
        assert lane.began - began == (number > 0)
    settings.GATEWAY_ALLOWED_ORIGINS = []
    assert warm.call(origin="https://page.example")[0] == 403


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_token_that_has_ended_ends_on_the_lane(board, lane, how, monkeypatch):
    warm = board()
    tokens = get_access_token_model().objects.all()
    if how == "revoked":
        tokens.delete()
        bearer_tokens.forget()
    else:
        tokens.update(expires="2020-01-01T00:00Z")
        later = time.monotonic() + bearer_tokens.ENTRY_SECONDS + 1
        monkeypatch.setattr(bearer_tokens.time, "monotonic", lambda: later)
    began = lane.began
    assert warm.call()[0] == 401
    assert lane.began == began


def test_a_new_holder_of_the_same_token_is_decided_about_anew(board, lane, monkeypatch):
    warm = board()
    bearer_tokens.forget()
    assert warm.call()[0] == 200
    VirtualMcp.objects.update(audience="groups")
    route_table.forget()
    assert warm.call()[0] == 404


@pytest.mark.parametrize(
    "change",
    [
        {"name": "headers"},
        {"id": 2},
        {"meta": {"progressToken": "p"}},
        {"meta": {"vendor.example/x": 1}},
        {"meta": {"io.modelcontextprotocol/logLevel": "loud"}},
        {"meta": {"io.modelcontextprotocol/clientCapabilities": []}},
        {"meta": {"io.modelcontextprotocol/protocolVersion": "2025-11-25"}},
    ],
    ids=str,
)
def test_a_request_that_says_something_else_with_the_same_head_is_checked_anew(
    board, gateway, change
):
    warm = board()
    (head, body), (_, other) = warm.request(), warm.request(**change)
    length = b"Content-Length: %d\r\n"
    head = head.replace(length % len(body), length % len(other))
    with RawClient(gateway) as fresh:
        assert warm.raw.ask(head, other) == fresh.ask(head, other)
    assert said(warm.call()[1]) == "hi"


def test_a_change_of_the_configuration_holds_on_the_lane(board):
    warm = board()
    VirtualMcp.objects.update(enabled=False)
    route_table.forget()
    assert warm.call()[0] == 404


def test_a_view_that_is_no_longer_in_memory_is_made_again(board, lane):
    warm = board()
    person_view._views.clear()
    began = lane.began
    assert warm.call()[0] == 200
    assert lane.began == began + 1


def test_an_ended_session_has_no_lane(board, lane, http):
    warm = board("legacy")
    headers = {"authorization": f"Bearer {warm.token}", "mcp-session-id": warm.session}
    assert http.delete("/v1/mcp/board", headers=headers).status_code == 204
    began = lane.began
    assert warm.call()[0] == 404
    assert lane.began == began


def test_the_persons_limits_hold_on_the_lane(board, lane, monkeypatch, ada):
    warm = board()
    monkeypatch.setattr(rate_limits, "_most_in_flight", lambda: 0)
    began, asked = lane.began, len(warm.fake.requests)
    for ask in (warm.call, warm.read):
        status, body = ask()
        assert (status, lane.began, len(warm.fake.requests)) == (429, began, asked)
        assert b"too many calls" in body
    monkeypatch.undo()
    assert warm.call()[0] == 200
    assert lane.began == began + 1


def test_a_full_upstream_and_an_open_circuit_hold_on_the_lane(board, lane, monkeypatch):
    warm = board()
    (gate,) = [gate for gate in call_gate.gates() if gate.facts.key == "alpha"]
    monkeypatch.setattr(call_gate, "QUEUE_SECONDS", 0.05)
    gate.in_flight = gate.facts.max_in_flight
    began, asked = lane.began, len(warm.fake.requests)
    assert b"is busy" in warm.call()[1]
    gate.in_flight = 0
    for _ in range(3):
        gate.breaker.failed()
    assert b"failed several times" in warm.call()[1]
    assert (lane.began, len(warm.fake.requests)) == (began, asked)
    gate.breaker.try_soon()
    assert said(warm.call()[1]) == "hi"
    assert not gate.breaker.troubled
    assert said(warm.call()[1]) == "hi"
    assert lane.began == began + 1


def test_malformed_and_mismatched_messages_get_their_own_errors(board, lane):
    warm = board()
    head, body = warm.request()
    began = lane.began
    for wrong, code in (
        (body.replace(b'"2.0"', b'"1.0"'), -32600),
        (body.replace(b'"echo"', b'"fail"'), -32020),
        (body[:-1] + b" ", -32700),
        (body.replace(b'"id": 1,', b'"id": 1, "id": 1,'), -32600),
    ):
        lines = [one for one in head.split(b"\r\n") if not one.startswith(b"Content-Length")]
        length = b"Content-Length: %d" % len(wrong)
        status, answer = warm.raw.ask(b"\r\n".join([*lines[:-2], length, b"", b""]), wrong)
        assert (status, json.loads(answer)["error"]["code"]) == (400, code)
    assert lane.began == began
    assert said(warm.call()[1]) == "hi"


def test_a_call_that_takes_longer_goes_on_with_the_request_that_was_sent(board, lane, monkeypatch):
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", 0.05)
    warm = board()
    asked = len(warm.fake.calls("tools/call"))
    slow = {"name": "slow", "arguments": {"steps": 1, "pause": 0.2}}
    for _ in range(3):
        before = lane.handed_on
        status, body = warm.call(**slow)
        assert (status, said(body)) == (200, "done")
    assert lane.handed_on == before + 1
    assert len(warm.fake.calls("tools/call")) == asked + 3
    assert all_counted_out()


@pytest.mark.parametrize("upstream_era", ERAS)
@pytest.mark.parametrize("client_era", ERAS)
def test_progress_comes_through_and_so_do_errors(board, lane, client_era, upstream_era):
    warm = board(client_era, upstream_era)
    streamed = {"name": "slow", "arguments": {"steps": 2, "pause": 0}}
    if client_era == "modern":
        streamed["meta"] = {"progressToken": "p"}
    answers, errors = [], []
    for _ in range(3):
        warm.raw.send(*warm.request(**streamed))
        answers.append(warm.raw.answer().body)
        errors.append(warm.call(name="fail", arguments={"text": "hi"}))
    assert answers[0] == answers[2]
    assert errors[0] == errors[2]
    assert b"done" in answers[0]


@pytest.mark.parametrize("wait", [0.05, 10.0], ids=["handed on", "on the lane"])
def test_a_cancelled_call_of_a_session_is_cancelled_at_the_upstream(
    board, lane, http, wait, monkeypatch
):
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", wait)
    warm = board("legacy")
    warm.raw.send(*warm.request(name="hang", id=77))
    assert warm.fake.wait(lambda seen: "started:hang" in seen.events)
    note = {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": 77, "reason": "enough"},
    }
    headers = {"authorization": f"Bearer {warm.token}", "mcp-session-id": warm.session}
    assert http.post("/v1/mcp/board", json=note, headers=headers).status_code == 202
    assert warm.fake.wait(lambda seen: "cancelled:hang" in seen.events)


@pytest.mark.parametrize("wait", [0.05, 10.0], ids=["handed on", "on the lane"])
def test_a_server_that_ends_lets_a_call_on_the_lane_end_and_closes_after_it(
    board, lane, wait, monkeypatch
):
    warm = board()
    for _ in range(3):
        assert warm.call(name="slow", arguments={"steps": 0})[0] == 200
        settle()
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", wait)
    began, handed_on, asked = lane.began, lane.handed_on, len(warm.fake.calls("tools/call"))
    warm.raw.send(*warm.request(name="slow", arguments={"steps": 1, "pause": 0.4}))
    # Whose it is now: the lane's, or that of what it was handed on to.
    mine = "running" if wait > 1 else "cycle"

    def busy():
        held = [(one, getattr(one, mine)) for one in lane.connections]
        return [one for one, of in held if of and not getattr(of, "response_complete", False)]

    until = time.monotonic() + 10
    while not busy() and time.monotonic() < until:
        time.sleep(0.005)
    (connection,) = busy()
    assert (lane.began, lane.handed_on) == (began + 1, handed_on + (wait < 1))
    # As uvicorn does with each connection once it was told to end.
    connection.loop.call_soon_threadsafe(connection.shutdown)
    found = warm.raw.answer()
    assert (found.status, said(found.body)) == (200, "done")
    assert found.getheader("connection") == "close"
    assert warm.raw.socket.recv(1) == b""
    assert lane.handed_on == handed_on + 1
    assert len(warm.fake.calls("tools/call")) == asked + 1
    assert all_counted_out()
