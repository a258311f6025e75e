"""A warm call decides nothing anew, until something changes that it was decided from."""

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.background_writes import settle
from virtualmcp import route_table, tool_catalogue
from virtualmcp.models import UpstreamChoice
from virtualmcp.routing import call_plans, name_routes

ECHO = {"name": "echo", "arguments": {"text": "hi"}}


@pytest.fixture
def fake():
    with FakeUpstream().serve() as upstream:
        yield upstream


@pytest.fixture
def client(fake, ada, make_virtual_mcp, make_token, wire):
    make_virtual_mcp("board", {"alpha": fake.url})
    client = wire("board", make_token(ada, "board"))
    client.modern("tools/list")
    # What the upstream says of itself is pinned beside the first requests, in a new snapshot.
    settle()
    for _ in range(3):
        assert said(client) == "hi"
    return client


def said(client, **more):
    body = client.modern("tools/call", {**ECHO, **more}).json()
    return body["result"]["content"][0]["text"] if "result" in body else body["error"]["code"]


@pytest.fixture
def decided(monkeypatch):
    """How often a name was looked up."""
    seen = []
    find = name_routes.find

    async def noting(request, name, kind):
        seen.append(name)
        return await find(request, name, kind)

    monkeypatch.setattr(name_routes, "find", noting)
    return seen


def test_a_call_like_the_one_before_is_decided_by_what_was_found_then(client, decided):
    assert [said(client), said(client, arguments={"text": "ho"})] == ["hi", "ho"]
    assert decided == []


def test_a_tool_that_the_administrator_takes_away_is_gone_for_who_called_it(client, decided):
    UpstreamChoice.objects.update(tool_mode=UpstreamChoice.ToolMode.CHOSEN, chosen_tools=["slow"])
    route_table.forget()
    assert said(client) == -32602
    assert decided == ["echo"]


def test_another_token_is_decided_about_for_itself(client, decided, bob, make_token, wire):
    other = wire("board", make_token(bob, "board"))
    assert [said(other), said(other), said(client)] == ["hi", "hi", "hi"]
    assert decided == ["echo"]


def test_an_argument_that_a_new_list_mirrors_is_asked_for(client, fake, decided):
    tool = next(tool for tool in fake.tools if tool["name"] == "echo")
    schema = {"type": "object", "properties": {"text": {"type": "string", "x-mcp-header": "Text"}}}
    fake.tools[fake.tools.index(tool)] = {**tool, "inputSchema": schema}
    tool_catalogue.catalogue.forget()
    client.modern("tools/list")
    assert said(client) == -32020
    assert said(client) == -32020
    assert decided == ["echo", "echo"]


def test_no_more_plans_are_kept_than_may_be(client, monkeypatch, decided):
    monkeypatch.setattr(call_plans, "MOST_PLANS", 1)
    client.modern("tools/call", {"name": "slow", "arguments": {"steps": 1, "pause": 0}})
    assert len(call_plans._plans) == 1
    assert said(client) == "hi"
