"""The official suites' OAuth client scenarios, with the gateway as the client.

Each scenario is an MCP server behind an authorization server. An administrator registers it as an
upstream, a person connects their account through the consent page, and a client calls its tool.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.client_suite import (
    PASSWORD,
    SUITES,
    USER,
    Rig,
    checks_of,
    complaints,
    controlled,
    failures,
    known,
    named,
    rigged,
    scenarios,
    still_fails,
)
from tests.fakes.browser import walk_consent
from tests.journeys.wire_client import WireClient

pytestmark = [pytest.mark.npm, pytest.mark.timeout(600)]

ROUNDS = 4
# The client id metadata document that the suite knows: an administrator may have one published at
# another address than the gateway's own, and enters that as the client id.
SAMPLE_DOCUMENT = "https://conformance-test.local/client-metadata.json"
SIGN_IN = f"""
import json, sys, time
from django.contrib.auth.models import User
from gateway_site import identity_grants
tokens = json.load(sys.stdin)
subject = identity_grants.claims_in(tokens["id_token"])["sub"]
user = User.objects.get(username="{USER}")
ends = {{"id_token": int(time.time()) + 300}}
identity_grants.remember(user.pk, "suite", subject, tokens, ends)
"""


def use(rig: Rig, server: str, context: dict[str, Any]) -> None:
    """Have a person use the scenario's server through the gateway, with an account there."""
    oauth = {}
    if context.get("client_secret"):
        file = rig.gateway.folder / f"{rig.count}.secret"
        file.write_text(context["client_secret"])
        oauth = {"client_id": context["client_id"], "client_secret": f"file:{file}"}
    elif context["scenario"] == "auth/basic-cimd":
        oauth = {"client_id": SAMPLE_DOCUMENT, "auth_method": "none"}
    account: dict[str, Any] = {"credential": "user_oauth", "oauth": oauth}
    if "idp_id_token" in context:
        account |= {"credential": "enterprise", "enterprise": signed_in_at(rig, context)}
    client = rig.client_of(server, **account)
    for _ in range(ROUNDS):
        link = call_tools(rig, client)
        if not link:
            return
        walk_consent(rig.browser, link, USER, PASSWORD, until="Your accounts")


def signed_in_at(rig: Rig, context: dict[str, Any]) -> dict[str, str]:
    """Leave what a sign-in at the suite's identity provider leaves, which shows no page for one.

    Returns how that provider vouches for the person at an upstream.
    """
    given = json.dumps({"id_token": context["idp_id_token"]})
    rig.gateway.manage("shell", "-c", SIGN_IN, given=given)
    return {
        "provider": "suite",
        "token_url": context["idp_token_endpoint"],
        "client_id": context["idp_client_id"],
        "subject_token": "id_token",
    }


def call_tools(rig: Rig, client: WireClient) -> str:
    """List and call every tool; returns the connect link that was given instead, or ""."""
    listed = rig.note("list", client.rpc("tools/list").message)
    link = _link(listed)
    for tool in listed.get("result", {}).get("tools", []):
        called = rig.note("call", client.call(tool["name"]).message)
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


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """The gateway of the scenarios that are claimed."""
    with rigged() as rig:
        yield rig


@pytest.fixture(scope="module")
def control(rig: Rig) -> Iterator[str]:
    """The address for that gateway."""
    with controlled(rig, lambda server, context: use(rig, server, context)) as address:
        yield address


@pytest.mark.parametrize("suite", SUITES)
def test_every_client_scenario_of_the_suite_is_named(suite: str) -> None:
    assert scenarios(suite) == set(known(suite)["passes"]) | set(known(suite)["not_yet"])


@pytest.mark.parametrize(("suite", "name"), named("passes", auth=True))
def test_the_gateway_passes_as_oauth_client(
    rig: Rig, control: str, suite: str, name: str, tmp_path: Path
) -> None:
    before = len(rig.said)
    complained = complaints(checks_of(name, control, tmp_path, suite=suite))
    assert not complained, "\n".join([*complained, *rig.said[before:]])


@pytest.mark.parametrize(("suite", "name"), named("not_yet", auth=True))
def test_what_the_baseline_names_does_not_pass_yet(
    control: str, suite: str, name: str, tmp_path: Path
) -> None:
    still_fails(checks_of(name, control, tmp_path, suite=suite))


def test_at_an_https_address_the_gateway_is_known_by_its_own_document(tmp_path: Path) -> None:
    """The suite's only complaint is that the document is not the suite's own sample.

    That one is used where an administrator enters it, as above. The suite's server answers
    everything else as asked, without a registration.
    """
    with (
        rigged(tls=True) as rig,
        controlled(rig, lambda server, _: use(rig, server, {"scenario": "its own"})) as control,
    ):
        checks = checks_of("auth/basic-cimd", control, tmp_path)
        url = rig.gateway.url
    complained = {check["id"]: check["details"] for check in failures(checks)}
    assert complained == {
        "cimd-client-id-used": {
            "expectedClientId": "https://conformance-test.local/client-metadata.json",
            "actualClientId": f"{url}/.well-known/oauth-client/gateway-public.json",
        }
    }, rig.said
    passed = {check["id"] for check in checks if check["status"] == "SUCCESS"}
    assert {"authorization-request", "token-request"} <= passed
    assert "client-registration" not in {check["id"] for check in checks}
