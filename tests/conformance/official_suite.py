"""Runs the official conformance suite (npm, see ``tests/npm``) and compares it with a baseline."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NPM = Path(__file__).parent.parent / "npm"
NODE = NPM / "node_modules" / ".bin" / "node"
BASELINES = Path(__file__).parent / "baselines"

# Which published version of the suite speaks for a revision, and how it is asked for it.
SUITES = {
    "2025-11-25": ("conformance-2025", ["--spec-version", "2025-11-25"]),
    "2026-07-28": ("conformance-2026", ["--requirements", "2026-07-28"]),
}
FULL_MARKS = {"2025-11-25": 30, "2026-07-28": 37}


@dataclass(frozen=True)
class Verdict:
    """How one scenario ended; ``complaints`` are its failed checks in the suite's own words."""

    passed: bool
    complaints: tuple[str, ...] = ()


def run_suite(revision: str, url: str, folder: Path) -> dict[str, Verdict]:
    """Run every scenario that counts for ``revision`` against ``url``; by scenario name.

    Raises:
        RuntimeError: the suite itself did not run to its end.
    """
    package, options = SUITES[revision]
    program = NPM / "node_modules" / package / "dist" / "index.js"
    command = [str(NODE), str(program), "server", "--url", url, *options, "-o", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if "=== SUMMARY ===" not in ended.stdout:
        raise RuntimeError(
            f"the suite did not finish: {ended.stdout[-1500:]}{ended.stderr[-1500:]}"
        )
    verdicts = {}
    for result in sorted(folder.glob("server-*/checks.json")):
        name = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT.*$", r"\1", result.parent.name)
        verdicts[name] = _verdict(json.loads(result.read_text()))
    counted = _scenarios_that_count(revision)
    return {name: verdict for name, verdict in verdicts.items() if not counted or name in counted}


def _verdict(checks: list[dict[str, Any]]) -> Verdict:
    failed = [check for check in checks if check["status"] == "FAILURE"]
    complaints = tuple(f"{check['id']}: {check.get('errorMessage', '')}" for check in failed)
    return Verdict(passed=bool(checks) and not failed, complaints=complaints)


def _scenarios_that_count(revision: str) -> set[str]:
    package, options = SUITES[revision]
    if "--requirements" not in options:
        return set()
    frozen = NPM / "node_modules" / package / "requirements" / f"{revision}.yaml"
    return set(yaml.safe_load(frozen.read_text())["server"])


def baseline(name: str) -> dict[str, str]:
    """Read which scenarios are known not to pass yet, each with its reason."""
    known: dict[str, str] = yaml.safe_load((BASELINES / f"{name}.yaml").read_text())["not_yet"]
    return known or {}


def differences(verdicts: dict[str, Verdict], known: dict[str, str]) -> list[str]:
    """Say what is worse or better than the baseline; empty when it is exactly as written there."""
    said = []
    for name, verdict in verdicts.items():
        if not verdict.passed and name not in known:
            said.append(f"{name} fails: {'; '.join(verdict.complaints)}")
    for name in known:
        if name not in verdicts:
            said.append(f"{name} is in the baseline and is no scenario of the suite")
        elif verdicts[name].passed:
            said.append(f"{name} passes now: take it out of the baseline")
    return said
