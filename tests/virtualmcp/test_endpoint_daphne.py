"""The endpoint on Daphne: bodies, refusals, streams and hang-ups as on uvicorn."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from django.db import connection

from tests.fakes.asgi_server import free_port
from tests.fakes.mcp_upstream import FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp.wire_client import (
    RawConnection,
    WireClient,
    messages,
    modern_headers,
    modern_meta,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gateway(transactional_db):
    """Base URL of the endpoint, served by Daphne in a process of its own."""
    port = free_port()
    environment = {
        **os.environ,
        "DATABASE_URL": _database_url(),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "GATEWAY_MAX_BODY_BYTES": "100000",
    }
    application = "tests.virtualmcp.served_endpoint:application"
    command = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), application]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def _database_url():
    """Name the database of the tests as a process of its own is told it."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    who = f"{database['USER']}:{database['PASSWORD']}".rstrip(":")
    return f"postgres://{who}@{database['HOST']}:{database['PORT']}/{database['NAME']}"


def _wait_for(port, process):
    deadline = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    process.kill()
    pytest.fail(f"Daphne did not start: {process.communicate()[0].decode()[-2_000:]}")


@pytest.fixture
def board(ada, gateway, make_virtual_mcp, make_token):
    """A client of a Virtual MCP over one upstream."""
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        headers = {"host": settings.PUBLIC_HOST}
        with httpx.Client(base_url=gateway, headers=headers, timeout=PATIENCE) as http:
            client = WireClient(http, "board", make_token(ada, "board"))
            client.upstream = upstream
            yield client


def test_calls_refusals_streams_and_hang_ups(board, gateway):
    """One test for one start of the server, which takes seconds."""
    # Refusals leave the connection usable.
    assert board.modern("server/discover", authorization="").status_code == 401
    assert board.modern("server/discover", host="evil.example").status_code == 421
    assert board.post(b"x" * 100_001).status_code == 413
    assert board.post(b"{").json()["error"]["code"] == -32700
    assert board.http.get(board.path).status_code == 405
    assert (
        board.modern("tools/call", {"name": "echo"}, content_type="text/plain").status_code == 415
    )
    # Calls in both eras, also with a body of several parts.
    text = "x" * 60_000
    called = board.modern("tools/call", {"name": "echo", "arguments": {"text": text}})
    assert called.json()["result"]["content"][0]["text"] == text
    board.initialize()
    called = board.legacy("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
    assert messages(called)[0]["result"]["content"][0]["text"] == "hi"
    # Progress.
    meta = modern_meta(progressToken="p")
    streamed = board.modern("tools/call", {"name": "slow", "arguments": {"steps": 2}}, meta=meta)
    assert [m.get("method") for m in messages(streamed)] == ["notifications/progress"] * 2 + [None]
    # A hang-up reaches the upstream.
    _hang_up(board, gateway)


def _hang_up(board, gateway):
    params = {"name": "hang", "arguments": {}, "_meta": modern_meta()}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = json.dumps(message).encode()
    headers = {**board.headers(), **modern_headers("tools/call", params)}
    raw = RawConnection(gateway)
    head = [f"POST {board.path} HTTP/1.1", f"host: {settings.PUBLIC_HOST}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    raw.send([*head, f"content-length: {len(body)}"], body)
    assert board.upstream.wait(lambda seen: "started:hang" in seen.events)
    raw.close()
    assert board.upstream.wait(lambda seen: "cancelled:hang" in seen.events)
