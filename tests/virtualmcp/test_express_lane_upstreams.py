"""What upstreams answer to a call on the express lane: the same comes out as without it."""

import json
import time

import pytest

from tests.fakes.asgi_server import serve
from tests.fakes.raw_upstream import CLOSE, RESET, RawUpstream, answer, stream
from tests.virtualmcp.express_client import CountingLane, RawClient, call_request
from tests.virtualmcp.test_express_lane import all_counted_out, settle
from upstreams.models import Upstream
from virtualmcp.transport import express_lane

HERE = {"resultType": "complete", "content": [{"type": "text", "text": "hi"}]}
LISTED = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}


def response(request: bytes, result: object) -> bytes:
    id = json.loads(request.partition(b"\r\n\r\n")[2])["id"]
    message = {"jsonrpc": "2.0", "id": id, "result": result}
    return json.dumps(message, separators=(",", ":")).encode()


def in_two(request):
    (whole,) = answer(response(request, HERE))
    return [whole[:-20], 0.02, whole[-20:]]


def late(request):
    return [0.15, *answer(response(request, HERE))]


def chunked(request):
    (head, *rest) = stream(b"event: message\ndata: " + response(request, HERE) + b"\n\n")
    return [head, *rest]


def padded(request):
    return answer(b" " + response(request, HERE) + b"\n")


def surplus(request):
    (whole,) = answer(response(request, HERE))
    return [whole + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]


def too_large(request):
    return answer(response(request, {**HERE, "filling": "x" * 2_000_000}))


def rich(request):
    linked = {"type": "resource_link", "uri": "https://x.example/a", "name": "a"}
    return answer(response(request, {**HERE, "content": [linked], "_meta": {"k": 1}}))


ODD = {
    "plain": lambda request: answer(response(request, HERE)),
    "in two": in_two,
    "late": late,
    "stream": chunked,
    "padded": padded,
    "surplus": surplus,
    "too large": too_large,
    "rich": rich,
    "other id": lambda request: answer(b'{"jsonrpc":"2.0","id":"x","result":{}}'),
    "no result": lambda request: answer(response(request, [])),
    "no json": lambda request: answer(b"no"),
    "page": lambda request: answer(b"<p>", content_type="text/html"),
    "failed": lambda request: answer(b"", status="500 Oh"),
    "busy": lambda request: answer(b"", status="429 Slow", retry_after="3"),
    "elsewhere": lambda request: answer(b"", status="302 Found", location="/x"),
    "short": lambda request: [*answer(b"{", length=90), CLOSE],
    "dropped": lambda request: [CLOSE],
    "reset": lambda request: [RESET],
    "not http": lambda request: [b"nonsense\r\n\r\n", CLOSE],
    "error": lambda request: answer(
        response(request, None).replace(b'"result":null', b'"error":{"code":-5,"message":"m"}')
    ),
    "unknown kind": lambda request: answer(response(request, {"resultType": "odd"})),
}
ON_THE_LANE = {"plain", "in two", "late", "surplus", "rich"}


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
def board(ada, make_virtual_mcp, make_token, gateway):
    """An upstream whose next answers a test chooses by the text that is sent, and a token."""

    def script(request: bytes):
        message = json.loads(request.partition(b"\r\n\r\n")[2])
        if message["method"] == "tools/list":
            tools = [{"name": "echo", "inputSchema": {"type": "object"}}]
            return answer(response(request, {**LISTED, "tools": tools}))
        if message["method"] == "server/discover":
            about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            about["serverInfo"] = {"name": "one", "version": "1"}
            return answer(response(request, {**LISTED, **about}))
        return ODD[message["params"]["arguments"]["text"]](request)

    with RawUpstream(script) as upstream:
        make_virtual_mcp("board", {"one": upstream.url})
        Upstream.objects.update(max_answer_mib=1, era="modern")
        yield upstream, make_token(ada, "board")


def calls(upstream) -> int:
    return sum(b"tools/call" in request.partition(b"\r\n\r\n")[2] for request in upstream.requests)


def warmed(raw: RawClient, token: str) -> None:
    for _ in range(3):
        assert raw.ask(*call_request("board", token, arguments={"text": "plain"}))[0] == 200
        settle()


@pytest.mark.parametrize("case", list(ODD))
def test_odd_answers_come_out_as_without_the_lane_and_no_tool_runs_twice(
    board, lane, gateway, case
):
    upstream, token = board
    seen = []
    request = call_request("board", token, arguments={"text": case})
    with RawClient(gateway) as warm, RawClient(gateway) as fresh:
        warmed(warm, token)
        for raw in (warm, fresh):
            if not seen:
                lane.began = lane.handed_on = 0
            asked = calls(upstream)
            raw.send(*request)
            found = raw.answer()
            headers = [(n, v) for n, v in found.getheaders() if n.lower() != "date"]
            assert calls(upstream) == asked + 1
            seen.append((found.status, headers, found.body))
            # The next call finds a connection, or opens one, and gets its own answer.
            status, body = raw.ask(*call_request("board", token, arguments={"text": "plain"}))
            assert (status, json.loads(body)["result"]["content"][0]["text"]) == (200, "hi")
    assert seen[0] == seen[1]
    assert lane.began >= 1
    assert (lane.handed_on == 0) == (case in ON_THE_LANE)
    assert all_counted_out()


