"""What upstreams answer to a ``resources/read`` on the express lane."""

import json

import pytest

from tests.fakes.asgi_server import serve
from tests.fakes.raw_upstream import CLOSE, RawUpstream, answer, stream
from tests.virtualmcp.express_client import CountingLane, RawClient, read_request
from tests.virtualmcp.test_express_lane import all_counted_out, settle
from tests.virtualmcp.test_express_lane_upstreams import LISTED, response
from upstreams.models import Upstream
from virtualmcp.transport import express_lane

PLAIN = {"uri": "notes://1", "mimeType": "text/plain", "text": "hi"}
APP = {"ui": {"domain": "app.example", "csp": {}, "resourceUri": "ui://board"}}


def read(*contents, **more):
    """Return the script of an answer with these contents."""
    result = {**LISTED, "cacheScope": "private", "contents": list(contents), **more}
    return lambda request: answer(response(request, result))


def error(request):
    fault = b'"error":{"code":-32002,"message":"gone","data":{"uri":"notes://1"}}'
    return answer(response(request, None).replace(b'"result":null', fault))


def streamed(request):
    return stream(b"event: message\ndata: " + response(request, {"contents": [PLAIN]}) + b"\n\n")


ODD = {
    "plain": read(PLAIN),
    "large": read({**PLAIN, "text": "x" * 300_000}),
    "several": read(PLAIN, {"uri": "notes://1/a", "blob": "AA=="}, {"uri": "https://x.example/"}),
    "app": read({**PLAIN, "_meta": APP}),
    "open to all": read(PLAIN, cacheScope="public", ttlMs=10**9),
    "signed": read(PLAIN, _meta={"io.modelcontextprotocol/serverInfo": {"name": "x"}, "k": 1}),
    "nothing": read(),
    "no array": lambda request: answer(response(request, {**LISTED, "contents": "hi"})),
    "no objects": read("hi"),
    "error": error,
    "streamed": streamed,
    "failed": lambda request: answer(b"", status="500 Oh"),
    "no json": lambda request: answer(b"no"),
}
ON_THE_LANE = {"plain", "large", "several", "app", "open to all", "signed", "no objects"}


@pytest.fixture
def lane(monkeypatch):
    """The lane, patient enough for a busy machine."""
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", 10.0)
    return CountingLane()


@pytest.fixture
def gateway(endpoint, transactional_db, lane):
    with serve(endpoint, http=lane.connection_class()) as base:
        yield base


class Board:
    """An upstream that answers a ``resources/read`` as the test has said."""

    def __init__(self):
        self.answer = ODD["plain"]
        self.upstream = RawUpstream(self.script)

    def script(self, request: bytes):
        message = json.loads(request.partition(b"\r\n\r\n")[2])
        if message["method"] == "resources/read":
            return self.answer(request)
        about = {"supportedVersions": ["2026-07-28"], "capabilities": {"resources": {}}}
        about |= {"serverInfo": {"name": "one", "version": "1"}}
        return answer(response(request, {**LISTED, **about, "resources": [], "tools": []}))

    def reads(self) -> list[str]:
        """Return the id of every read that came here."""
        bodies = [request.partition(b"\r\n\r\n")[2] for request in self.upstream.requests]
        messages = [json.loads(body) for body in bodies if body]
        return [one["id"] for one in messages if one["method"] == "resources/read"]


@pytest.fixture(params=["one", "several"])
def board(request, ada, make_virtual_mcp, make_token, gateway):
    """A board, and head and body of a request to read from it, alone or beside another."""
    made = Board()
    with made.upstream as upstream, RawUpstream(made.script) as other:
        urls = {"one": upstream.url}
        if request.param == "several":
            urls["two"] = other.url
        make_virtual_mcp("board", urls)
        Upstream.objects.update(era="modern")
        token = make_token(ada, "board")
        uri = "one+notes://1" if request.param == "several" else "notes://1"
        yield made, read_request("board", token, uri)


def warmed(raw: RawClient, request: tuple[bytes, bytes]) -> None:
    for _ in range(3):
        assert raw.ask(*request)[0] == 200
        settle()


@pytest.mark.parametrize("case", list(ODD))
def test_odd_answers_to_a_read_come_out_as_without_the_lane(board, lane, gateway, case):
    made, request = board
    seen = []
    with RawClient(gateway) as warm, RawClient(gateway) as fresh:
        made.answer = ODD["plain"]
        warmed(warm, request)
        made.answer = ODD[case]
        lane.began = lane.handed_on = 0
        for raw in (warm, fresh):
            raw.send(*request)
            found = raw.answer()
            headers = [(n, v) for n, v in found.getheaders() if n.lower() != "date"]
            seen.append((found.status, headers, found.body, lane.began))
    assert seen[0] == seen[1]
    assert lane.began == 1
    assert (lane.handed_on == 0) == (case in ON_THE_LANE)
    assert all_counted_out()


def test_a_read_whose_connection_had_closed_is_made_again_as_without_the_lane(board, lane, gateway):
    made, request = board
    dropped = set()

    def once(request: bytes):
        id = json.loads(request.partition(b"\r\n\r\n")[2])["id"]
        if id not in dropped:
            dropped.add(id)
            return [CLOSE]
        return ODD["plain"](request)

    with RawClient(gateway) as warm, RawClient(gateway) as fresh:
        warmed(warm, request)
        made.answer, bodies = once, []
        for raw, on_the_lane in ((warm, 1), (fresh, 0)):
            lane.began, before = 0, len(made.reads())
            raw.send(*request)
            bodies.append(raw.answer().body)
            first, second = made.reads()[before:]
            assert first == second
            assert lane.began == on_the_lane
    assert bodies[0] == bodies[1]
    assert b'"text":"hi"' in bodies[0]
    assert all_counted_out()


def test_a_read_that_brings_an_answer_to_a_question_never_takes_the_lane(board, lane, gateway):
    _, (head, body) = board
    state = body.replace(b'"params": {', b'"params": {"requestState": "x", ')
    length = b"Content-Length: %d\r\n"
    head = head.replace(length % len(body), length % len(state))
    with RawClient(gateway) as raw:
        warmed(raw, board[1])
        began = lane.began
        answers = {raw.ask(head, state) for _ in range(2)}
    assert lane.began == began
    assert len(answers) == 1
