"""Where the microseconds of a warm call go: a table by part of the gateway, under load.

    python bench/call_profile.py [--load call] [--server uvicorn] [--seconds 8] [--native]

Measures the CPU time of a call without the profiler (user and system apart, from ``/proc``),
then samples the same load with py-spy and shares that time out: each sample counts for the
innermost frame that belongs to a part (``PARTS``), so that a part's time includes what it calls
in libraries, and never what it calls in other parts. ``--native`` also shows frames in C (uvloop,
msgspec, httptools), at the price of slower sampling. The raw samples are kept in
``bench/results`` for https://speedscope.app or a flame graph.

The gateway gets the first core for itself, load and upstreams the others: the profiler samples by
the clock, and a process that is put off the core where it wakes another would seem to spend its
time in ``send``.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stack as processes
from load import Load, Target, cpu_times, process_tree, run

LOADS = {
    "call": ("one", Load("tools/call, 32 at a time", "tools/call", "echo", 32, "hello, and a few")),
    "call5": ("many", Load("tools/call, five upstreams", "tools/call", "echo", 32, "hello, and a")),
    "list": ("one", Load("tools/list of 20 tools", "tools/list", "", 8, "tool_19")),
    "list100": ("many", Load("tools/list of 100 tools", "tools/list", "", 8, "tool_19")),
    "big": ("one", Load("tools/call with 64 KiB", "tools/call", "big", 8, "xxxxxxxx")),
    "read": (
        "one",
        Load("resources/read of 64 KiB", "resources/read", "", 8, "xxxxxxxx", uri="bench://big"),
    ),
}
SERVERS = ("uvicorn", "daphne", "granian")
# The first that matches a frame decides.
LOOP = "event loop"
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (LOOP, ("/uvicorn/_compat.py", "/uvicorn/server.py", "/granian/_loops.py", "/asyncio/runners")),
    ("server and HTTP toward the client", (
        "/uvicorn/", "/granian/", "/daphne/", "/twisted/", "client_connections.py",
        "gateway_site/connection_flow.py", "gateway_site/express_", "gateway_site/request_",
    )),
    ("routing to the endpoint", ("/channels/", "gateway_site/asgi.py", "trusted_proxy.py")),
    ("gate: host, origin, headers, body", (
        "transport/request_gate.py", "transport/endpoint.py", "transport/known_heads.py",
    )),
    ("token and access", ("/oauthserver/", "virtualmcp/access_policy.py", "tool_policy")),
    ("message: parse, era, checks", (
        "transport/wire_messages.py", "transport/wire_validation.py",
        "transport/message_dispatch.py", "/virtualmcp/eras/",
    )),
    ("call log and metrics", (
        "virtualmcp/call_log", "metrics.py", "call_durations.py", "calls_in_flight",
    )),
    ("limits", ("rate_limit", "upstreams/call_gate.py")),
    ("answer and event streams", (
        "transport/response_stream.py", "transport/http_answers.py", "transport/relayed_calls.py",
        "transport/express_lane.py", "transport/overdue.py",
    )),
    ("route, names, mapping", ("/virtualmcp/",)),
    ("HTTP toward the upstream", (
        "upstreams/relay_", "upstreams/connection_pool.py", "upstreams/event_stream.py",
    )),
    ("credential, era and answer upstream", ("/upstreams/",)),
    ("background work", ("/gateway_site/",)),
)  # fmt: skip
# A thread that waits for work may look busy to the profiler.
WAITING = ("_worker (", "Condition.wait (", "Event.wait (", "wait (", "CallLog._run (")


def part_of(stack: list[str]) -> str:
    """Return the part that the innermost frame with an owner belongs to."""
    for frame in reversed(stack):
        for part, marks in PARTS:
            if any(mark in frame for mark in marks):
                return part
    return LOOP


def waits(stack: list[str]) -> bool:
    """Whether the thread was waiting: its innermost Python frame says so, or it has none."""
    python = [frame for frame in stack if ".py)" in frame]
    return not python or python[-1].startswith(WAITING)


def read_samples(file: Path) -> list[tuple[list[str], int]]:
    """Read py-spy's collapsed stacks: ``frame;frame;frame count``, outermost first."""
    samples = []
    for line in file.read_text().splitlines():
        text, _, count = line.rpartition(" ")
        samples.append((text.split(";"), int(count)))
    return samples


