"""Compare the gateway with its bare upstream, with nginx and with other gateways, in one run.

    python bench/run.py [--rounds 5] [--seconds 2] [--servers uvicorn,granian,daphne]
                        [--with-peers] [--streams 1000] [--soak 1000000] [--profile] [--write PAGE]

docs/performance.md is written by

    python bench/peers.py install
    python bench/run.py --with-peers --profile --soak 1000000 --write docs/performance.md

Needs ``wrk``; takes nginx along where it is installed, and with ``--with-peers`` the gateways that
``bench/peers.py install`` has set up. Rounds are interleaved (forward, then backward), answers are
checked (``load.py`` says how), medians are printed. Trust the ratios and the CPU time per call;
calls per second depend on the machine and on what else runs there.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import peers
import report
import scaling
import stack as processes
import streams
import targets
from call_profile import profile
from load import Load, Target, connect, memory_kib, read_answer, run

CALL = Load("tools/call, 32 at a time", "tools/call", "echo", 32, "hello, and a few")
CALL_MANY = Load("tools/call, five upstreams, names mapped", "tools/call", "echo", 32, "hello, and")
LIST = Load(
    "tools/list of 100 tools over five upstreams, 8 at a time", "tools/list", "", 8, "tool_9"
)
BIG = Load("tools/call with a 64 KiB result, 8 at a time", "tools/call", "big", 8, "xxxxxxxx")
READ = Load(
    "resources/read of 64 KiB, 8 at a time",
    "resources/read",
    concurrency=8,
    expect="xxxxxxxx",
    uri="bench://big",
)
LOADS = {
    targets.CALL: CALL.name,
    targets.MANY: CALL_MANY.name,
    targets.LIST: LIST.name,
    targets.BIG: BIG.name,
    targets.READ: READ.name,
}
SUPPORTED = (targets.UVICORN, targets.DAPHNE)
# These take milliseconds for a call: fewer rounds tell enough.
SLOW = ("FastMCP proxy", "supergateway")
SLOW_ROUNDS = 2
# Daphne grows for itself (docs/performance.md) and is the server of a first look: a tenth tells.
DAPHNE_SOAK = 0.1
SOAK_MARKS = (0.1, 0.5, 1.0)
# What a stream takes differs by a tenth from one process to the next.
STREAM_PROCESSES = 3
Plan = list[tuple[Load, Target]]


class Bench:
    """Everything that runs side by side, and what is asked of it."""

    def __init__(self, options: argparse.Namespace, stack: ExitStack) -> None:
        self.stack = stack
        self.gateways: dict[str, processes.Gateway] = {}
        # All list the same names, so that those of all but the first have to be mapped.
        self.upstreams = [stack.enter_context(processes.upstream()) for _ in range(5)]
        port, pid = self.upstreams[0]
        self.direct = Target("direct", f"http://127.0.0.1:{port}/mcp", (pid,))
        self.nginx = self._nginx(port)
        ports = [port for port, _ in self.upstreams]
        for server in options.servers.split(","):
            self.gateways[server] = stack.enter_context(processes.gateway(server, ports))
        if "uvicorn" in self.gateways and (os.cpu_count() or 1) > 1:
            name = "uvicorn, two workers"
            self.gateways[name] = stack.enter_context(processes.gateway("uvicorn", ports, 2))
        self.peers, self.envoy_many = self._peers(ports) if options.with_peers else ([], None)
        self.list_direct, self.list_nginx = self._same_list()

    def gateway(self, server: str, slug: str) -> Target:
        """Return a Virtual MCP of one of the gateways as a target."""
        started = self.gateways[server]
        headers = {"Authorization": f"Bearer {started.tokens[slug]}"}
        url = f"http://127.0.0.1:{started.port}/v1/mcp/{slug}"
        prefix = "fast1_" if slug == "many" else ""
        return Target(f"gateway on {server}", url, started.pids, headers, prefix=prefix)

    def plan(self) -> Plan:
        """Return what is loaded with what."""
        one = [self.gateway(server, "one") for server in self.gateways]
        # The server that nobody is advised to use is compared where it matters most.
        served = [server for server in self.gateways if server != "granian"]
        many = [self.gateway(server, "many") for server in served]
        floor = [target for target in (self.direct, self.nginx) if target]
        lists = [target for target in (self.list_direct, self.list_nginx) if target]
        envoy = [self.envoy_many] if self.envoy_many else []
        plan = [(CALL, target) for target in [*floor, *one, *self.peers]]
        plan += [(CALL_MANY, target) for target in [*floor, *many, *envoy]]
        plan += [(LIST, target) for target in [*lists, *many, *envoy]]
        plan += [(BIG, target) for target in [*floor, *one, *self.peers]]
        alone = [self.gateway(server, "one") for server in served if "workers" not in server]
        return plan + [(READ, target) for target in [*floor, *alone]]

    def _nginx(self, upstream: int) -> Target | None:
        started = self.stack.enter_context(processes.nginx(upstream))
        if started is None:
            print("nginx is not installed and left out", file=sys.stderr)
            return None
        return Target("nginx", f"http://127.0.0.1:{started[0]}/mcp", (started[1],))

    def _peers(self, ports: list[int]) -> tuple[list[Target], Target | None]:
        enter = self.stack.enter_context
        found = [
            peers.target("Envoy MCP router", enter(peers.envoy(ports[:1]))),
            peers.target("FastMCP proxy", enter(peers.fastmcp(ports[0]))),
            peers.target("supergateway", enter(peers.supergateway(ports[0]))),
        ]
        many = peers.target("Envoy MCP router", enter(peers.envoy(ports)), "fast0__")
        return [target for target in found if target], many

    def _same_list(self) -> tuple[Target, Target | None]:
        """Have a fast upstream and nginx serve the very bytes of the gateway's merged list."""
        target = self.gateway(next(iter(self.gateways)), "many")
        with connect(target) as connection:
            connection.sendall(LIST.request(target))
            body = read_answer(connection).partition(b"\r\n\r\n")[2]
        result = body.partition(b'"result":')[2][:-1]
        if json.loads(result)["tools"][99:] == []:
            raise RuntimeError(f"not 100 tools: {body[:300]!r}")
        file = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "list.json"
        file.write_bytes(result)
        port, pid = self.stack.enter_context(processes.upstream(tools=file))
        return Target("direct", f"http://127.0.0.1:{port}/mcp", (pid,)), self._nginx(port)


