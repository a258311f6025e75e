"""The official suite's OAuth client scenarios, with the gateway as the client.

Each scenario is an MCP server behind an authorization server. An administrator registers it as an
upstream, a person connects their account through the consent page, and a client calls its tool.
"""

import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.official_suite import BASELINES, NODE, NPM
from tests.fakes.asgi_server import client_context
from tests.fakes.browser import Browser, walk_consent
from tests.journeys.wire_client import WireClient
from tests.running_gateway import RunningGateway, running_gateway

pytestmark = [pytest.mark.npm, pytest.mark.timeout(600)]

PROGRAM = NPM / "node_modules" / "conformance-2026" / "dist" / "index.js"
USER, PASSWORD = "conformance", "correct horse battery 7"
REDIRECT = "http://127.0.0.1:33418/callback"
CLIENT = Path(__file__).with_name("auth_client.py")
ROUNDS = 4


@dataclass
class Rig:
    """One gateway for all scenarios; each gets an upstream and a Virtual MCP of its own."""

    gateway: RunningGateway
    browser: Browser
    count: int = 0
    said: list[str] = field(default_factory=list)

    def use(self, server: str, context: dict[str, Any]) -> None:
        """Have a person use the scenario's server through the gateway."""
        self.count += 1
        slug = f"scenario-{self.count}"
        oauth = {}
        if context.get("client_id"):
            file = self.gateway.folder / f"{slug}.secret"
            file.write_text(str(context.get("client_secret", "")))
            oauth = {"client_id": context["client_id"], "client_secret": f"file:{file}"}
        upstream = {"key": slug, "title": slug, "url": server, "credential": "user_oauth"}
        self.gateway.apply(
            {
                "upstreams": [{**upstream, "oauth": oauth}],
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
        for _ in range(ROUNDS):
            link = self.call_tools(client, slug)
            if not link:
                return
            walk_consent(self.browser, link, USER, PASSWORD, until="Your accounts")

    def call_tools(self, client: WireClient, slug: str) -> str:
        """List and call every tool; returns the connect link that was given instead, or ""."""
        listed = client.rpc("tools/list").message
        self.said.append(f"{slug} list: {json.dumps(listed)[:400]}")
        link = _link(listed)
        for tool in listed.get("result", {}).get("tools", []):
            called = client.call(tool["name"]).message
            self.said.append(f"{slug} call: {json.dumps(called)[:400]}")
            link = link or _link(called)
        return link


def _link(message: dict[str, Any]) -> str:
    """Return the connect link in an answer, "" if it has none."""
    text = json.dumps(message)
    at = text.find("/connect/")
    if at < 0:
        return ""
    start = text.rfind("http", 0, at)
    return text[start:].split('"')[0].split("\\")[0].split(" ")[0]


@contextmanager
def rigged(*, tls: bool = False) -> Iterator[Rig]:
    """Run one gateway with one person."""
    configuration = {"users": [{"username": USER, "password": "env:PASSWORD_OF_THE_USER"}]}
    environment = {"PASSWORD_OF_THE_USER": PASSWORD}
    with running_gateway(configuration, environment=environment, tls=tls) as gateway:
        yield Rig(gateway, Browser((REDIRECT,), verify=client_context()))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """The gateway of the scenarios that are claimed."""
    with rigged() as rig:
        yield rig


@pytest.fixture(scope="module")
def control(rig: Rig) -> Iterator[str]:
    """The address for that gateway."""
    with controlled(rig) as address:
        yield address


@contextmanager
def controlled(rig: Rig) -> Iterator[str]:
    """Serve the address to which the suite's client command reports."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server = self.rfile.read(int(self.headers["Content-Length"])).decode()
            try:
                rig.use(server, json.loads(self.headers["X-Context"] or "{}"))
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


def scenarios() -> set[str]:
    """Return the suite's OAuth client scenarios."""
    listed = subprocess.run(
        [str(NODE), str(PROGRAM), "list"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.strip() for line in listed.splitlines()]
    return {line.split(" ")[1] for line in lines if line.startswith("- auth/")}


def checks_of(name: str, control: str, folder: Path) -> list[dict[str, Any]]:
    """Run one scenario; returns the suite's checks."""
    command = f"{sys.executable} {CLIENT} {control}"
    options = ["--scenario", name, "--timeout", "100000", "-o", str(folder)]
    subprocess.run(
        [str(NODE), str(PROGRAM), "client", "--command", command, *options],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    found = list(folder.rglob("checks.json"))
    checks: list[dict[str, Any]] = json.loads(found[0].read_text()) if found else []
    return checks


def failures(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the checks that count against us; a warning does too."""
    return [check for check in checks if check["status"] in ("FAILURE", "WARNING")]


def run_scenario(name: str, control: str, folder: Path) -> tuple[bool, str]:
    """Run one scenario; returns whether it passed, and its complaints."""
    checks = checks_of(name, control, folder)
    failed = failures(checks)
    said = "; ".join(f"{c['id']}: {c.get('errorMessage', c.get('description'))}" for c in failed)
    return bool(checks) and not failed, said or ("" if checks else "no checks")


def known() -> dict[str, dict[str, str] | list[str]]:
    """Return which scenarios pass and which are not claimed, with the reason."""
    found: dict[str, Any] = yaml.safe_load((BASELINES / "oauth-client.yaml").read_text())
    return found


def test_every_scenario_of_the_suite_is_named() -> None:
    assert scenarios() == set(known()["passes"]) | set(known()["not_yet"])


@pytest.mark.parametrize("name", known()["passes"])
def test_the_gateway_passes_as_oauth_client(
    rig: Rig, control: str, name: str, tmp_path: Path
) -> None:
    before = len(rig.said)
    passed, complaints = run_scenario(name, control, tmp_path)
    assert passed, "\n".join([complaints, *rig.said[before:]])


def test_at_an_https_address_the_gateway_is_known_by_its_own_document(tmp_path: Path) -> None:
    """The suite's only complaint is that the document is not the suite's own sample.

    Its server answers everything else as asked, without a registration.
    """
    with rigged(tls=True) as rig, controlled(rig) as control:
        checks = checks_of("auth/basic-cimd", control, tmp_path)
        url = rig.gateway.url
    complaints = {check["id"]: check["details"] for check in failures(checks)}
    assert complaints == {
        "cimd-client-id-used": {
            "expectedClientId": "https://conformance-test.local/client-metadata.json",
            "actualClientId": f"{url}/.well-known/oauth-client/gateway-public.json",
        }
    }, rig.said
    passed = {check["id"] for check in checks if check["status"] == "SUCCESS"}
    assert {"authorization-request", "token-request"} <= passed
    assert "client-registration" not in {check["id"] for check in checks}
