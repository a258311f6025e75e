"""How many machine instructions a warm call takes, and in which functions (valgrind's callgrind).

    python bench/call_instructions.py [--load call] [--server uvicorn] [--calls 200] [--top 25]

Times of a short run differ by a fifth and more from one to the next, on a busy machine by far
more; instructions hardly differ. So this is what tells whether a change made a call cheaper. It
counts what the process does in its own code and in libraries, its threads included, while calls
come one at a time over one connection that is warm; not what the kernel does for it. Python
functions do not show, only what the interpreter does for them: ``call_profile.py`` shows those.
What the process does as often without calls is counted over as long a rest, and taken off.

The gateway starts under valgrind, which takes half a minute, and answers some fifty times slower.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import stack as processes
from call_profile import LOADS, SERVERS
from load import Load, Target, connect, read_answer

WARM_CALLS = 50
# A line of callgrind_annotate: instructions, their share, file:function, and in which library.
_LINE = re.compile(r"^\s*([\d,]+) \([^)]*\)\s+[^:]*:(\S+)(?: \[.*/([^/\]]+)\])?")


def send(target: Target, load: Load, calls: int) -> None:
    """Make so many calls one after the other, on one connection.

    Raises:
        RuntimeError: an answer is wrong.
    """
    request, expect = load.request(target), load.expect.encode()
    with connect(target) as connection:
        for _ in range(calls):
            connection.sendall(request)
            answer = read_answer(connection)
            if not answer.startswith(b"HTTP/1.1 200") or expect not in answer:
                raise RuntimeError(f"{load.name}: {answer[:300]!r}")


def counted(pid: int, target: Target, load: Load, calls: int, folder: Path) -> tuple[Path, Path]:
    """Count what some calls take; returns callgrind's file, and that of as long a rest."""

    def control(*what: str) -> None:
        subprocess.run(["callgrind_control", *what, str(pid)], check=True, capture_output=True)

    send(target, load, WARM_CALLS)
    control("--instr=on")
    # What the switch itself makes the process do, and its first translation, is not a call's.
    send(target, load, WARM_CALLS)
    control("--zero")
    began = time.monotonic()
    send(target, load, calls)
    took = time.monotonic() - began
    control("--dump")
    # The call log has been written by then, whose time counts with the calls.
    time.sleep(1)
    control("--zero")
    time.sleep(took)
    control("--dump")
    control("--instr=off")
    busy, rest = sorted(folder.glob("counted.*"), key=lambda file: int(file.suffix[1:]))[:2]
    return busy, rest


def functions_in(file: Path) -> Counter[tuple[str, str]]:
    """Return the instructions of each function, named with its library, in a file of callgrind."""
    done = subprocess.run(
        ["callgrind_annotate", "--auto=no", "--threshold=100", str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    seen: Counter[tuple[str, str]] = Counter()
    for line in done.stdout.splitlines():
        if found := _LINE.match(line):
            # A function that calls itself stands there twice.
            name = found[2].partition("'")[0]
            seen[name, found[3] or ""] += int(found[1].replace(",", ""))
    return seen


def table(busy: Path, rest: Path, calls: int, top: int) -> str:
    """Return all instructions of a call, and the functions that take most of them."""
    seen = functions_in(busy)
    beside = functions_in(rest)
    total, idle = ((sum(one.values())) / calls for one in (seen, beside))
    seen.subtract(beside)
    lines = [f"{total - idle:,.0f} instructions a call, the kernel's left out, and "
             f"{idle:,.0f} that are as many without calls", ""]  # fmt: skip
    if top:
        lines += ["| function | library | instructions a call | share |", "|---|---|---|---|"]
    for (name, library), count in seen.most_common(top):
        lines.append(
            f"| {name[:60]} | {library} | {count / calls:,.0f} | "
            f"{count / calls / (total - idle):.1%} |"
        )
    return "\n".join(lines)


def count(name: str, server: str, calls: int, top: int) -> str:
    """Start a gateway under valgrind and count; returns what there is to say as Markdown."""
    slug, load = LOADS[name]
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="callgrind-")))
        ports = [opened.enter_context(processes.upstream())[0] for _ in range(5)]
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        valgrind += [f"--callgrind-out-file={folder}/counted"]
        started = opened.enter_context(processes.gateway(server, ports, under=valgrind))
        headers = {"Authorization": f"Bearer {started.tokens[slug]}"}
        url = f"http://127.0.0.1:{started.port}/v1/mcp/{slug}"
        target = Target(f"gateway on {server}", url, started.pids, headers)
        busy, rest = counted(started.pids[0], target, load, calls, folder)
        return f"**{load.name}, {target.name}**: {table(busy, rest, calls, top)}\n"


def main() -> None:
    """Count one load and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--load", choices=LOADS, default="call")
    arguments.add_argument("--server", choices=SERVERS, default="uvicorn")
    arguments.add_argument("--calls", type=int, default=200)
    arguments.add_argument("--top", type=int, default=25)
    options = arguments.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("This needs valgrind: install the package 'valgrind' and run it again.")
    print(count(options.load, options.server, options.calls, options.top))


if __name__ == "__main__":
    main()
