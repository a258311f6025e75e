"""One load against one address with wrk, every answer checked; latencies and CPU in numbers."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
SCRIPT = """
wrk.method = "POST"
wrk.body = [=[%(body)s]=]
%(headers)s
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) bad = 0 end
function response(status, headers, body)
  if status ~= 200 or not string.find(body, [=[%(expect)s]=], 1, true) then bad = bad + 1 end
end
function done(summary, latency, requests)
  local wrong = 0
  for _, thread in ipairs(threads) do wrong = wrong + (thread:get("bad") or 0) end
  local e = summary.errors
  io.stderr:write(string.format(
    '{"calls":%%d,"us":%%d,"wrong":%%d,"p50":%%f,"p95":%%f,"p99":%%f}',
    summary.requests, summary.duration,
    wrong + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50)/1000, latency:percentile(95)/1000, latency:percentile(99)/1000))
end
"""


@dataclass(frozen=True)
class Load:
    """What is sent, how many at a time, and what each answer must contain."""

    name: str
    method: str
    tool: str = ""
    concurrency: int = 32
    expect: str = "resultType"

    def body(self) -> str:
        """Return the JSON-RPC request."""
        params: dict[str, object] = {"_meta": META}
        if self.tool:
            params |= {"name": self.tool, "arguments": {"text": "hello"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": self.method, "params": params}
        return json.dumps(message, separators=(",", ":"))

    def headers(self) -> dict[str, str]:
        """Return the headers of the stateless revision."""
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": self.method,
        }
        return headers | ({"Mcp-Name": self.tool} if self.tool else {})


@dataclass(frozen=True)
class Target:
    """An address under load and the processes whose CPU time counts as its cost."""

    name: str
    url: str
    pids: tuple[int, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    # It speaks only stateful revisions.
    legacy: bool = False


@dataclass(frozen=True)
class Run:
    """One round: calls a second, wrong answers, milliseconds, CPU microseconds a call."""

    calls_per_second: float
    wrong: int
    p50: float
    p95: float
    p99: float
    cpu_us: float


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


def run(target: Target, load: Load, seconds: int) -> Run:
    """Put ``load`` on ``target`` for ``seconds``.

    Raises:
        RuntimeError: wrk failed or printed nothing.
    """
    headers = load.headers() | target.headers
    script = SCRIPT % {
        "body": load.body(),
        "headers": "\n".join(
            f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()
        ),
        "expect": load.expect,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        before = sum(cpu_times(target.pids))
        command = ["wrk", "-t1", f"-c{load.concurrency}", f"-d{seconds}s", "-s", file.name]
        done = subprocess.run([*command, target.url], capture_output=True, text=True, check=False)
        used = sum(cpu_times(target.pids)) - before
    if done.returncode or not done.stderr.strip().endswith("}"):
        raise RuntimeError(f"wrk against {target.name}: {done.stderr or done.stdout}")
    seen = json.loads(done.stderr[done.stderr.rindex("{") :])
    calls = max(seen["calls"], 1)
    return Run(
        calls_per_second=calls / (seen["us"] / 1e6),
        wrong=seen["wrong"],
        p50=seen["p50"],
        p95=seen["p95"],
        p99=seen["p99"],
        cpu_us=used * 1e6 / calls,
    )
