"""Clients and upstreams of both eras: the four combinations, method by method (protocol.md 2.3)."""

import asyncio
import json
import time

import httpx
import pytest

from tests.fakes.mcp_catalogue import EXACT
from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.wire_client import META, WireClient
from tests.journeys.world import World
from tests.patience import once_below

CELLS = [(client, upstream) for client in ("modern", "legacy") for upstream in ("modern", "legacy")]
CANCEL_SECONDS = 1.0
_clients: dict[tuple[int, str, str], WireClient] = {}


@pytest.fixture(params=CELLS, ids=[f"{c} client, {u} upstream" for c, u in CELLS])
def cell(request: pytest.FixtureRequest, world: World) -> tuple[WireClient, FakeUpstream]:
    """Return a client with tokens and the upstream it reaches; one per cell is enough."""
    era, upstream = request.param
    key = (id(world), era, upstream)
    if key not in _clients:
        _clients[key] = world.person().client_of(f"{upstream}-alone", era=era)
    return _clients[key], getattr(world, upstream)


def test_tools_are_listed_and_called_with_everything_upstream_said(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, upstream = cell
    listed = client.rpc("tools/list").result
    tools = {tool["name"]: tool for tool in listed["tools"]}
    assert list(tools) == [tool["name"] for tool in upstream.tools]
    assert tools["echo"]["annotations"] == {"readOnlyHint": True, "vendorHint": 7}
    assert tools["headers"]["_meta"] == {"vendor/x": None}
    assert ("resultType" in listed) == (client.era == "modern")
    assert ("ttlMs" in listed) == (client.era == "modern")
    result = client.call("echo", {"text": "été"}).result
    assert result["content"] == [{"type": "text", "text": "été"}]
    assert result["structuredContent"] == {"text": "été"}
    assert ("resultType" in result) == (client.era == "modern")


def test_unknown_members_and_large_numbers_survive_to_the_byte(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, _ = cell
    answer = client.call("exact")
    content = EXACT[: EXACT.index(b',"resultType"')].lstrip(b"{")
    assert content in answer.raw
    assert answer.result["vendorTop"] == [1, 2, 3]
    assert answer.result["_meta"]["vendor/x"] is None


def test_a_failed_tool_and_a_refused_call_keep_their_form(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, _ = cell
    assert client.call("fail", {"text": "broken"}).result["isError"] is True
    refused = client.call("refuse", {"code": -32000 - 77000, "message": "not today"})
    assert refused.status == 200
    assert "not today" in refused.error["message"]
    unknown = client.call("nothing-of-that-name")
    assert (unknown.status, unknown.error["code"]) == (200, -32602)


def test_resources_and_templates_are_listed_and_read(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, upstream = cell
    uris = [one["uri"] for one in client.rpc("resources/list").result["resources"]]
    assert uris == [one["uri"] for one in upstream.resources]
    templates = client.rpc("resources/templates/list").result["resourceTemplates"]
    assert templates[0]["uriTemplate"] == "notes://{number}"
    read = client.rpc("resources/read", {"uri": "notes://7"}).result
    assert read["contents"][0]["uri"] == "notes://7"
    assert ("ttlMs" in read) == (client.era == "modern")
    missing = client.rpc("resources/read", {"uri": "file:///nowhere"})
    assert missing.error["code"] == (-32602 if client.era == "modern" else -32002)


def test_prompts_are_listed_rendered_and_completed(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, _ = cell
    assert [one["name"] for one in client.rpc("prompts/list").result["prompts"]] == ["greet"]
    got = client.rpc("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}}).result
    assert got["messages"][0]["content"]["text"] == "Hello Ada"
    completed = client.rpc(
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "greet"},
            "argument": {"name": "name", "value": "A"},
        },
    )
    assert completed.result["completion"]["values"] == ["Ada", "Alan"]


def test_progress_arrives_while_the_call_runs_under_the_clients_own_token(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, _ = cell
    body = client.body(
        "tools/call",
        {
            "name": "slow",
            "arguments": {"steps": 3, "pause": 0.25},
            "_meta": {"progressToken": "töken-1"},
        },
    )
    with client.http.stream(
        "POST", client.endpoint, json=body, headers=client.headers(body)
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        arrived = [
            (time.monotonic(), json.loads(line[5:]))
            for line in answer.iter_lines()
            if line.startswith("data:") and len(line) > 6
        ]
    progress = [(at, one["params"]) for at, one in arrived if "method" in one]
    assert [one["progress"] for _, one in progress] == [1, 2, 3]
    assert {one["progressToken"] for _, one in progress} == {"töken-1"}
    assert arrived[-1][1]["result"]["content"][0]["text"] == "done"
    # The first event was there long before the call ended.
    assert arrived[-1][0] - arrived[0][0] > 0.4


def test_log_messages_reach_the_client_that_wants_them(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, _ = cell
    if client.era == "modern":
        silent = client.call("log", {"text": "quiet"})
        assert silent.notifications == []
        loud = client.call("log", {"text": "heard"}, **{f"{META}logLevel": "info"})
    else:
        assert client.rpc("logging/setLevel", {"level": "info"}).result == {}
        loud = client.call("log", {"text": "heard"})
    assert [one["params"]["data"] for one in loud.notifications] == ["heard"]


async def hang_up_while_it_runs(client: WireClient, upstream: FakeUpstream) -> float:
    """Call a tool that never ends, hang up (or cancel), return how long upstream took to know."""
    body = client.body("tools/call", {"name": "hang", "arguments": {}})
    begun, ended = (upstream.events.count(f"{e}:hang") for e in ("started", "cancelled"))
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        headers = client.headers(body)
        calling = asyncio.create_task(http.post(client.endpoint, json=body, headers=headers))
        assert await upstream.seen(lambda up: up.events.count("started:hang") > begun)
        since = time.monotonic()
        if client.era == "modern":
            calling.cancel()
        else:
            method = "notifications/cancelled"
            note = {"jsonrpc": "2.0", "method": method, "params": {"requestId": body["id"]}}
            headers = client.headers(note)
            sent = await http.post(client.endpoint, json=note, headers=headers)
            assert sent.status_code == 202
        assert await upstream.seen(lambda up: up.events.count("cancelled:hang") > ended)
        took = time.monotonic() - since
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    return took


def test_a_cancelled_call_is_cancelled_upstream_within_a_second(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    # Stateless clients cancel by hanging up, stateful ones say so (protocol.md 2.3.4).
    client, upstream = cell
    asyncio.run(once_below(CANCEL_SECONDS, lambda: hang_up_while_it_runs(client, upstream)))
    assert client.call("echo", {"text": "alive"}).result["content"][0]["text"] == "alive"


def test_the_clients_token_and_headers_never_reach_the_upstream(
    cell: tuple[WireClient, FakeUpstream],
) -> None:
    client, upstream = cell
    assert client.tokens is not None
    client.rpc("tools/call", {"name": "headers", "arguments": {}}, X_Api_Key="mine", Cookie="a=b")
    seen = upstream.last_headers("tools/call")
    assert "authorization" not in seen
    assert "cookie" not in seen
    assert "x-api-key" not in seen
    for sent in upstream.requests:
        everything = json.dumps([sent.headers, sent.message, sent.query])
        assert client.tokens.access_token not in everything


def test_a_stateful_client_whose_session_ended_is_told_to_open_a_new_one(world: World) -> None:
    client = world.person().client_of("modern-alone", era="legacy")
    headers = client.headers({"method": "tools/list"})
    assert client.http.delete(client.endpoint, headers=headers).status_code in (200, 204)
    assert client.rpc("tools/list").status == 404
    client.session_id = ""
    assert client.rpc("tools/list").status == 400
    client.initialize()
    assert "echo" in client.names()
