"""Runs the suites' client scenarios with the gateway as the client.

Each scenario is an MCP server that watches its client. The suite starts a command with the server's
address; the command hands the address to the test, which has the gateway use that server as an
upstream, and ends when the test is done.
"""

import contextlib
import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.official_suite import BASELINES, NODE, NPM
from tests.fakes.asgi_server import client_context
from tests.fakes.browser import Browser, walk_consent
from tests.journeys.wire_client import WireClient
from tests.running_gateway import RunningGateway, running_gateway

USER, PASSWORD = "conformance", "correct horse battery 7"
REDIRECT = "http://127.0.0.1:33418/callback"
COMMAND = Path(__file__).with_name("reporting_client.py")
SUITES = {"0.1.16": "conformance-2025", "0.2": "conformance-2026"}

# What is done with a scenario's server: its address, and the context the suite gives.
Use = Callable[[str, dict[str, Any]], None]


@dataclass
class Rig:
    """One gateway for all scenarios; each gets an upstream and a Virtual MCP of its own."""

    gateway: RunningGateway
    browser: Browser
    count: int = 0
    said: list[str] = field(default_factory=list)

    def client_of(self, server: str, **upstream: Any) -> WireClient:
        """Register a server as an upstream; returns a person's client, with tokens."""
        self.count += 1
        slug = f"scenario-{self.count}"
        registered = {"key": slug, "title": slug, "url": server, **upstream}
        self.gateway.apply(
            {
                "upstreams": [registered],
                "virtual_mcps": [
                    {"slug": slug, "title": slug, "audience": "everyone", "upstreams": [slug]}
                ],
            }
        )
        client = WireClient(self.gateway.endpoint(slug), verify=client_context())
        client.discover()
        client.redirect_uri = REDIRECT
        client.register()
        redirect = walk_consent(self.browser, client.authorize_url(), USER, PASSWORD)
        client.exchange(redirect)
        return client

    def note(self, what: str, message: dict[str, Any]) -> dict[str, Any]:
        """Keep a message for the report of a scenario that fails; returns it."""
        self.said.append(f"scenario-{self.count} {what}: {json.dumps(message)[:400]}")
        return message


@contextmanager
def rigged(*, tls: bool = False) -> Iterator[Rig]:
    """Run one gateway with one person."""
    configuration = {"users": [{"username": USER, "password": "env:PASSWORD_OF_THE_USER"}]}
    environment = {"PASSWORD_OF_THE_USER": PASSWORD}
    with running_gateway(configuration, environment=environment, tls=tls) as gateway:
        yield Rig(gateway, Browser((REDIRECT,), verify=client_context()))


@contextmanager
def controlled(rig: Rig, use: Use) -> Iterator[str]:
    """Serve the address to which the suite's client command reports."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server = self.rfile.read(int(self.headers["Content-Length"])).decode()
            try:
                use(server, json.loads(self.headers["X-Context"] or "{}"))
                said = "done"
            except BaseException:  # whatever it was, the suite's checks decide
                said = traceback.format_exc()
                rig.said.append(said[-1500:])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{door.server_port}/"
    door.shutdown()


def _program(suite: str) -> list[str]:
    return [str(NODE), str(NPM / "node_modules" / SUITES[suite] / "dist" / "index.js")]


def scenarios(suite: str) -> set[str]:
    """Return a suite's client scenarios."""
    command = [*_program(suite), "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    client = listed.partition("Client scenarios")[2].partition("\n\n")[0]
    return {line.split()[1] for line in client.splitlines() if line.strip().startswith("- ")}


def checks_of(
    name: str, control: str, folder: Path, *, suite: str = "0.2", options: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Run one scenario; returns the suite's checks."""
    command = f"{sys.executable} {COMMAND} {control}"
    given = ["--scenario", name, "--timeout", "100000", "-o", str(folder), *options]
    _run([*_program(suite), "client", "--command", command, *given])
    found = list(folder.rglob("checks.json"))
    checks: list[dict[str, Any]] = json.loads(found[0].read_text()) if found else []
    return checks


def _run(command: list[str]) -> None:
    """Run the suite until it has written its checks down.

    It then waits for every connection to its server to end, and a gateway keeps one open for what
    that server might still say.
    """
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as suite:
        given_up = threading.Timer(150, suite.kill)
        given_up.start()
        try:
            assert suite.stderr is not None
            for line in suite.stderr:
                if "saved to" in line:
                    break
            with contextlib.suppress(subprocess.TimeoutExpired):
                suite.wait(2)
        finally:
            given_up.cancel()
            suite.kill()


def failures(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the checks that count against us; a warning does too."""
    return [check for check in checks if check["status"] in ("FAILURE", "WARNING")]


def complaints(checks: list[dict[str, Any]]) -> list[str]:
    """Return what a scenario complains of, nothing when it passed."""
    if not any(check["status"] == "SUCCESS" for check in checks):
        return ["no check succeeded"]
    return [
        f"{check['id']}: {check.get('errorMessage', check.get('description'))}"
        for check in failures(checks)
    ]


def still_fails(checks: list[dict[str, Any]]) -> None:
    """Hold a baseline to what it says of a scenario that does not pass.

    Raises:
        AssertionError: it passes now, or did not run at all.
    """
    assert checks, "the suite did not run it"
    assert complaints(checks), "it passes now: name it under passes"


def known(suite: str) -> dict[str, Any]:
    """Return which scenarios pass and which do not yet, with the reason."""
    found: dict[str, Any] = yaml.safe_load((BASELINES / f"client-{suite}.yaml").read_text())
    return found


def named(kind: str, *, auth: bool) -> list[tuple[str, str]]:
    """Return suites and scenarios of the baselines that are on one of its two lists."""
    listed = [(suite, name) for suite in SUITES for name in known(suite)[kind]]
    return [(suite, name) for suite, name in listed if name.startswith("auth/") == auth]
