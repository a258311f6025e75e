"""One load against one address with wrk, and whether the answers were right.

wrk would have to call Lua for each answer to look into it, which costs its core a third of the
calls. So an answer is read whole and compared on a connection of its own before and after each
round, and during the round wrk counts what failed, and the bytes it got: they have to be those
of as many right answers (``wrong`` holds what did not fit).
"""

import json
import os
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
SCRIPT = """
wrk.method = "POST"
wrk.body = [=[%(body)s]=]
%(headers)s
function done(summary, latency, requests)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"calls":%%d,"us":%%d,"bytes":%%.0f,"wrong":%%d,"p50":%%f,"p95":%%f,"p99":%%f}',
    summary.requests, summary.duration, summary.bytes,
    e.status + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50)/1000, latency:percentile(95)/1000, latency:percentile(99)/1000))
end
"""


@dataclass(frozen=True)
class Target:
    """An address under load and the processes whose CPU time counts as its cost."""

    name: str
    url: str
    pids: tuple[int, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    # It speaks only stateful revisions.
    legacy: bool = False
    # What it calls the tools of the first upstream.
    prefix: str = ""


@dataclass(frozen=True)
class Load:
    """What is sent, how many at a time, and what each answer must contain."""

    name: str
    method: str
    tool: str = ""
    concurrency: int = 32
    expect: str = "resultType"
    # Of the resource that is read, for resources/read.
    uri: str = ""

    def body(self, target: Target) -> str:
        """Return the JSON-RPC request."""
        params: dict[str, object] = {} if target.legacy else {"_meta": META}
        if self.tool:
            params |= {"name": target.prefix + self.tool, "arguments": {"text": "hello"}}
        if self.uri:
            params["uri"] = self.uri
        message = {"jsonrpc": "2.0", "id": 1, "method": self.method, "params": params}
        return json.dumps(message, separators=(",", ":"))

    def headers(self, target: Target) -> dict[str, str]:
        """Return the headers of the target's revision."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if not target.legacy:
            headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": self.method}
            name = target.prefix + self.tool if self.tool else self.uri
            headers |= {"Mcp-Name": name} if name else {}
        return headers | target.headers

    def request(self, target: Target) -> bytes:
        """Return the request as it goes over the wire."""
        body = self.body(target).encode()
        parts = urlsplit(target.url)
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in self.headers(target).items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


@dataclass(frozen=True)
class Run:
    """One round: calls a second, wrong answers, milliseconds, CPU microseconds a call."""

    calls_per_second: float
    wrong: int
    p50: float
    p95: float
    p99: float
    cpu_us: float
    calls: int = 0
    answer_bytes: int = 0


def process_tree(pid: int) -> list[int]:
    """Return ``pid`` and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += process_tree(int(child))
    return found


def cpu_times(pids: tuple[int, ...]) -> tuple[float, float]:
    """Return user and system seconds of the processes and their children, ended threads too."""
    user = system = 0
    for root in pids:
        for pid in process_tree(root):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user, system = user + int(fields[11]), system + int(fields[12])
    ticks = os.sysconf("SC_CLK_TCK")
    return user / ticks, system / ticks


def memory_kib(pids: tuple[int, ...], what: str = "Pss") -> int:
    """Return the memory of the processes and their children ("Pss": shared pages by share)."""
    total = 0
    for root in pids:
        for pid in process_tree(root):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(f"{what}:"):
                    total += int(line.split()[1])
    return total


def connect(target: Target) -> socket.socket:
    """Open a connection to the target."""
    parts = urlsplit(target.url)
    assert parts.hostname is not None and parts.port is not None
    connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_answer(connection: socket.socket) -> bytes:
    """Read one whole HTTP answer.

    Raises:
        RuntimeError: the connection ended before it.
    """
    got = b""
    while True:
        part = connection.recv(1 << 20)
        if not part:
            raise RuntimeError(f"half an answer: {got[:300]!r}")
        got += part
        head, end, body = got.partition(b"\r\n\r\n")
        if not end:
            continue
        lowered = head.lower()
        if b"content-length:" in lowered:
            wanted = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(body) >= wanted:
                return got
        elif body.endswith(b"0\r\n\r\n"):
            return got


def check(target: Target, load: Load) -> int:
    """Ask once on a connection of its own; returns how many bytes a right answer has.

    Raises:
        RuntimeError: the answer is not what it must be.
    """
    with connect(target) as connection:
        connection.sendall(load.request(target))
        answer = read_answer(connection)
    if not answer.startswith(b"HTTP/1.1 200") or load.expect.encode() not in answer:
        raise RuntimeError(f"{target.name}, {load.name}: {answer[:600]!r}")
    return len(answer)


def run(target: Target, load: Load, seconds: int) -> Run:
    """Put ``load`` on ``target`` for ``seconds``.

    Raises:
        RuntimeError: wrk failed or printed nothing, or an answer was wrong before or after.
    """
    size = check(target, load)
    script = SCRIPT % {
        "body": load.body(target),
        "headers": "\n".join(
            f'wrk.headers["{name}"] = "{value}"' for name, value in load.headers(target).items()
        ),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        before = sum(cpu_times(target.pids))
        command = ["wrk", "-t1", f"-c{load.concurrency}", f"-d{seconds}s", "-s", file.name]
        command += ["--timeout", "30s"]
        done = subprocess.run([*command, target.url], capture_output=True, text=True, check=False)
        used = sum(cpu_times(target.pids)) - before
    if done.returncode or not done.stderr.strip().endswith("}"):
        raise RuntimeError(f"wrk against {target.name}: {done.stderr or done.stdout}")
    seen = json.loads(done.stderr[done.stderr.rindex("{") :])
    size = max(size, check(target, load))
    calls = max(seen["calls"], 1)
    # What was still on its way when wrk stopped counts as bytes but not as an answer. Chunks
    # may be cut differently from answer to answer: a few bytes each.
    slack = load.concurrency * (size + 4096) + calls * 16
    odd = 0 if abs(seen["bytes"] - calls * size) <= slack else calls
    return Run(
        calls_per_second=calls / (seen["us"] / 1e6),
        wrong=seen["wrong"] + odd,
        p50=seen["p50"],
        p95=seen["p95"],
        p99=seen["p99"],
        cpu_us=used * 1e6 / calls,
        calls=calls,
        answer_bytes=size,
    )
