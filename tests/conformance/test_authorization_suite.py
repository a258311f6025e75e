"""The conformance suite's scenarios for authorization servers, with a person in the browser.

The suite names neither a scope nor a resource: the gateway grants its default scope, and the
person picks the server.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conformance.official_suite import NODE, NPM
from tests.fakes.asgi_server import free_port
from tests.fakes.browser import Browser, walk_consent
from tests.running_gateway import RunningGateway, running_gateway

pytestmark = [pytest.mark.npm, pytest.mark.timeout(300)]

USER, PASSWORD = "conformance", "correct horse battery 7"
SCENARIOS = {"authorization-server-metadata-endpoint", "authorization-code-grant"}
ADDRESS = re.compile(r"https?://\S+/oauth/authorize\?\S+")


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    """Run a gateway with two servers to pick from; neither is ever called."""
    configuration = {
        "upstreams": [{"key": "any", "title": "Any", "url": "http://127.0.0.1:9/mcp"}],
        "virtual_mcps": [
            {"slug": slug, "title": slug.title(), "audience": "everyone", "upstreams": ["any"]}
            for slug in ("first", "second")
        ],
        "users": [{"username": USER, "password": "env:PASSWORD_OF_THE_USER"}],
    }
    environment = {"PASSWORD_OF_THE_USER": PASSWORD}
    with running_gateway(configuration, environment=environment) as running:
        yield running


def approve(gateway: RunningGateway, url: str, port: int) -> None:
    """Sign in, pick the second server, authorize, and hand the answer to the suite."""
    browser = Browser((f"http://127.0.0.1:{port}/",))
    page = browser.open(url)
    if any(form.field_of_kind("password") for form in page.forms):
        page = browser.sign_in(USER, PASSWORD)
    link = next(target for target, _ in page.links if "second" in target)
    answer = walk_consent(browser, gateway.url + link, USER, PASSWORD)
    httpx.get(answer, trust_env=False, timeout=20)


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_every_scenario_for_authorization_servers_passes(
    gateway: RunningGateway, revision: str, tmp_path: Path
) -> None:
    port = free_port()
    registered = httpx.post(
        f"{gateway.url}/oauth/register",
        json={
            "client_name": "Conformance suite",
            "redirect_uris": [f"http://127.0.0.1:{port}/callback"],
            "token_endpoint_auth_method": "none",
        },
        trust_env=False,
    )
    assert registered.status_code == 201, registered.text
    command = [str(NODE), str(NPM / "node_modules" / "conformance-2026" / "dist" / "index.js")]
    command += ["authorization", "--url", gateway.url, "--port", str(port)]
    command += ["--client-id", registered.json()["client_id"], "--spec-version", revision]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as suite:
        assert suite.stdout is not None
        said = []
        for line in suite.stdout:
            said.append(line)
            found = ADDRESS.search(line)
            if found:
                assert "resource=" not in found[0]
                assert "scope=" not in found[0]
                approve(gateway, found[0], port)
        status = suite.wait(60)
    results = {}
    for file in sorted(tmp_path.rglob("checks.json")):
        checks = json.loads(file.read_text())
        results[file.parent.name] = {check["id"]: check["status"] for check in checks}
    print(f"\n{revision}: {list(results.values())}")
    assert status == 0, "".join(said)[-3000:]
    for scenario in SCENARIOS:
        ran = [checks for name, checks in results.items() if scenario in name]
        assert len(ran) == 1, "".join(said)[-3000:]
        assert set(ran[0].values()) == {"SUCCESS"}, ran
