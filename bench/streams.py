"""What streams cost: events on time, memory of open ones, a reader that stops, many calls."""

import json
import resource
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from load import META, Load, Target, connect, memory_kib, read_answer, run

SESSION_REVISION = "2025-11-25"


@dataclass(frozen=True)
class Timed:
    """Milliseconds: the first event after the request, and each event after it was written."""

    first_ms: float
    event_ms: float
    # Whether the first event came before the upstream wrote its second, every time.
    prompt: bool


def stream_request(target: Target, tool: str) -> bytes:
    """Return a call that asks for progress."""
    load = Load("stream", "tools/call", tool)
    message = json.loads(load.body(target))
    message["params"].setdefault("_meta", {})["progressToken"] = 7
    body = json.dumps(message).encode()
    lines = load.request(target).partition(b"\r\n\r\n")[0].decode().split("\r\n")
    lines = [line for line in lines if not line.startswith("Content-Length")]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def events_of(connection: socket.socket) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield each event's arrival (monotonic nanoseconds) and its message, until the result."""
    buffer = b""
    while True:
        part = connection.recv(1 << 16)
        arrived = time.monotonic_ns()
        if not part:
            return
        buffer += part
        while b"\n\n" in buffer:
            block, _, buffer = buffer.partition(b"\n\n")
            data = [line[6:] for line in block.split(b"\n") if line.startswith(b"data: {")]
            if data:
                message = json.loads(data[0])
                yield arrived, message
                if "result" in message or "error" in message:
                    return


def time_events(target: Target, times: int = 12) -> Timed:
    """Call the tool that reports progress, several times on one connection.

    Raises:
        RuntimeError: progress was lost or the result was wrong.
    """
    firsts: list[float] = []
    delays: list[float] = []
    prompt = True
    with connect(target) as connection:
        for _ in range(times):
            began = time.monotonic_ns()
            connection.sendall(stream_request(target, "steps"))
            seen = list(events_of(connection))
            notes = [one for one in seen if "method" in one[1]]
            if len(notes) != 5 or "result" not in seen[-1][1]:
                raise RuntimeError(f"{target.name}: {len(notes)} of 5 progress events")
            written = [int(message["params"]["message"]) for _, message in notes]
            arrived = [at for at, _ in notes]
            firsts.append((arrived[0] - began) / 1e6)
            delays += [
                (at - at_upstream) / 1e6 for at, at_upstream in zip(arrived, written, strict=True)
            ]
            prompt = prompt and arrived[0] < written[1]
    return Timed(statistics.median(firsts), statistics.median(delays), prompt)


def open_streams(target: Target, kind: str, number: int) -> tuple[int, float]:
    """Open streams that stay silent; returns how many opened and the KiB (PSS) each costs.

    ``kind``: "listen" is the stateless revision's ``subscriptions/listen``, "GET" a stateful
    session's stream. 0 streams where the target does not serve them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * number + 500)), hard))
    with ExitStack() as stack:
        # The first ones make what all share: a stream upstream, tables, modules.
        for _ in range(20):
            if not _open(target, kind, stack):
                return 0, 0.0
        before = memory_kib(target.pids)
        opened = 0
        for _ in range(number):
            if not _open(target, kind, stack):
                break
            opened += 1
        time.sleep(1)
        return opened, (memory_kib(target.pids) - before) / max(1, opened)


def _open(target: Target, kind: str, stack: ExitStack) -> bool:
    """Open one stream, with a session of its own for "GET"; False if it is refused."""
    connection = stack.enter_context(connect(target))
    if kind == "GET":
        session = open_session(target)
        if not session:
            return False
        headers = {"Accept": "text/event-stream", "Mcp-Session-Id": session}
        headers |= {"MCP-Protocol-Version": SESSION_REVISION}
        connection.sendall(_request("GET", target, headers, b""))
    else:
        params = {"_meta": META, "notifications": {"toolsListChanged": True}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
        headers = Load("listen", "subscriptions/listen").headers(target)
        connection.sendall(_request("POST", target, headers, json.dumps(message).encode()))
    got = b""
    while b"\r\n\r\n" not in got:
        part = connection.recv(65536)
        if not part:
            return False
        got += part
    return got.startswith(b"HTTP/1.1 200") and b"text/event-stream" in got.lower()


def open_session(target: Target) -> str:
    """Initialize as a stateful client; returns the session id, "" if there is none."""
    params = {
        "protocolVersion": SESSION_REVISION,
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    with connect(target) as connection:
        connection.sendall(_request("POST", target, headers, json.dumps(message).encode()))
        head = read_answer(connection).partition(b"\r\n\r\n")[0]
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "mcp-session-id":
            return value.strip()
    return ""


def _request(method: str, target: Target, headers: dict[str, str], body: bytes) -> bytes:
    parts = urlsplit(target.url)
    lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in {**headers, **target.headers}.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Stalled:
    """A fast upstream's answer behind a reader that stopped."""

    # Bytes that left the upstream and are in no socket: they are in the gateway.
    buffered: int
    memory_kib: int
    # Whether the upstream stood still over the last second.
    paused: bool


def slow_reader(target: Target, upstream: Target) -> Stalled:
    """Read 64 KiB of 64 MiB, stop for three seconds, and see where the rest is."""
    before = memory_kib(target.pids, "Private_Dirty")
    with connect(target) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.sendall(stream_request(target, "flood"))
        read = 0
        while read < 64 * 1024:
            read += len(connection.recv(8192))
        time.sleep(2)
        first = _written(upstream)
        time.sleep(1)
        second = _written(upstream)
        grown = memory_kib(target.pids, "Private_Dirty") - before
        ports = {urlsplit(upstream.url).port or 0, urlsplit(target.url).port or 0}
        waiting = _in_sockets(ports)
        # The upstream's end sends no more while it is read here; drop the connection after it.
        select.select([], [connection], [], 0)
    return Stalled(max(0, second - read - waiting), grown, first == second)


def _written(upstream: Target) -> int:
    """Ask the upstream how much of its flood has left it."""
    with connect(upstream) as connection:
        connection.sendall(Load("written", "tools/call", "written").request(upstream))
        body = read_answer(connection).partition(b"\r\n\r\n")[2]
    return int(json.loads(body)["result"]["written"])


def _in_sockets(ports: set[int]) -> int:
    """Return the bytes that wait in the kernel on connections to these ports."""
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ends = {int(fields[1].partition(":")[2], 16), int(fields[2].partition(":")[2], 16)}
        if ends & ports and fields[3] == "01":
            sent, received = fields[4].split(":")
            waiting += int(sent, 16) + int(received, 16)
    return waiting


def soak(target: Target, load: Load, marks: list[int]) -> list[tuple[int, int]]:
    """Make many calls; returns (calls so far, memory in KiB) at the beginning and at each mark."""
    warm = run(target, load, 3)
    seen = [(0, memory_kib(target.pids))]
    done, rate = 0, warm.calls_per_second
    for mark in marks:
        while done < mark:
            # Short enough to see what goes wrong, long enough not to stop all the time.
            turn = run(target, load, min(20, max(1, round((mark - done) / rate))))
            if turn.wrong:
                raise RuntimeError(f"{target.name}: {turn.wrong} wrong answers in {turn.calls}")
            done, rate = done + turn.calls, turn.calls_per_second
            print(f"{target.name}: {done:,} of {marks[-1]:,} calls", file=sys.stderr)
        seen.append((done, memory_kib(target.pids)))
    return seen
