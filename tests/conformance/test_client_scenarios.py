"""The official suites' other client scenarios: what an MCP server sees of the gateway.

An administrator registers the scenario's server as an upstream; a stateless client behind the
gateway lists, reads and calls everything there and answers what it is asked.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.client_suite import (
    Rig,
    checks_of,
    complaints,
    controlled,
    known,
    named,
    rigged,
    still_fails,
)
from tests.journeys.wire_client import WireClient

pytestmark = [pytest.mark.npm, pytest.mark.timeout(600)]

ROUNDS = 4
NUMBERS = {"a": 2, "b": 3}


def use(rig: Rig, server: str, context: dict[str, Any]) -> None:
    """List, read and call everything, with the arguments that the suite gives."""
    client = rig.client_of(server, credential="none")
    client.capabilities = {"elicitation": {"form": {}}}
    tools = listed(rig, client, "tools")
    schemas = {tool["name"]: tool["inputSchema"] for tool in tools}
    given = context.get("toolCalls") or [
        {"name": name, "arguments": arguments_for(name, schemas)} for name in schemas
    ]
    if "x-mcp-header" in str(schemas):
        # A stateless client would have to mirror arguments too; here the gateway alone does.
        client.era = "legacy"
        client.initialize()
    for one in given:
        call(rig, client, one["name"], one.get("arguments") or {})
    for one in listed(rig, client, "resources"):
        rig.note("read", client.rpc("resources/read", {"uri": one["uri"]}).message)
    for one in listed(rig, client, "prompts"):
        rig.note("prompt", client.rpc("prompts/get", {"name": one["name"]}).message)


def listed(rig: Rig, client: WireClient, kind: str) -> list[dict[str, Any]]:
    """Return what there is of one kind, nothing where the server has none."""
    message = rig.note(kind, client.rpc(f"{kind}/list").message)
    found: list[dict[str, Any]] = message.get("result", {}).get(kind, [])
    return found


def arguments_for(name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return what a scenario wants a tool to be called with."""
    if name == "json_schema_echo":
        return {"schema": schemas["json_schema_2020_12_tool"]}
    return {key: NUMBERS[key] for key in schemas[name].get("properties", {}) if key in NUMBERS}


def call(rig: Rig, client: WireClient, name: str, arguments: dict[str, Any]) -> None:
    """Call a tool to its end, answering forms with what they propose."""
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    for _ in range(ROUNDS):
        answer = client.rpc("tools/call", params)
        result = rig.note(name, answer.message).get("result", {})
        if result.get("resultType") != "input_required":
            return
        params = {
            "name": name,
            "arguments": arguments,
            "inputResponses": {
                key: filled_in(one["params"]) for key, one in result["inputRequests"].items()
            },
        }
        if "requestState" in result:
            params["requestState"] = result["requestState"]


def filled_in(form: dict[str, Any]) -> dict[str, Any]:
    """Accept a form with its defaults, and yes where it has none."""
    fields = form["requestedSchema"]["properties"]
    return {
        "action": "accept",
        "content": {key: field.get("default", True) for key, field in fields.items()},
    }


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """The gateway of all scenarios."""
    with rigged() as rig:
        yield rig


@pytest.fixture(scope="module")
def control(rig: Rig) -> Iterator[str]:
    """The address for that gateway."""
    with controlled(rig, lambda server, context: use(rig, server, context)) as address:
        yield address


@pytest.mark.parametrize(("suite", "name"), named("passes", auth=False))
def test_the_gateway_passes_as_client(
    rig: Rig, control: str, suite: str, name: str, tmp_path: Path
) -> None:
    before = len(rig.said)
    # Without a revision the suite takes the newest of its own that has the scenario.
    stateful = suite == "0.1.16" or name in known(suite)["stateful"]
    options = () if stateful else ("--spec-version", "2026-07-28")
    complained = complaints(checks_of(name, control, tmp_path, suite=suite, options=options))
    assert not complained, "\n".join([*complained, *rig.said[before:]])


@pytest.mark.parametrize(("suite", "name"), named("not_yet", auth=False))
def test_what_the_baseline_names_does_not_pass_yet(
    control: str, suite: str, name: str, tmp_path: Path
) -> None:
    still_fails(checks_of(name, control, tmp_path, suite=suite))