def rounds_of(plan: Plan, options: argparse.Namespace) -> report.Results:
    """Run all rounds; returns every round by load and target."""
    results: report.Results = {}
    for load, target in plan:
        run(target, load, 1)
    for turn in range(options.rounds):
        for load, target in plan if turn % 2 == 0 else reversed(plan):
            if target.name in SLOW and turn >= SLOW_ROUNDS:
                continue
            seconds = options.seconds * (2 if target.name in SLOW else 1)
            seen = run(target, load, seconds)
            results.setdefault(load.name, {}).setdefault(target.name, []).append(seen)
            print(f"round {turn + 1}/{options.rounds}  {load.name}  {target.name}: "
                  f"{seen.calls_per_second:.0f}/s", file=sys.stderr)  # fmt: skip
    # In the order of the plan, whichever turn came first.
    order = {load.name: [target.name for one, target in plan if one is load] for load, _ in plan}
    return {load: {name: results[load][name] for name in names} for load, names in order.items()}


def stream_tables(bench: Bench, number: int) -> tuple[list[str], list[targets.Reached]]:
    """Measure streams; returns the tables and what they have to reach."""
    single = [server for server in bench.gateways if server in ("uvicorn", "daphne")]
    gateways = [bench.gateway(server, "one") for server in single]
    tables, reached = [], []
    for table, found in (
        events_table(bench, gateways),
        open_streams_table(bench, gateways, number),
        slow_reader_table(bench, gateways),
    ):
        tables.append(table)
        reached += found
    return tables, reached


def events_table(bench: Bench, gateways: list[Target]) -> tuple[str, list[targets.Reached]]:
    """Return how soon events come through."""
    rows, reached = [], []
    envoy = [peer for peer in bench.peers if peer.name == "Envoy MCP router"]
    floor = streams.time_events(bench.direct)
    for target in [bench.direct, *([bench.nginx] if bench.nginx else []), *envoy, *gateways]:
        try:
            seen = streams.time_events(target)
        except RuntimeError as lost:
            rows.append([target.name, str(lost), "", "", ""])
            continue
        added = max(0.0, seen.event_ms - floor.event_ms)
        figures = [f"{one:.2f}" for one in (seen.first_ms, seen.event_ms, added)]
        rows.append([target.name, *figures, "yes" if seen.prompt else "no"])
        if target.name in SUPPORTED:
            most = 4 if target.name == targets.DAPHNE else 2
            first = seen.first_ms - floor.first_ms
            reached.append(
                targets.at_most(f"first event, added, {target.name}", most, first, " ms")
            )
    title = "SSE: 5 progress notifications 20 ms apart, one call at a time"
    columns = [
        "system",
        "first event ms",
        "each event ms after it was written",
        "added at the median ms",
        "first event before the upstream wrote its second",
    ]
    return report.table(title, columns, rows), reached