@pytest.mark.parametrize("wait", [0.05, 10.0], ids=["handed on", "on the lane"])
def test_a_client_that_leaves_ends_its_stateless_call(board, lane, gateway, wait, monkeypatch):
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", wait)
    upstream, token = board
    monkeypatch.setitem(
        ODD, "hang", lambda request: [b"HTTP/1.1 200 OK\r\n", *([0.2, b"X-Wait: 1\r\n"] * 90)]
    )
    with RawClient(gateway) as raw:
        warmed(raw, token)
        asked, closed = calls(upstream), upstream.closed
        raw.send(*call_request("board", token, arguments={"text": "hang"}))
        assert upstream.wait(lambda seen: calls(seen) == asked + 1)
    assert upstream.wait(lambda seen: seen.closed == closed + 1)
    assert all_counted_out()
    assert calls(upstream) == asked + 1
    assert lane.handed_on == 1


def test_no_answer_in_time_is_said_as_without_the_lane(board, lane, gateway, monkeypatch):
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", 0.05)
    _, token = board
    Upstream.objects.update(call_timeout=1)
    monkeypatch.setitem(ODD, "hang", lambda request: [3600.0])
    with RawClient(gateway) as raw:
        warmed(raw, token)
        _, body = raw.ask(*call_request("board", token, arguments={"text": "hang"}))
    assert b"did not answer in time" in body
    assert lane.handed_on == 1
    assert all_counted_out()


@pytest.mark.parametrize("parts", ["two in one", "behind", "head and body", "byte by byte"])
def test_requests_come_in_any_pieces_and_each_gets_its_answer(board, lane, gateway, parts):
    _, token = board
    with RawClient(gateway) as raw:
        warmed(raw, token)
        first = call_request("board", token, id=1, arguments={"text": "plain"})
        second = call_request("board", token, id=2, arguments={"text": "rich"})
        began = lane.began
        if parts == "two in one":
            raw.send(*first, *second)
        elif parts == "behind":
            # Read while the first one runs.
            late = call_request("board", token, id=1, arguments={"text": "late"})
            raw.send(*late)
            time.sleep(0.01)
            raw.send(*second)
        elif parts == "head and body":
            for head, body in (first, first):
                raw.send(head)
                time.sleep(0.02)
                assert raw.ask(body)[0] == 200
            assert lane.began == began + 2
            # What comes together is read together: a body with the next head behind it.
            raw.send(first[0])
            time.sleep(0.02)
            raw.send(first[1], *second)
        else:
            for byte in b"".join(first):
                raw.send(bytes((byte,)))
            raw.send(*second)
        ids = [json.loads(raw.answer().body)["id"] for _ in range(2)]
    assert ids == [1, 2]
    assert all_counted_out()


def test_the_head_of_another_person_on_the_same_connection_is_another_head(
    board, lane, gateway, bob, make_token
):
    _, token = board
    other = make_token(bob, "board")
    with RawClient(gateway) as raw:
        warmed(raw, token)
        began = lane.began
        assert raw.ask(*call_request("board", other, arguments={"text": "plain"}))[0] == 200
        assert raw.ask(*call_request("board", "nobody", arguments={"text": "plain"}))[0] == 401
        assert raw.ask(*call_request("nowhere", token, arguments={"text": "plain"}))[0] == 404
        assert lane.began == began


TRICKS = {
    "twice": (b"Content-Length: %d\r\nContent-Length: %d\r\n", 400),
    "plus": (b"Content-Length: +%d\r\n", 400),
    "chunked too": (b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n", 400),
    "list": (b"Content-Length: %d, %d\r\n", 400),
    "hexadecimal": (b"Content-Length: 0x%x\r\n", 400),
    "zeros": (b"Content-Length: 00%d\r\n", 200),
    "tab": (b"Content-Length:\t%d\r\n", 200),
    "folded": (b"Content-Length: %d\r\n x\r\n", 400),
}


@pytest.mark.parametrize("trick", list(TRICKS))
def test_lengths_that_could_be_read_in_two_ways_never_take_the_lane(board, lane, gateway, trick):
    _, token = board
    lines, expected = TRICKS[trick]
    head, body = call_request("board", token, arguments={"text": "plain"})
    plain = b"Content-Length: %d\r\n" % len(body)
    tricky = lines % ((len(body),) * lines.count(b"%"))
    with RawClient(gateway) as raw:
        warmed(raw, token)
        began = lane.began
        for _ in range(3 if expected == 200 else 1):
            assert raw.ask(head.replace(plain, tricky), body)[0] == expected
        assert lane.began == began


@pytest.mark.parametrize("more", [1, -1])
def test_a_length_that_is_not_the_bodys_never_takes_the_lane(board, lane, gateway, more):
    _, token = board
    head, body = call_request("board", token, arguments={"text": "plain"})
    plain = b"Content-Length: %d\r\n" % len(body)
    with RawClient(gateway) as raw:
        warmed(raw, token)
        began = lane.began
        wrong = head.replace(plain, b"Content-Length: %d\r\n" % (len(body) + more))
        raw.send(wrong, body)
        if more > 0:
            raw.send(b" ")
        assert raw.answer().status == (200 if more > 0 else 400)
        # The space that was missing may have come in the same read.
        assert lane.began - began in ((0, 1) if more > 0 else (0,))
