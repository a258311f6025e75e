"""Stateful clients that are cut off and come back for their answer (2.3.7, a22, a25)."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from django.db import OperationalError

from tests.fakes.mcp_upstream import FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp.stream_reader import get_stream, post_stream, until
from tests.virtualmcp.wire_client import messages
from virtualmcp.routing import node_mail
from virtualmcp.transport import (
    client_questions,
    draining,
    event_log,
    open_streams,
    response_stream,
    resumption,
)


@pytest.fixture(params=["modern", "legacy"])
def upstream(request):
    """An upstream of each era."""
    with FakeUpstream(era=request.param).serve() as upstream:
        yield upstream


@pytest.fixture
def board(ada, upstream, make_virtual_mcp, make_token, wire, monkeypatch):
    """A stateful client of a Virtual MCP over one upstream."""
    event_log._logs.clear()
    monkeypatch.setattr(response_stream, "OPEN_AFTER_SECONDS", 0.1)
    make_virtual_mcp("board", {"fake": upstream.url})
    client = wire("board", make_token(ada, "board"))
    client.initialize()
    return client


def begin(board, steps, pause, id="call-1"):
    """Begin a call that reports progress."""
    arguments = {"steps": steps, "pause": pause}
    params = {"name": "slow", "arguments": arguments, "_meta": {"progressToken": "p"}}
    return post_stream(board, "tools/call", params, id=id)


def steps_of(reader):
    """Return the progress that a stream reported."""
    return [m["params"]["progress"] for m in reader.messages if "progress" in str(m.get("method"))]


def cut(board, steps=3, pause=0.4):
    """Begin a call and hang up after its first event; returns that event's id."""
    with begin(board, steps, pause) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        return stream.events[0][0]


def test_a_stream_begins_with_an_id_to_resume_from(board):
    with begin(board, 2, 0.01) as stream:
        assert stream.wait(lambda reader: reader.ended)
    token = stream.primed[0][0].removesuffix(".0")
    assert stream.primed[0][1] == "1000"
    assert [event_id for event_id, _ in stream.events] == [f"{token}.{n}" for n in (1, 2, 3)]


def test_older_clients_get_ids_but_no_event_without_data(board):
    board.initialize("2025-06-18")
    with begin(board, 1, 0.01) as stream:
        assert stream.wait(lambda reader: reader.ended)
    assert not stream.primed and stream.events[0][0].endswith(".1")


def test_a_dropped_call_goes_on_and_is_resumed(board, upstream):
    last = cut(board)
    with get_stream(board, last_event_id=last) as stream:
        assert stream.wait(lambda reader: reader.ended)
    assert steps_of(stream) == [2, 3]
    assert stream.messages[-1]["id"] == "call-1"
    assert stream.messages[-1]["result"]["content"][0]["text"] == "done"
    assert upstream.events.count("started:slow") == 1


def test_the_answer_waits_for_a_client_that_comes_late_on_any_process(board, upstream):
    last = cut(board)
    assert upstream.wait(lambda up: "finished:slow" in up.events)
    assert until(lambda: all(log.ended_at for log in event_log._logs.values()))
    with get_stream(board, last_event_id=last) as here:
        assert here.wait(lambda reader: reader.ended)
    event_log._logs.clear()
    with get_stream(board, last_event_id=last) as elsewhere:
        assert elsewhere.wait(lambda reader: reader.ended)
    assert here.messages == elsewhere.messages
    assert here.messages[-1]["result"]["content"][0]["text"] == "done"


def test_what_nobody_keeps_ends_with_an_error_for_the_call(board, monkeypatch):
    monkeypatch.setattr(resumption, "OWNER_SECONDS", 0.2)
    with begin(board, 1, 0.01, id=77) as stream:
        assert stream.wait(lambda reader: reader.ended)
    event_log._logs.clear()
    with get_stream(board, last_event_id=stream.events[0][0]) as again:
        assert again.wait(lambda reader: reader.ended)
    assert [message["id"] for message in again.messages] == [77]
    assert again.messages[0]["error"]["code"] == -32603
    assert "look before you repeat" in again.messages[0]["error"]["message"]


