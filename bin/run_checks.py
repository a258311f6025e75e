"""Runs every check of ``bin/test``, then the tests; the exit status says whether all passed."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
# Tests wait for sockets and processes half of the time, so more of them run than there are cores.
WORKERS = str((os.cpu_count() or 2) + 1)
CODE = ["gateway_site", "consent", "virtualmcp", "upstreams", "oauthserver"]
CHECKS: tuple[tuple[str, list[str], str], ...] = (
    ("Style", ["ruff", "check", "."], "bin/test fixes nothing itself: .venv/bin/ruff check --fix"),
    ("Format", ["ruff", "format", "--check", "."], "Run .venv/bin/ruff format ."),
    ("Types", ["mypy", *CODE, "bin"], "Mend the types above."),
    ("Import rules", ["lint-imports"], "CONTRIBUTING.md says which room may import which."),
)


def run_check(name: str, command: list[str], advice: str) -> bool:
    """Run one check; its output is shown only when it fails."""
    started = time.monotonic()
    print(f"{name} ...", end=" ", flush=True)
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    passed = done.returncode == 0
    print(f"{'ok' if passed else 'FAILED'} ({time.monotonic() - started:.0f} s)", flush=True)
    if not passed:
        print(done.stdout[-8000:].rstrip())
        print(f"{name}: {advice}\n", flush=True)
    return passed


def main() -> int:
    """Run everything; pytest comes last, so that its closing line is the last one."""
    passed = [run_check(*check) for check in CHECKS]
    failed = [check[0] for check, good in zip(CHECKS, passed, strict=True) if not good]
    print("Tests ...", flush=True)
    if failed:
        # Before pytest, whose closing line stays the last one.
        print(f"These checks failed: {', '.join(failed)}", flush=True)
    command = [sys.executable, "-m", "pytest", "-n", WORKERS, "--dist", "worksteal", *sys.argv[1:]]
    tested = subprocess.run(command, cwd=ROOT, check=False).returncode
    return tested or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main())