def own_code(stack: list[str]) -> str:
    """Return the innermost frame with an owner, shortened to what people look for."""
    for frame in reversed(stack):
        if any(mark in frame for _, marks in PARTS for mark in marks):
            name, _, place = frame.partition(" (")
            path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
            return f"{'/'.join(Path(path).parts[-2:])} {name}"
    return stack[-1].partition(" (")[0]


def sample(pid: int, target: Target, load: Load, seconds: int, native: bool) -> Path:
    """Run the load while py-spy watches; returns the file with the raw samples."""
    folder = Path(__file__).resolve().parent / "results"
    folder.mkdir(exist_ok=True)
    file = folder / f"profile-{time.strftime('%Y%m%d-%H%M%S')}.raw"
    loading = threading.Thread(target=run, args=(target, load, seconds + 2))
    loading.start()
    time.sleep(0.5)
    command = ["py-spy", "record", "--pid", str(pid), "--format", "raw", "--output", str(file)]
    command += ["--duration", str(seconds), "--rate", "400", "--full-filenames", "--nolineno"]
    path = Path(sys.executable).parent / "py-spy"
    if path.exists():
        command[0] = str(path)
    done = subprocess.run(
        [*command, *(["--native"] if native else [])], capture_output=True, text=True, check=False
    )
    loading.join()
    if done.returncode or not file.exists():
        sys.exit(f"py-spy: {done.stderr or done.stdout}")
    return file


def keep_apart(gateway: int, others: list[int]) -> None:
    """Give the gateway the first core, everything else the rest; wrk inherits it from here."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return
    for pid in process_tree(gateway):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            # A thread of the start may just have ended.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores[:1])
    for pid in (0, *others):
        os.sched_setaffinity(pid, cores[1:])


def shares(samples: list[tuple[list[str], int]], us: float, top: int) -> str:
    """Return the two Markdown tables: by part, and the costliest functions of ours."""
    samples = [one for one in samples if not waits(one[0])]
    total = sum(count for _, count in samples)
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for stack, count in samples:
        parts[part_of(stack)] += count
        functions[own_code(stack)] += count
    lines = ["| part | µs a call | share |", "|---|---|---|"]
    for name, count in parts.most_common():
        lines.append(f"| {name} | {us * count / total:.1f} | {count / total:.1%} |")
    if top:
        lines += ["", "| function, with what it calls in libraries | µs a call |", "|---|---|"]
    for name, count in functions.most_common(top):
        lines.append(f"| {name} | {us * count / total:.1f} |")
    return "\n".join(lines)


def profile(name: str, server: str, seconds: int, native: bool, top: int) -> str:
    """Start a gateway, measure, sample; returns what there is to say as Markdown."""
    slug, load = LOADS[name]
    with ExitStack() as open_processes:
        upstreams = [open_processes.enter_context(processes.upstream()) for _ in range(5)]
        started = open_processes.enter_context(
            processes.gateway(server, [port for port, _ in upstreams])
        )
        headers = {"Authorization": f"Bearer {started.tokens[slug]}"}
        url = f"http://127.0.0.1:{started.port}/v1/mcp/{slug}"
        prefix = "fast1_" if slug == "many" else ""
        target = Target(f"gateway on {server}", url, started.pids, headers, prefix=prefix)
        before = os.sched_getaffinity(0)
        keep_apart(started.pids[0], [pid for _, pid in upstreams])
        open_processes.callback(os.sched_setaffinity, 0, before)
        run(target, load, 2)
        user, system = cpu_times(target.pids)
        bare = run(target, load, seconds)
        user, system = (
            (after - before) * 1e6 / bare.calls
            for after, before in zip(cpu_times(target.pids), (user, system), strict=True)
        )
        file = sample(started.pids[0], target, load, seconds, native)
    title = (
        f"**{load.name}, {target.name}**: {bare.cpu_us:.0f} µs of CPU a call "
        f"({user:.0f} user, {system:.0f} system), {bare.calls_per_second:,.0f} calls/s"
    )
    print(f"raw samples: {file}", file=sys.stderr)
    return f"{title}\n\n{shares(read_samples(file), bare.cpu_us, top)}\n"


def main() -> None:
    """Profile one load and print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--load", choices=LOADS, default="call")
    arguments.add_argument("--server", choices=SERVERS, default="uvicorn")
    arguments.add_argument("--seconds", type=int, default=8)
    arguments.add_argument("--native", action="store_true")
    arguments.add_argument("--top", type=int, default=25)
    options = arguments.parse_args()
    print(profile(options.load, options.server, options.seconds, options.native, options.top))


if __name__ == "__main__":
    main()