def test_a_resumed_stream_has_its_client_come_again_when_the_database_is_away(board, monkeypatch):
    async def away(*_):
        raise OperationalError("the database is away")

    with begin(board, 1, 0.01) as stream:
        assert stream.wait(lambda reader: reader.ended)
    last = stream.events[0][0]
    event_log._logs.clear()
    monkeypatch.setattr(resumption.call_takeover, "take_over", away)
    with get_stream(board, last_event_id=last) as back:
        assert back.wait(lambda reader: reader.ended)
    assert (back.status, back.messages, back.retries) == (200, [], ["1000"])


def test_a_stream_of_another_session_is_not_replayed(board):
    last = cut(board, steps=1, pause=0.01)
    board.initialize()
    for unknown in (last, "x.1", last + "0", "."):
        with get_stream(board, last_event_id=unknown) as stream:
            assert stream.heard("notifications/tools/list_changed")
            assert steps_of(stream) == []


def test_a_client_that_left_can_still_cancel(board, upstream):
    with post_stream(board, "tools/call", {"name": "hang", "arguments": {}}, id="h") as stream:
        assert upstream.wait(lambda up: "started:hang" in up.events)
        stream.close()
    board.tell("notifications/cancelled", {"requestId": "h"})
    assert upstream.wait(lambda up: "cancelled:hang" in up.events)


def test_a_call_does_not_wait_for_ever_for_its_client(board, upstream, monkeypatch):
    monkeypatch.setattr(event_log, "AWAY_SECONDS", 0.3)
    cut(board, steps=100, pause=0.3)
    assert until(lambda: not event_log._logs or any(x.ended_at for x in event_log._logs.values()))
    assert "finished:slow" not in upstream.events


def test_delete_ends_the_calls_of_a_session_that_nobody_reads(board, http, upstream):
    with post_stream(board, "tools/call", {"name": "hang", "arguments": {}}, id="h") as stream:
        assert upstream.wait(lambda up: "started:hang" in up.events)
        stream.close()
    http.delete(board.path, headers=board.headers(**board.session_headers()))
    assert upstream.wait(lambda up: "cancelled:hang" in up.events)
    assert get_status(board) == 404


def get_status(board):
    """Return what a GET of the session is answered."""
    with get_stream(board) as stream:
        return stream.status


def test_the_log_of_a_stream_is_bounded_and_keeps_its_end(monkeypatch):
    monkeypatch.setattr(event_log, "MOST_EVENTS", 3)
    log = event_log.EventLog("session", "token")
    for number in range(10):
        log.add(b"%d" % number)
    assert [number for number, _ in log.after(0)] == [8, 9, 10]
    log.add(b"x" * (event_log.MOST_BYTES + 1))
    assert [number for number, _ in log.after(0)] == [11]


