"""What a warm call must not cost: a query, a thread, a second reading of the request."""

import asyncio
import json
import threading
import time

import pytest
from asgiref.sync import SyncToAsync
from django.db.backends.utils import CursorWrapper

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.wire_client import messages
from virtualmcp import definition_pins
from virtualmcp.transport import message_dispatch

ECHO = {"name": "echo", "arguments": {"text": "hi"}}


@pytest.fixture(params=["modern", "legacy"])
def warm_call(request, ada, make_virtual_mcp, make_token, wire):
    """Call a tool in the manner of an era, after everything has been used once."""
    with FakeUpstream(era=request.param).serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        client = wire("board", make_token(ada, "board"))
        client.initialize()

        def call():
            if request.param == "modern":
                return client.modern("tools/call", ECHO)
            return client.legacy("tools/call", ECHO)

        for _ in range(3):
            assert call().status_code == 200
        # What the upstream says of itself is pinned beside the first requests.
        until = time.monotonic() + 10
        while definition_pins._background and time.monotonic() < until:
            time.sleep(0.01)
        yield call


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
        assert messages(warm_call())[0]["result"]["content"][0]["text"] == "hi"
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