def open_streams_table(
    bench: Bench, gateways: list[Target], number: int
) -> tuple[str, list[targets.Reached]]:
    """Return what an open stream takes."""
    rows, reached = [], []
    for target in gateways:
        server = target.name.removeprefix("gateway on ")
        most = 30 if target.name == targets.DAPHNE else 20
        for kind in ("listen", "GET"):
            count, each = _median_stream(bench, server, kind, number)
            rows.append([target.name, kind, count, f"{each:.1f}" if count else "refused"])
            if target.name in SUPPORTED:
                name = f"{kind} stream, {target.name}, of {count}"
                reached.append(targets.at_most(name, most, each if count else None, " KiB"))
    columns = ["system", "kind", "open", "KiB each (PSS)"]
    return report.table("Open streams", columns, rows), reached


def _median_stream(bench: Bench, server: str, kind: str, number: int) -> tuple[int, float]:
    """Return how many streams opened and the KiB of one, as half of the processes have it."""
    seen = []
    for _ in range(STREAM_PROCESSES):
        # Memory that another load left free would hide what a stream takes.
        with fresh_gateway(bench, server) as anew:
            seen.append(streams.open_streams(anew, kind, number))
    return sorted(seen, key=lambda one: one[1])[len(seen) // 2]


def slow_reader_table(bench: Bench, gateways: list[Target]) -> tuple[str, list[targets.Reached]]:
    """Return what is held for a client that stops reading."""
    rows, reached = [], []
    for target in gateways:
        stall = streams.slow_reader(target, bench.direct)
        held = stall.buffered / 1024
        paused = "yes" if stall.paused else "no"
        rows.append([target.name, f"{held:.0f}", stall.memory_kib, paused])
        if target.name in SUPPORTED:
            name = f"held for a slow reader, {target.name}"
            reached.append(targets.at_most(name, 256, held, " KiB"))
    title = "A reader that stops 64 KiB into 64 MiB"
    columns = ["system", "KiB in the gateway", "KiB its memory grew", "upstream paused"]
    return report.table(title, columns, rows), reached


@contextmanager
def fresh_gateway(bench: Bench, server: str) -> Iterator[Target]:
    """Run a gateway that no load has touched, as a target."""
    with processes.gateway(server, [bench.upstreams[0][0]]) as fresh:
        headers = {"Authorization": f"Bearer {fresh.tokens['one']}"}
        url = f"http://127.0.0.1:{fresh.port}/v1/mcp/one"
        yield Target(f"gateway on {server}", url, fresh.pids, headers)


def process_table(bench: Bench, plan: Plan, rest: dict[str, int]) -> str:
    """Return start-up time and memory of each gateway and peer."""
    rows = []
    seen = set()
    for _, target in plan:
        if target.name in seen or target.name == "direct":
            continue
        seen.add(target.name)
        started = bench.gateways.get(target.name.removeprefix("gateway on "))
        start = f"{started.start_seconds:.2f}" if started else ""
        rows.append([target.name, start, f"{rest[target.name] / 1024:.0f}",
                     f"{memory_kib(target.pids) / 1024:.0f}"])  # fmt: skip
    columns = ["system", "start-up s (ready)", "MiB before the load (PSS)", "MiB after it"]
    return report.table("Start-up and memory", columns, rows)


def soak_table(bench: Bench, calls: int) -> tuple[str, list[targets.Reached]]:
    """Return how memory goes over many calls, and whether it stays where it is."""
    rows, reached = [], []
    for server in ("uvicorn", "daphne"):
        if server not in bench.gateways:
            continue
        most = calls * (DAPHNE_SOAK if server == "daphne" else 1)
        # In a process of its own: what other loads left would hide what these calls take.
        with fresh_gateway(bench, server) as target:
            seen = streams.soak(target, CALL, [int(most * share) for share in SOAK_MARKS])
        cells = [f"{kib / 1024:.1f} after {done:,}" for done, kib in seen]
        (half, before), (total, after) = seen[-2:]
        slope = (after - before) / max(1, total - half) * 100_000
        rows.append([target.name, *cells, f"{slope:.0f}"])
        if server == "uvicorn":
            name = f"memory flat, uvicorn: KiB per 100,000 calls up to {total:,}"
            reached.append(targets.at_most(name, 128, slope, ""))
    columns = ["system", "MiB at the start", "a tenth", "half", "all",
               "KiB per 100,000 calls, second half"]  # fmt: skip
    return report.table("Memory over many calls (PSS)", columns, rows), reached


def scaling_table(bench: Bench, rounds: int, seconds: int) -> tuple[str, list[targets.Reached]]:
    """Return what a second worker brings."""
    two = "uvicorn, two workers"
    seen = None
    if two in bench.gateways:
        both = [bench.gateway(server, "one") for server in ("uvicorn", two)]
        pids = bench.upstreams[0][1]
        seen = scaling.measure(both[0], both[1], CALL, (pids,), rounds, seconds)
    reached = [targets.at_least("two workers on two cores against one on one", 1.7,
                                seen.times if seen else None)]  # fmt: skip
    if seen is None:
        return "", reached
    rows = [
        ["one worker, its load and its upstream on one core", f"{seen.one:,.0f}",
         f"{seen.one_cpu:.0f}", "1"],
        ["two workers, their load and upstream on two cores", f"{seen.two:,.0f}",
         f"{seen.two_cpu:.0f}", f"{seen.times:.2f}"],
    ]  # fmt: skip
    columns = ["tools/call", "calls/s", "CPU µs a call", "times"]
    return report.table("A second worker", columns, rows), reached


def measured(options: argparse.Namespace) -> tuple[report.Results, list[str]]:
    """Measure everything that was asked for; returns every round, and the tables."""
    with ExitStack() as stack:
        bench = Bench(options, stack)
        plan = bench.plan()
        rest = {target.name: memory_kib(target.pids) for _, target in plan}
        results = rounds_of(plan, options)
        tables = [report.loads_table(results), process_table(bench, plan, rest)]
        streamed, reached = stream_tables(bench, options.streams)
        tables += streamed
        scaled, times = scaling_table(bench, options.rounds, options.seconds)
        tables.append(scaled)
        reached = targets.targets_of(results, LOADS) + times + reached
        if options.soak:
            soaked, flat = soak_table(bench, options.soak)
            tables.append(soaked)
            reached += flat
        reached += [
            targets.at_most(f"start-up, {server}", 2, started.start_seconds, " s")
            for server, started in bench.gateways.items()
            if server != "granian"
        ]
    tables.insert(0, targets.targets_table(reached))
    if options.profile:
        tables.append("### Where the microseconds go\n")
        tables += [profile(name, "uvicorn", 5, False, 0) for name in ("call", "big", "list100")]
        tables.append(profile("call", "daphne", 5, False, 0))
    when = time.strftime("%Y-%m-%d", time.gmtime())
    tables.insert(
        0,
        f"Measured on {when} on {os.cpu_count()} cores with Python "
        f"{platform.python_version()}, {options.rounds} rounds of {options.seconds} s.\n",
    )
    return results, tables


def keep(results: report.Results, text: str) -> Path:
    """Write the raw rounds and the plot; returns the file of the rounds."""
    folder = Path(__file__).resolve().parent / "results"
    folder.mkdir(exist_ok=True)
    file = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}.json"
    raw = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tables": text,
        "rounds": {
            load: {name: [asdict(one) for one in rounds] for name, rounds in seen.items()}
            for load, seen in results.items()
        },
    }
    file.write_text(json.dumps(raw, indent=1))
    file.with_suffix(".svg").write_text(report.plot(results))
    return file


def main() -> None:
    """Measure, print the tables, keep the raw rounds and the plot."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--servers", default="uvicorn,granian,daphne")
    arguments.add_argument("--with-peers", action="store_true")
    arguments.add_argument("--streams", type=int, default=1000, help="how many to keep open")
    arguments.add_argument("--profile", action="store_true", help="needs py-spy")
    arguments.add_argument("--soak", type=int, default=0, help="calls for each server")
    arguments.add_argument("--write", type=Path, help="put the tables into this Markdown file")
    options = arguments.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("This benchmark needs wrk: install the package 'wrk' and run it again.")
    results, tables = measured(options)
    text = "\n".join(tables)
    file = keep(results, text)
    print(text)
    print(f"raw rounds: {file}, plot beside it")
    if options.write:
        picture = options.write.with_suffix(".svg")
        picture.write_text(report.plot(results))
        report.put_into(options.write, f"![Calls a second against nginx]({picture.name})\n\n{text}")


if __name__ == "__main__":
    main()