def test_a_json_answer_has_nothing_to_do_with_resumption(board):
    response = board.legacy("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    assert response.headers["content-type"] == "application/json"
    assert not event_log._logs
    assert messages(response)[0]["result"]["content"][0]["text"] == "x"


def test_a_call_that_is_read_on_another_connection_is_not_looked_at_all_the_time(
    board, upstream, monkeypatch
):
    monkeypatch.setattr(event_log, "AWAY_SECONDS", 1.5)
    looks = []
    real = response_stream.AnswerStream._gone_too_long

    def look(stream, now):
        looks.append(now)
        return real(stream, now)

    monkeypatch.setattr(response_stream.AnswerStream, "_gone_too_long", look)
    last = cut(board, steps=3, pause=1.0)
    with get_stream(board, last_event_id=last) as stream:
        assert stream.wait(lambda reader: reader.ended)
    assert steps_of(stream) == [2, 3]
    assert len(looks) < 15


def test_a_session_ends_from_any_thread():
    async def ended():
        log = event_log.begin("a session", b"1")
        thread = threading.Thread(target=event_log.forget_session, args=("a session",))
        # A loop in debug mode refuses what comes from another thread.
        waiting = asyncio.ensure_future(log.news.wait())
        await asyncio.sleep(0)
        thread.start()
        await asyncio.wait_for(waiting, PATIENCE)
        thread.join()
        assert event_log.find("a session", event_log.name_of(log.token)) is None

    asyncio.run(ended(), debug=True)


def test_a_resumed_stream_counts_among_those_of_its_person(board, settings):
    last = cut(board, steps=3, pause=0.4)
    settings.GATEWAY_STREAMS_PER_USER = 1
    with get_stream(board, last_event_id=last) as stream:
        assert stream.wait(lambda reader: reader.comments >= 1)
        with get_stream(board, last_event_id=last) as second:
            assert second.status == 429
        assert stream.wait(lambda reader: reader.ended)
    assert steps_of(stream) == [2, 3]
    assert until(lambda: open_streams.count() == 0)


def test_a_resumed_stream_ends_when_its_process_stops(board):
    last = cut(board, steps=3, pause=0.4)
    try:
        with get_stream(board, last_event_id=last) as stream:
            assert stream.wait(lambda reader: reader.comments >= 1)
            keeper = next(k for k in open_streams._keepers.values() if k.streams)
            keeper.loop.call_soon_threadsafe(draining.begin)
            assert stream.wait(lambda reader: reader.ended)
            assert stream.retries[-1] == "1000"
            assert "result" not in str(stream.messages)
    finally:
        draining.reset()
    with get_stream(board, last_event_id=last) as again:
        assert again.wait(lambda reader: reader.ended)
    assert again.messages[-1]["result"]["content"][0]["text"] == "done"


def test_a_resumed_stream_whose_client_does_not_read_is_given_up():
    async def given_up():
        never, writing = asyncio.Event(), asyncio.Event()
        sent = []

        async def send(message):
            sent.append(message["type"])
            if message["type"] == "http.response.body":
                writing.set()
                await never.wait()

        async def receive():
            await never.wait()

        holder = SimpleNamespace(user_id=1, token_digest="t")
        exchange = SimpleNamespace(send=send, receive=receive, holder=holder, extra=())
        log = event_log.begin("a session", b"1")
        session = SimpleNamespace(digest="a session", expires_at=float("inf"))
        position = SimpleNamespace(token=log.token, number=0, request_id=b"1")
        stream = resumption.ResumedStream(exchange, session, position)
        running = asyncio.ensure_future(stream.run())
        await asyncio.wait_for(writing.wait(), PATIENCE)
        assert stream.writing_since
        stream.stall()
        await asyncio.wait_for(running, PATIENCE)
        assert sent == ["http.response.start", "http.response.body"]

    asyncio.run(given_up())


@pytest.mark.parametrize("why", ["GONE", "STALLED"])
def test_no_question_is_taken_back_where_nobody_reads(why, monkeypatch):
    monkeypatch.setattr(node_mail, "_take", lambda addresses: [])

    async def ended():
        never, asked, written = asyncio.Event(), asyncio.Event(), []

        async def write(message):
            written.append(message)
            asked.set()
            if len(written) > 1:
                await never.wait()

        facts = SimpleNamespace(capabilities=b'{"elicitation":{}}', revision="2025-06-18")
        session = SimpleNamespace(digest="a session", facts=facts)
        exchange = SimpleNamespace(send=None, accepts=SimpleNamespace(events=True, json=True))
        stream = response_stream.AnswerStream(exchange, SimpleNamespace(), session)
        stream._questions = client_questions.ClientQuestions(session, write, lambda: None)
        params = b'{"message":"?","requestedSchema":{"type":"object","properties":{}}}'
        running = asyncio.ensure_future(stream.carry(stream.ask("elicitation/create", params)))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        stream._end(response_stream.End[why])
        assert await asyncio.wait_for(running, PATIENCE) is response_stream.End[why]
        assert len(written) == 1

    asyncio.run(ended())


def test_a_call_that_is_cancelled_does_not_wait_for_a_client_that_does_not_read(monkeypatch):
    monkeypatch.setattr(response_stream, "LAST_WORDS_SECONDS", 0.05)

    async def ended():
        async def send(_):
            await asyncio.Event().wait()

        exchange = SimpleNamespace(
            send=send, accepts=SimpleNamespace(events=True, json=True), extra=()
        )
        stream = response_stream.AnswerStream(exchange, SimpleNamespace(), None)
        running = asyncio.ensure_future(stream.carry(asyncio.sleep(60)))
        await asyncio.sleep(0)
        stream.cancel()
        assert await asyncio.wait_for(running, PATIENCE) is response_stream.End.CANCELLED

    asyncio.run(ended())
