"""Answers that are streams: progress, logs, silence, cancellation, limits."""

import asyncio
import json
import threading
import time

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.db import OperationalError

from oauthserver import bearer_tokens
from tests.patience import PATIENCE
from tests.virtualmcp.wire_client import META, RawConnection, messages, modern_headers, modern_meta
from virtualmcp import rate_limits
from virtualmcp.call_log import call_log
from virtualmcp.eras import era_in, log_levels
from virtualmcp.models import CallRecord
from virtualmcp.routing import shared_notes
from virtualmcp.transport import response_stream
from virtualmcp.transport.relayed_calls import calls_in_flight

ERAS = ("modern", "legacy")


def call(client, era, name, arguments=None, meta=None, **headers):
    """Call a tool in the manner of a client's era."""
    params = {"name": name, "arguments": arguments or {}}
    if era == "modern":
        return client.modern("tools/call", params, meta=modern_meta(**(meta or {})), **headers)
    return client.legacy("tools/call", {**params, "_meta": meta or {}}, **headers)


@pytest.fixture
def hanging(board, gateway):
    """Begin a call that never ends, on a connection of its own."""
    opened = []

    def begin(era, id="hanging", name="hang", arguments=None):
        params = {"name": name, "arguments": arguments or {}}
        headers = board.headers(**board.session_headers())
        if era == "modern":
            params["_meta"] = modern_meta()
            headers = {**board.headers(), **modern_headers("tools/call", params)}
        message = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
        body = json.dumps(message).encode()
        connection = RawConnection(gateway)
        opened.append(connection)
        head = [f"POST {board.path} HTTP/1.1", f"host: {django_settings.PUBLIC_HOST}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        connection.send([*head, f"content-length: {len(body)}"], body)
        return connection

    yield begin
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("era", ERAS)
def test_progress_comes_as_events_with_the_clients_token(board, era):
    response = call(board, era, "slow", {"steps": 3}, {"progressToken": "mine"})
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    # Only stateful clients can come back to a stream.
    assert ("id: " in response.text) == (era == "legacy")
    *progress, answer = messages(response)
    assert [p["method"] for p in progress] == ["notifications/progress"] * 3
    assert [p["params"]["progress"] for p in progress] == [1, 2, 3]
    assert {p["params"]["progressToken"] for p in progress} == {"mine"}
    assert answer["result"]["content"][0]["text"] == "done"


@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_takes_only_json_gets_the_answer_alone(board, era):
    response = call(
        board, era, "slow", {"steps": 2}, {"progressToken": 1}, accept="application/json"
    )
    assert response.headers["content-type"] == "application/json"
    assert response.json()["result"]["content"][0]["text"] == "done"


@pytest.mark.parametrize("era", ERAS)
def test_a_client_that_takes_only_events_gets_the_answer_as_one(board, era):
    response = call(board, era, "echo", {"text": "a\nb"}, accept="text/event-stream")
    assert response.headers["content-type"] == "text/event-stream"
    assert [m["result"]["content"][0]["text"] for m in messages(response)] == ["a\nb"]


def test_the_first_event_leaves_before_the_second_is_made(board, upstream):
    params = {
        "name": "slow",
        "arguments": {"steps": 2, "pause": 1.0},
        "_meta": modern_meta(progressToken="p"),
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {**board.headers(), **modern_headers("tools/call", params)}
    with board.http.stream("POST", board.path, json=message, headers=headers) as response:
        first = next(line for line in response.iter_lines() if line.startswith("data:"))
        assert json.loads(first[6:])["params"]["progress"] == 1
        assert "finished:slow" not in upstream.events


def test_a_stateless_client_hears_logs_only_if_it_asks(board):
    silent = call(board, "modern", "log", {"level": "error", "text": "x"})
    assert [list(m) for m in messages(silent)] == [["jsonrpc", "id", "result"]]
    asked = call(
        board, "modern", "log", {"level": "error", "text": "x"}, {META + "logLevel": "warning"}
    )
    assert messages(asked)[0]["params"]["data"] == "x"
    below = call(
        board, "modern", "log", {"level": "info", "text": "x"}, {META + "logLevel": "warning"}
    )
    assert len(messages(below)) == 1


def test_a_stateful_client_hears_logs_from_its_level_on(board):
    board.legacy("logging/setLevel", {"level": "error"})
    assert len(messages(call(board, "legacy", "log", {"level": "warning"}))) == 1
    loud = messages(call(board, "legacy", "log", {"level": "critical", "text": "x"}))
    assert loud[0]["params"]["data"] == "x"


def logs_of_a_warning(board):
    """Return how many log messages a stateful client's call brings."""
    *logs, last = messages(call(board, "legacy", "log", {"level": "warning"}))
    assert "result" in last
    return len(logs)


def test_a_level_set_at_another_process_holds_where_the_change_feed_stands_still(
    board, monkeypatch
):
    board.legacy("logging/setLevel", {"level": "info"})
    assert logs_of_a_warning(board) == 1
    # The session was looked up long ago, too.
    monkeypatch.setattr(log_levels, "SETTLE_SECONDS", 0.0)
    log_levels.heard_all_before(time.monotonic() - 60)
    digest = era_in.digest_of(board.session.encode())
    keep = async_to_sync(shared_notes.put)
    keep(f"log-level:{digest}", b"error", 60)
    assert logs_of_a_warning(board) == 0
    log_levels.heard_all_before(time.monotonic() + 60)
    keep(f"log-level:{digest}", b"debug", 60)
    # What the feed tells is known here; no call looks it up.
    assert logs_of_a_warning(board) == 0
    era_in.hear_level(f"{digest} debug")
    assert logs_of_a_warning(board) == 1


def test_calls_go_on_where_neither_the_feed_nor_the_level_can_be_read(board, monkeypatch):
    asked = []

    async def away(key):
        asked.append(key)
        raise OperationalError("away")

    board.legacy("logging/setLevel", {"level": "info"})
    assert logs_of_a_warning(board) == 1
    monkeypatch.setattr(log_levels, "SETTLE_SECONDS", 0.0)
    log_levels.heard_all_before(time.monotonic() - 60)
    monkeypatch.setattr(shared_notes, "get", away)
    assert [logs_of_a_warning(board) for _ in range(3)] == [1, 1, 1]
    assert len(asked) == 1


def test_silence_opens_a_stream_that_is_kept_alive(board, hanging, upstream, monkeypatch):
    monkeypatch.setattr(response_stream, "OPEN_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(response_stream, "KEEP_ALIVE_SECONDS", 0.1)
    connection = hanging("modern")
    received = b""
    while received.count(b": waiting") < 3:
        received += connection.socket.recv(4_096)
    assert b"text/event-stream" in received


@pytest.mark.parametrize("silent_for", [60.0, 0.1])
def test_a_stateless_client_that_hangs_up_cancels_its_call(
    board, hanging, upstream, monkeypatch, silent_for
):
    monkeypatch.setattr(response_stream, "OPEN_AFTER_SECONDS", silent_for)
    connection = hanging("modern")
    assert upstream.wait(lambda seen: "started:hang" in seen.events)
    began = time.monotonic()
    connection.close()
    assert upstream.wait(lambda seen: "cancelled:hang" in seen.events)
    # Far sooner than the stream would have been opened or the call have ended.
    assert time.monotonic() - began < 20
    assert _soon(lambda: not rate_limits._in_flight)


def test_a_stateful_client_cancels_its_own_call_only(
    board, hanging, upstream, bob, make_token, wire
):
    connection = hanging("legacy", id=7)
    assert upstream.wait(lambda seen: "started:hang" in seen.events)
    stranger = wire("board", make_token(bob, "board"))
    stranger.initialize()
    own_second = wire("board", board.token)
    own_second.initialize()
    for other in (stranger, own_second):
        assert other.tell("notifications/cancelled", {"requestId": 7}).status_code == 202
    assert board.tell("notifications/cancelled", {"requestId": "7"}).status_code == 202
    assert "cancelled:hang" not in upstream.events
    assert board.tell("notifications/cancelled", {"requestId": 7}).status_code == 202
    assert upstream.wait(lambda seen: "cancelled:hang" in seen.events)
    status = connection.stream.readline()
    assert b"200" in status
    assert _soon(lambda: not len(calls_in_flight))


def test_ending_a_session_ends_its_calls(board, hanging, upstream, http):
    hanging("legacy")
    assert upstream.wait(lambda seen: "started:hang" in seen.events)
    http.delete(board.path, headers=board.headers(**board.session_headers()))
    assert upstream.wait(lambda seen: "cancelled:hang" in seen.events)


def test_a_call_ends_when_its_token_does(board, hanging, upstream, monkeypatch):
    from oauth2_provider.models import get_access_token_model

    monkeypatch.setattr(response_stream, "RECHECK_SECONDS", 0.2)
    connection = hanging("modern")
    assert upstream.wait(lambda seen: "started:hang" in seen.events)
    get_access_token_model().objects.all().delete()
    bearer_tokens.forget()
    status, _, body = connection.answer()
    assert status == 200
    assert "Authorize again" in json.loads(body)["error"]["message"]
    assert upstream.wait(lambda seen: "cancelled:hang" in seen.events)


def test_too_many_calls_of_one_person_wait_their_turn(
    board, hanging, upstream, settings, bob, make_token, wire
):
    settings.GATEWAY_CALLS_IN_FLIGHT_PER_USER = 2
    hanging("modern")
    hanging("legacy")
    assert upstream.wait(lambda seen: seen.events.count("started:hang") == 2)
    for era in ERAS:
        response = call(board, era, "echo", {"text": "x"})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["data"] == {"retryAfterSeconds": 1}
    other = wire("board", make_token(bob, "board"))
    assert call(other, "modern", "echo", {"text": "x"}).status_code == 200


def test_how_calls_ended_is_recorded(board, hanging, upstream):
    call(board, "modern", "echo", {"text": "x"})
    call(board, "modern", "refuse", {"code": -32603})
    connection = hanging("modern")
    assert upstream.wait(lambda seen: "started:hang" in seen.events)
    connection.close()
    assert upstream.wait(lambda seen: "cancelled:hang" in seen.events)
    assert _soon(lambda: len(call_log._queue) == 3)
    call_log.flush()
    assert list(CallRecord.objects.order_by("at").values_list("name", "outcome", "upstream")) == [
        ("echo", "ok", "fake"),
        ("refuse", "error -32603", "fake"),
        ("hang", "client_gone", "fake"),
    ]


def test_a_large_answer_arrives_whole_in_either_form(board):
    for accept in ("application/json", "text/event-stream"):
        response = call(board, "modern", "blob", {"size": 3_000_000}, accept=accept)
        assert len(messages(response)[0]["result"]["content"][0]["text"]) == 3_000_000


def test_a_reader_that_stalls_is_let_go(board, hanging, upstream, monkeypatch):
    monkeypatch.setattr(response_stream, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(response_stream, "RECHECK_SECONDS", 0.1)
    hanging("modern", name="blob", arguments={"size": 9_000_000})
    assert upstream.wait(lambda seen: seen.calls("tools/call"))
    assert _soon(lambda: not rate_limits._in_flight)
    assert _soon(lambda: len(call_log._queue) == 1)
    assert call_log._queue[0].outcome == "client_stalled"


def test_many_clients_at_once_get_their_own_answers(board):
    async def all_of_them():
        headers = {"host": django_settings.PUBLIC_HOST}
        async with httpx.AsyncClient(
            base_url=str(board.http.base_url), headers=headers, timeout=PATIENCE
        ) as client:

            async def one(number):
                params = {
                    "name": "echo",
                    "arguments": {"text": str(number)},
                    "_meta": modern_meta(),
                }
                message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
                sent = {**board.headers(), **modern_headers("tools/call", params)}
                response = await client.post(board.path, json=message, headers=sent)
                answer = response.json()
                return answer["id"], answer["result"]["content"][0]["text"]

            return await asyncio.gather(*(one(number) for number in range(30)))

    assert asyncio.run(all_of_them()) == [(n, str(n)) for n in range(30)]


def _soon(what, seconds=PATIENCE):
    """Wait, bounded, for something of the server's thread that gives no signal."""
    waiting = threading.Event()
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        waiting.wait(0.01)
    return what()
