"""Compare the gateway with its bare upstream and with nginx, side by side in one run.

    python bench/run.py [--seconds 2] [--rounds 5] [--servers uvicorn,daphne] [--write FILE]

Needs ``wrk``; takes nginx along where it is installed. Rounds are interleaved (forward,
then backward), every answer is checked, medians are printed. Trust the ratios and the
CPU time per call; calls per second depend on the machine and on what else runs there.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stack as processes
from load import Load, Run, Target, run

LOADS = (
    Load("tools/call, 32 at a time", "tools/call", "echo", 32, "hello, and a few"),
    Load("tools/list of 20 tools, 8 at a time", "tools/list", "", 8, "tool_19"),
    Load("tools/call with a 64 KiB result, 8 at a time", "tools/call", "big", 8, "xxxxxxxx"),
)
MANY = (
    Load("tools/call, five upstreams", "tools/call", "echo", 32, "hello, and a few"),
    Load("tools/list over five upstreams, 100 tools, 8 at a time", "tools/list", "", 8, "tool_19"),
)
Results = dict[str, dict[str, list[Run]]]


def targets_of(open_processes: ExitStack, servers: list[str]) -> tuple[list[Target], list[Target]]:
    """Start everything; returns the targets over one upstream and those over five."""
    upstreams = [
        open_processes.enter_context(processes.upstream(prefix))
        for prefix in ("", "b_", "c_", "d_", "e_")
    ]
    port, pid = upstreams[0]
    one = [Target("direct", f"http://127.0.0.1:{port}/mcp", (pid,))]
    proxy = open_processes.enter_context(processes.nginx(port))
    if proxy:
        one.append(Target("nginx", f"http://127.0.0.1:{proxy[0]}/mcp", (proxy[1],)))
    many = []
    for server in servers:
        started = processes.gateway(server, [port for port, _ in upstreams])
        port, pid, tokens = open_processes.enter_context(started)
        for slug, targets in (("one", one), ("many", many)):
            headers = {"Authorization": f"Bearer {tokens[slug]}"}
            url = f"http://127.0.0.1:{port}/v1/mcp/{slug}"
            targets.append(Target(f"gateway on {server}", url, (pid,), headers))
    return one, many


def measure(options: argparse.Namespace) -> Results:
    """Run all rounds; returns every round by load and target."""
    results: Results = {}
    with ExitStack() as open_processes:
        one, many = targets_of(open_processes, options.servers.split(","))
        plan = [(load, target) for load in LOADS for target in one]
        plan += [(load, target) for load in MANY for target in many]
        plan += [(MANY[0], target) for target in one if target.name in ("direct", "nginx")]
        for load, target in plan:
            run(target, load, 1)
        for turn in range(options.rounds):
            for load, target in plan if turn % 2 == 0 else reversed(plan):
                seen = run(target, load, options.seconds)
                results.setdefault(load.name, {}).setdefault(target.name, []).append(seen)
                print(f"round {turn + 1}/{options.rounds}  {load.name}  {target.name}: "
                      f"{seen.calls_per_second:.0f}/s", file=sys.stderr)  # fmt: skip
    return results


def table(results: Results) -> str:
    """Return the medians as a Markdown table per load."""
    lines: list[str] = []
    for load, targets in results.items():
        medians = {
            name: {
                key: statistics.median(getattr(r, key) for r in rounds) for key in asdict(rounds[0])
            }
            for name, rounds in targets.items()
        }
        against = medians.get("nginx")
        lines += [
            f"**{load}**",
            "",
            "| system | x nginx | CPU µs a call | p50 ms | p95 ms | p99 ms | calls/s | wrong |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, seen in medians.items():
            ratio = seen["calls_per_second"] / against["calls_per_second"] if against else None
            wrong = sum(r.wrong for r in targets[name])
            lines.append(
                f"| {name} | {'' if ratio is None else f'{ratio:.3f}'} | {seen['cpu_us']:.0f} | "
                f"{seen['p50']:.2f} | {seen['p95']:.2f} | {seen['p99']:.2f} | "
                f"{seen['calls_per_second']:,.0f} | {wrong} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the tables, keep the raw rounds as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--servers", default="uvicorn,daphne")
    arguments.add_argument("--write", type=Path, help="put the tables into this Markdown file")
    options = arguments.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("This benchmark needs wrk: install the package 'wrk' and run it again.")
    results = measure(options)
    raw = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "rounds": {
            load: {name: [asdict(r) for r in rounds] for name, rounds in targets.items()}
            for load, targets in results.items()
        },
    }
    folder = Path(__file__).resolve().parent / "results"
    folder.mkdir(exist_ok=True)
    file = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(raw, indent=1))
    text = table(results)
    print(text)
    print(f"raw rounds: {file}")
    if options.write:
        begin, end = "<!-- measured -->\n", "<!-- end of measured -->"
        page = options.write.read_text()
        head, tail = page.split(begin)[0], page.split(end)[1]
        options.write.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


if __name__ == "__main__":
    main()
