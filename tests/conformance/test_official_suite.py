"""The official conformance suite: against our upstream itself, and through the gateway.

Through the gateway there are four cells: the suite's revision and the upstream's era. The gateway
is two processes there, and of the requests of a scenario one after the other meets each in turn. A
cell has a baseline that names what does not pass yet and why; a scenario that fails without
standing there fails the test, and so does one that stands there and passes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conformance.header_forwarder import HeaderForwarder
from tests.conformance.official_suite import FULL_MARKS, baseline, differences, run_suite
from tests.conformance.upstream import app
from tests.fakes.asgi_server import serve
from tests.fakes.browser import Browser, walk_consent
from tests.journeys.wire_client import WireClient
from tests.running_gateway import RunningGateway, another_node, running_gateway
from tests.virtualmcp.wire_client import META, modern_meta
from tests.virtualmcp.wire_client import WireClient as StatelessClient

pytestmark = [
    pytest.mark.npm,
    pytest.mark.timeout(300),
    # The upstream's SDK warns of what the older suite still asks for.
    pytest.mark.filterwarnings("ignore:The .* capability is deprecated"),
]

REVISIONS = ["2025-11-25", "2026-07-28"]
ERAS = ["legacy", "modern"]
USER, PASSWORD = "conformance", "correct horse battery 7"
REDIRECT = "http://127.0.0.1:33418/callback"


@dataclass
class Rig:
    """A gateway of two processes over the conformance upstream, and one token for each server."""

    gateway: RunningGateway
    nodes: tuple[str, str]
    upstream: str
    tokens: dict[str, str]


def configuration(upstream: str) -> dict[str, object]:
    """Return one upstream and one Virtual MCP for each era."""
    return {
        "upstreams": [
            {"key": era, "title": era.title(), "url": upstream, "era": era} for era in ERAS
        ],
        "virtual_mcps": [
            {"slug": era, "title": era.title(), "audience": "everyone", "upstreams": [era]}
            for era in ERAS
        ],
        "users": [{"username": USER, "password": "env:PASSWORD_OF_THE_USER"}],
    }


def token_for(endpoint: str, browser: Browser) -> str:
    """Go through the whole authorization; returns an access token."""
    client = WireClient(endpoint)
    client.discover()
    client.redirect_uri = REDIRECT
    client.register()
    redirect = walk_consent(browser, client.authorize_url(), USER, PASSWORD)
    return client.exchange(redirect).access_token


def use(node: RunningGateway, era: str, token: str) -> None:
    """Have a process open its session upstream: the suite gives some calls half a second."""
    host = urlsplit(node.url).netloc
    with httpx.Client(
        base_url=node.listening, headers={"host": host}, timeout=60, trust_env=False
    ) as http:
        meta = modern_meta(**{META + "clientCapabilities": {}})
        params = {"name": "test_simple_text", "arguments": {}}
        answer = StatelessClient(http, era, token).modern("tools/call", params, meta=meta)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Run the upstream and both processes of a gateway in front of it."""
    password = {"PASSWORD_OF_THE_USER": PASSWORD}
    with (
        serve(app(), lifespan=True) as base,
        running_gateway(configuration(f"{base}/mcp"), environment=password) as gw,
        another_node(gw) as second,
    ):
        browser = Browser((REDIRECT,))
        tokens = {era: token_for(gw.endpoint(era), browser) for era in ERAS}
        for node in (gw, second):
            for era, token in tokens.items():
                use(node, era, token)
        yield Rig(gw, (gw.listening, second.listening), f"{base}/mcp", tokens)


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_upstream_itself_scores_full_marks(rig: Rig, revision: str, tmp_path: Path) -> None:
    verdicts = run_suite(revision, rig.upstream, tmp_path)
    said = differences(verdicts, {})
    assert not said, "\n".join(said)
    assert len(verdicts) == FULL_MARKS[revision]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("revision", REVISIONS)
def test_through_the_gateway_everything_passes_but_what_the_baseline_names(
    rig: Rig, revision: str, era: str, tmp_path: Path
) -> None:
    forwarder = HeaderForwarder(rig.gateway.url, f"Bearer {rig.tokens[era]}", rig.nodes)
    with serve(forwarder) as base:
        verdicts = run_suite(revision, f"{base}/v1/mcp/{era}", tmp_path)
    passed = sum(verdict.passed for verdict in verdicts.values())
    print(f"{revision} through the gateway to a {era} upstream: {passed}/{len(verdicts)}")
    assert len(verdicts) == FULL_MARKS[revision]
    said = differences(verdicts, baseline(f"{revision}-to-{era}"))
    assert not said, "\n".join(said)
    first, second = (forwarder.served[node] for node in rig.nodes)
    assert abs(first - second) <= 1
