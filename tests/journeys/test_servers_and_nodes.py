"""The same gateway on Daphne, and as two processes on PostgreSQL or with Redis."""

import asyncio
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.fakes.browser import Browser
from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.test_cells import CANCEL_SECONDS, hang_up_while_it_runs
from tests.journeys.wire_client import WireClient
from tests.journeys.world import PASSWORD, PATIENCE, STOPS, Person, within
from tests.patience import once_below
from tests.running_gateway import RunningGateway, another_node, running_gateway

NAME = "ada"


def configuration(upstream: FakeUpstream, *keys: str) -> dict[str, Any]:
    """Return one Virtual MCP over the upstream, offered under each of ``keys``."""
    return {
        "upstreams": [
            {"key": key, "title": key.title(), "url": upstream.url, "era": "modern"} for key in keys
        ],
        "virtual_mcps": [
            {"slug": "one", "title": "One", "audience": "everyone", "upstreams": list(keys)}
        ],
        "users": [{"username": NAME, "password": "env:PASSWORD_OF_ADA"}],
    }


@contextmanager
def gateway_over(
    upstream: FakeUpstream, *, server: str = "uvicorn", **environment: str
) -> Iterator[RunningGateway]:
    """Run a gateway over ``upstream``."""
    with running_gateway(
        configuration(upstream, "first"),
        server=server,
        environment={"PASSWORD_OF_ADA": PASSWORD, **environment},
    ) as gateway:
        yield gateway


def test_on_daphne_calls_stream_and_a_hang_up_reaches_the_upstream_within_a_second() -> None:
    with (
        FakeUpstream(era="modern").serve() as upstream,
        gateway_over(upstream, server="daphne") as gateway,
    ):
        client = Person(NAME, gateway, Browser(STOPS)).client_of("one")
        moved = client.call("slow", {"steps": 3, "pause": 0.02}, progressToken=7)
        assert [one["params"]["progress"] for one in moved.notifications] == [1, 2, 3]
        assert moved.result["content"][0]["text"] == "done"
        asyncio.run(once_below(CANCEL_SECONDS, lambda: hang_up_while_it_runs(client, upstream)))
        client.era = "legacy"
        client.initialize()
        assert "echo" in client.names()
        assert client.rpc("tools/list", Host="evil.example").status in (400, 403, 421)
        large = client.rpc("ping", {"x": "x" * 5_000_000})
        assert large.status == 413


@contextmanager
def scratch_database() -> Iterator[str]:
    """Make a database on the server the environment names, and drop it afterwards."""
    server = os.environ["GATEWAY_TEST_POSTGRES_URL"]
    name = f"gateway_journey_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield f"{server.rpartition('/')[0]}/{name}"
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def walk_over_two_nodes(upstream: FakeUpstream, gateway: RunningGateway) -> None:
    """Authorize at one node and work at another; changes must show there within seconds."""
    person = Person(NAME, gateway, Browser(STOPS))
    with another_node(gateway) as other:
        client: WireClient = person.client_of("one")
        for node in ("", other.listening, "", other.listening):
            client.node = node
            assert client.call("echo", {"text": "hello"}).result["structuredContent"]

        # A session opened at one node continues at the other.
        client.era, client.node = "legacy", ""
        client.initialize()
        client.node = other.listening
        assert "echo" in client.names()
        client.era, client.session_id = "modern", ""

        gateway.apply(configuration(upstream, "first", "second"))
        within(PATIENCE, lambda: "second_echo" in client.names())

        person.revoke_client()
        within(PATIENCE, lambda: client.rpc("tools/list").status == 401)


@pytest.mark.postgres
def test_two_nodes_on_postgresql_are_one_gateway() -> None:
    with (
        FakeUpstream(era="modern").serve() as upstream,
        scratch_database() as url,
        gateway_over(upstream, DATABASE_URL=url) as gateway,
    ):
        walk_over_two_nodes(upstream, gateway)


@pytest.mark.redis
def test_two_nodes_that_share_redis_are_one_gateway() -> None:
    url = os.environ["GATEWAY_TEST_REDIS_URL"]
    with (
        FakeUpstream(era="modern").serve() as upstream,
        gateway_over(upstream, REDIS_URL=url) as gateway,
    ):
        walk_over_two_nodes(upstream, gateway)


@pytest.mark.redis
def test_two_gateways_that_share_redis_hear_nothing_of_each_other() -> None:
    shared = {"REDIS_URL": os.environ["GATEWAY_TEST_REDIS_URL"]}
    with FakeUpstream(era="modern").serve() as upstream, gateway_over(upstream, **shared) as one:
        other = replace(one, environment={**one.environment, "PUBLIC_URL": "http://127.0.0.1:9"})
        layer = "from channels.layers import get_channel_layer as layer; print(layer().prefix)"
        assert other.manage("shell", "-c", layer) != one.manage("shell", "-c", layer)
        cache = "from django.core.cache import cache; "
        one.manage("shell", "-c", f"{cache}cache.set('said', 'here')")
        assert "here" in one.manage("shell", "-c", f"{cache}print(cache.get('said'))")
        assert "here" not in other.manage("shell", "-c", f"{cache}print(cache.get('said'))")
