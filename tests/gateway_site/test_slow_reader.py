"""A client that stops reading a fast upstream's answer: the upstream waits, little is held."""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.browser import Browser
from tests.fakes.raw_upstream import RawUpstream, Step, answer, stream
from tests.journeys.wire_client import WireClient
from tests.journeys.world import PASSWORD, STOPS, Person
from tests.patience import PATIENCE
from tests.running_gateway import another_node, running_gateway

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="it counts what waits in Linux's sockets"),
]
# security.md 3: what one stalled stream may hold in the process.
MOST_HELD = 256 * 1024
EVENTS = 2_000
FILLING = "x" * 16_000


def flood(request: bytes) -> list[Step]:
    """Answer a call with 32 MiB of progress, anything else as an upstream of one tool."""
    message = json.loads(request.partition(b"\r\n\r\n")[2])
    if message["method"] == "tools/call":
        token = message["params"]["_meta"]["progressToken"]
        notes = [
            {"progressToken": token, "progress": number, "message": FILLING}
            for number in range(EVENTS)
        ]
        events = [
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": note} for note in notes
        ]
        return stream(*(b"data: %s\n\n" % json.dumps(one).encode() for one in events))
    result: dict[str, object] = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
    if message["method"] == "tools/list":
        result["tools"] = [{"name": "flood", "inputSchema": {"type": "object"}}]
    else:
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        result["serverInfo"] = {"name": "flood", "version": "1"}
    body = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    return answer(json.dumps(body).encode())


def begin(client: WireClient, port: int) -> socket.socket:
    """Send the call on a socket whose receive buffer is small."""
    meta = {"progressToken": 1}
    body = client.body("tools/call", {"name": "flood", "arguments": {}, "_meta": meta})
    content = json.dumps(body).encode()
    lines = ["POST /v1/mcp/one HTTP/1.1", f"Host: {urlsplit(client.endpoint).netloc}"]
    lines += [f"{name}: {value}" for name, value in client.headers(body).items()]
    lines += [f"Content-Length: {len(content)}", "", ""]
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", port))
    connection.sendall("\r\n".join(lines).encode() + content)
    return connection


def waiting_in_sockets(*ports: int) -> int:
    """Return the bytes in the kernel on connections to or from these ports."""
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ends = {int(end.partition(":")[2], 16) for end in fields[1:3]}
        if ends & set(ports):
            waiting += sum(int(queue, 16) for queue in fields[4].split(":"))
    return waiting


def stands_still(upstream: RawUpstream) -> bool:
    """Whether, in time, the upstream gets rid of nothing for half a second."""
    deadline = time.monotonic() + PATIENCE
    seen = -1
    while time.monotonic() < deadline:
        if upstream.written == seen:
            return True
        seen = upstream.written
        time.sleep(0.5)
    return False


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[RawUpstream, WireClient, dict[str, int]]]:
    """One gateway on two servers, a client of it, and each server's port."""
    with RawUpstream(flood) as upstream, ExitStack() as stack:
        configuration = {
            "upstreams": [{"key": "raw", "title": "Raw", "url": upstream.url, "era": "modern"}],
            "virtual_mcps": [
                {"slug": "one", "title": "One", "audience": "everyone", "upstreams": ["raw"]}
            ],
            "users": [{"username": "ada", "password": "env:PASSWORD_OF_ADA"}],
        }
        environment = {"PASSWORD_OF_ADA": PASSWORD}
        gateway = stack.enter_context(running_gateway(configuration, environment=environment))
        other = stack.enter_context(another_node(gateway, server="daphne"))
        client = Person("ada", gateway, Browser(STOPS)).client_of("one")
        listening = {"uvicorn": gateway.listening, "daphne": other.listening}
        ports = {server: int(url.rpartition(":")[2]) for server, url in listening.items()}
        yield upstream, client, ports


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_a_reader_that_stops_pauses_the_upstream_and_little_is_held(nodes, server):
    upstream, client, ports = nodes
    others = upstream.written
    connection = begin(client, ports[server])
    read = 0
    while read < 64 * 1024:
        part = connection.recv(8192)
        assert part
        read += len(part)
    assert stands_still(upstream)
    sent = upstream.written - others
    assert sent < EVENTS * len(FILLING) / 2
    held = sent - read - waiting_in_sockets(upstream.port, ports[server])
    assert held <= MOST_HELD
    # When it reads again, the rest comes, to the last event.
    last = re.compile(rb'"progress": ?%d\b' % (EVENTS - 1))
    ends = b""
    while not last.search(ends):
        part = connection.recv(1 << 16)
        assert part
        ends = ends[-1_000:] + part
    connection.close()
