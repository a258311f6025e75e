"""What a Virtual MCP says of itself when a client connects."""

import time

import pytest

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, in_thread
from virtualmcp.routing import opening as openings
from virtualmcp.routing.opening import opening

UI = "io.modelcontextprotocol/ui"


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


async def opened(client=None):
    client = client or Client()
    return await opening(await client.server(), routed.holder(client.user_id), client.facts)


async def made(*upstreams, **more):
    await in_thread(
        lambda: routed.virtual_mcp(*(routed.upstream(fake, key) for key, fake in upstreams), **more)
    )


async def test_capabilities_are_the_union_and_nothing_that_is_not_served():
    first = FakeUpstream(capabilities={"tools": {}, "logging": {}, "tasks": {}})
    second = FakeUpstream(
        era="legacy",
        capabilities={
            "resources": {"subscribe": True, "listChanged": True},
            "extensions": {UI: {}},
        },
    )
    with first.serve(), second.serve():
        await made(("alpha", first), ("beta", second))
        facts = await opened()
    assert facts.capabilities == {
        # What is offered here can always change.
        "tools": {"listChanged": True},
        "logging": {},
        "resources": {"listChanged": True, "subscribe": True},
        "extensions": {UI: {}},
    }
    assert facts.server_info["name"] == "team"


async def test_a_single_upstream_passes_extensions_and_experiments_on():
    extensions = {UI: {}, "com.example/x": {"a": 1}, "io.modelcontextprotocol/tasks": {}}
    fake = FakeUpstream(capabilities={"experimental": {"e": {}}, "extensions": extensions})
    with fake.serve():
        await made(("alpha", fake))
        facts = await opened()
    assert facts.capabilities == {
        "tools": {"listChanged": True},
        "experimental": {"e": {}},
        "extensions": extensions,
    }


async def test_instructions_begin_with_the_administrators_and_name_each_upstream():
    first = FakeUpstream(instructions="Use\u202e alpha.")
    second = FakeUpstream(instructions="Use beta.")
    with first.serve(), second.serve():
        await made(("alpha", first), ("beta", second), instructions="Be kind.")
        facts = await opened()
    assert facts.instructions == (
        "Be kind.\n\n## Alpha (alpha)\nUse alpha.\n\n## Beta (beta)\nUse beta."
    )


async def test_instructions_of_a_single_upstream_have_no_heading_and_are_capped():
    fake = FakeUpstream(instructions="x" * 50_000)
    with fake.serve():
        await made(("alpha", fake))
        facts = await opened()
    assert facts.instructions == "x" * openings.MOST_FROM_ONE


async def test_connecting_again_asks_nobody():
    fake = FakeUpstream()
    with fake.serve():
        await made(("alpha", fake))
        first = await opened()
        await routed.settled()
        asked = len(fake.requests)
        with routed.counted_queries() as queries:
            assert await opened() == first
        assert len(fake.requests) == asked
        assert queries == []


async def test_a_slow_upstream_does_not_hold_the_opening_up(monkeypatch):
    monkeypatch.setattr(openings, "LONGEST_WAIT", 0.3)
    fast, slow = FakeUpstream(), FakeUpstream()
    with fast.serve(), slow.serve():
        slow.canned["server/discover"] = Canned(delay=3_600)
        await made(("fast", fast), ("slow", slow))
        started = time.monotonic()
        facts = await opened()
        assert time.monotonic() - started < 20
    assert "Fast" in facts.instructions


async def test_an_upstream_nobody_could_ask_may_still_have_prompts_and_resources():
    await made(("dead", None))
    facts = await opened()
    changing = {"listChanged": True}
    lists = {"tools": changing, "prompts": changing, "resources": changing}
    assert facts.capabilities == {**lists, "completions": {}}
