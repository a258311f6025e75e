"""What a warm call must not cost: a query, a thread, a second reading of the request."""

import asyncio
import http.client
import json
import threading
import time
from contextlib import ExitStack

import pytest
from asgiref.sync import SyncToAsync
from django.conf import settings
from django.db.backends.utils import CursorWrapper

from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.virtualmcp.background_writes import settle
from tests.virtualmcp.wire_client import messages, modern_headers, modern_meta
from virtualmcp.eras import log_levels
from virtualmcp.transport import message_dispatch

ECHO = {"name": "echo", "arguments": {"text": "hi"}}


@pytest.fixture(params=["modern", "legacy", "aggregated", "streamed"])
def warm_call(request, ada, make_virtual_mcp, make_token, wire):
    """Call a tool, after everything has been used once.

    In the manner of an era; over two upstreams with mapped names; with progress as a stream.
    """
    era = "legacy" if request.param == "legacy" else "modern"
    with ExitStack() as stack:
        keys = ("alpha", "beta") if request.param == "aggregated" else ("alpha",)
        upstreams = {
            key: stack.enter_context(FakeUpstream(era=era, name=key).serve()) for key in keys
        }
        make_virtual_mcp("board", {key: upstream.url for key, upstream in upstreams.items()})
        client = wire("board", make_token(ada, "board"))
        client.initialize()

        def call():
            if request.param == "legacy":
                return client.legacy("tools/call", ECHO)
            if request.param == "streamed":
                slow = {"name": "slow", "arguments": {"steps": 2, "pause": 0}}
                return client.modern("tools/call", slow, meta=modern_meta(progressToken="p"))
            name = "beta_echo" if request.param == "aggregated" else "echo"
            return client.modern("tools/call", {**ECHO, "name": name})

        if request.param == "aggregated":
            client.modern("tools/list")
        for _ in range(3):
            assert call().status_code == 200
        # What the upstream says of itself is pinned beside the first requests.
        settle()
        # As beside a change feed that has just read.
        log_levels.heard_all_before(time.monotonic() + 60)
        yield call


def ended_well(response) -> bool:
    """Whether the answer has the tool's result, and all that belongs before it."""
    *before, last = messages(response)
    progress = [one["method"] for one in before]
    text = last["result"]["content"][0]["text"]
    return (text, progress) in (("hi", []), ("done", ["notifications/progress"] * 2))


def test_a_warm_call_asks_no_database_and_changes_no_thread(warm_call, monkeypatch):
    seen = []

    def note(what, original):
        def noting(self, *args, **kwargs):
            seen.append((what, threading.current_thread().name, args[:1]))
            return original(self, *args, **kwargs)

        return noting

    monkeypatch.setattr(CursorWrapper, "execute", note("query", CursorWrapper.execute))
    monkeypatch.setattr(CursorWrapper, "executemany", note("query", CursorWrapper.executemany))
    monkeypatch.setattr(SyncToAsync, "__call__", note("thread", SyncToAsync.__call__))
    monkeypatch.setattr(
        asyncio.BaseEventLoop,
        "run_in_executor",
        note("thread", asyncio.BaseEventLoop.run_in_executor),
    )
    for _ in range(5):
        assert ended_well(warm_call())
    assert seen == []


def test_a_warm_call_reads_its_request_once(warm_call, monkeypatch):
    read = []
    original = message_dispatch.read_message

    def reading(body):
        read.append(body)
        return original(body)

    monkeypatch.setattr(message_dispatch, "read_message", reading)
    monkeypatch.setattr(json, "loads", _noting_slow_reads(json.loads, read))
    warm_call()
    assert len(read) == 1


def _noting_slow_reads(original, read):
    """Note when the message reader falls back to the slow one."""

    def loads(text, *args, **kwargs):
        if kwargs.get("object_pairs_hook") is not None:
            read.append(text)
        return original(text, *args, **kwargs)

    return loads


def one_tool(request: bytes):
    """Answer as a stateless upstream with one tool does."""
    message = json.loads(request.partition(b"\r\n\r\n")[2])
    result = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
    if message["method"] == "tools/call":
        result = {"resultType": "complete", "content": [{"type": "text", "text": "hi"}]}
    elif message["method"] == "tools/list":
        result["tools"] = [{"name": "echo", "inputSchema": {"type": "object"}}]
    else:
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        result["serverInfo"] = {"name": "one", "version": "1"}
    return answer(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())


def test_a_thousand_calls_one_after_the_other_open_one_connection(
    ada, make_virtual_mcp, make_token, wire, gateway
):
    with RawUpstream(one_tool) as upstream:
        make_virtual_mcp("board", {"one": upstream.url})
        client = wire("board", make_token(ada, "board"))
        assert client.modern("tools/call", ECHO).status_code == 200
        settle()
        opened, asked = upstream.connections, len(upstream.requests)
        params = {**ECHO, "_meta": modern_meta()}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        headers = client.headers(**modern_headers("tools/call", params))
        headers["host"] = settings.PUBLIC_HOST
        connection = http.client.HTTPConnection(gateway.removeprefix("http://"))
        connection.connect()
        ours = connection.sock
        for _ in range(1_000):
            connection.request("POST", client.path, body, headers)
            got = connection.getresponse()
            assert got.status == 200
            assert json.loads(got.read())["result"]["content"][0]["text"] == "hi"
        # Toward the client it is one connection, too.
        assert connection.sock is ours
        connection.close()
        assert len(upstream.requests) == asked + 1_000
        # The first calls, which had to ask what the upstream is, may have left more than one.
        assert upstream.connections == opened
