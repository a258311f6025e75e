"""One gateway of two processes behind a load balancer without stickiness, and its upstreams."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from tests.fakes.asgi_server import serve
from tests.fakes.browser import Browser
from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.task_tools import TASK_TOOLS
from tests.journeys.round_robin import RoundRobin
from tests.journeys.world import PASSWORD, STOPS, Person
from tests.running_gateway import RunningGateway, another_node, running_gateway
from tests.virtualmcp.answering_client import Answering
from tests.virtualmcp.stream_reader import StreamReader, post_stream
from tests.virtualmcp.wire_client import WireClient

NAME = "ada"
UPSTREAMS = ("legacy", "resumable", "modern")


class Served(Protocol):
    """An upstream at its address."""

    era: str

    @property
    def url(self) -> str: ...


@dataclass
class Nodes:
    """One gateway of two processes, its fake upstreams, and a person's tokens for each."""

    first: RunningGateway
    second: RunningGateway
    proxy: str
    balancer: RoundRobin
    upstreams: dict[str, FakeUpstream]
    tokens: dict[str, str]

    def http(self, base: str) -> httpx.Client:
        """Return a client of one address that names the public host."""
        host = urlsplit(self.first.url).netloc
        return httpx.Client(base_url=base, headers={"host": host}, timeout=60, trust_env=False)

    def client(self, era: str, upstream: str, base: str) -> Answering:
        """Return a client at one address, with a session if it is stateful."""
        client = WireClient(self.http(base), upstream, self.tokens[upstream])
        made = Answering(client, era)
        if era == "legacy":
            client.initialize(capabilities=made.capabilities)
        return made


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Run it all, over an upstream of each kind."""
    with contextlib.ExitStack() as stack:
        ups = {
            key: stack.enter_context(
                FakeUpstream(
                    era="modern" if key == "modern" else "legacy",
                    name=key,
                    resumable=key == "resumable",
                ).serve()
            )
            for key in UPSTREAMS
        }
        for up in ups.values():
            up.tools += TASK_TOOLS
        yield stack.enter_context(two_nodes_over(ups))


@contextlib.contextmanager
def two_nodes_over(
    ups: Mapping[str, Served], further: dict[str, dict[str, Any]] | None = None
) -> Iterator[Nodes]:
    """Run them; SQLite is all that the processes share, and Redis where a leg of CI has one.

    ``further`` is what else the configuration says of an upstream.
    """
    with contextlib.ExitStack() as stack:
        configuration: dict[str, Any] = {
            "upstreams": [
                {"key": key, "title": key.title(), "url": up.url, "era": up.era}
                | (further or {}).get(key, {})
                for key, up in ups.items()
            ],
            "virtual_mcps": [
                {"slug": key, "title": key.title(), "audience": "everyone", "upstreams": [key]}
                for key in ups
            ],
            "users": [{"username": NAME, "password": "env:PASSWORD_OF_ADA"}],
        }
        environment = {"PASSWORD_OF_ADA": PASSWORD}
        if redis := os.environ.get("GATEWAY_TEST_REDIS_URL"):
            environment["REDIS_URL"] = redis
        first = stack.enter_context(running_gateway(configuration, environment=environment))
        second = stack.enter_context(another_node(first))
        person = Person(NAME, first, Browser(STOPS))
        tokens = {}
        for key in ups:
            issued = person.client_of(key).tokens
            assert issued is not None
            tokens[key] = issued.access_token
        balancer = RoundRobin([first.listening, second.listening])
        proxy = stack.enter_context(serve(balancer))
        fakes = {key: up for key, up in ups.items() if isinstance(up, FakeUpstream)}
        yield Nodes(first, second, proxy, balancer, fakes, tokens)


def given(message: dict[str, Any]) -> Any:
    """Return what the interview was told."""
    assert "result" in message, message
    return json.loads(message["result"]["content"][0]["text"])


def answers_to(upstream: FakeUpstream) -> list[Any]:
    """Return the answers to its questions that came to an upstream."""
    return [seen.message for seen in upstream.requests if "result" in seen.message]


def questions_answered(upstream: FakeUpstream, since: int) -> int:
    """Return how many questions were answered after so many answers; each in one way. An answer
    that was being posted when its process ended may come twice."""
    answers = answers_to(upstream)[since:]
    ids = [one["id"] for one in answers]
    assert len({json.dumps(one, sort_keys=True) for one in answers}) == len(set(ids))
    assert all(ids.count(one) <= 2 for one in ids)
    return len(set(ids))


def calls_left(nodes: Nodes) -> int:
    """Return how many stateful clients' calls have word of them left for other processes."""
    with contextlib.closing(sqlite3.connect(nodes.first.folder / "gateway.sqlite3")) as database:
        query = "SELECT COUNT(*) FROM virtualmcp_sharednote WHERE key LIKE 'stream-call:%'"
        return int(database.execute(query).fetchone()[0])


def slow(nodes: Nodes, base: str, steps: int, pause: float, **meta: Any) -> tuple[Any, Any]:
    """Begin a stateful client's call that asks nothing; returns the client and its stream."""
    client = nodes.client("legacy", "resumable", base).client
    arguments = {"steps": steps, "pause": pause}
    params = {"name": "slow", "arguments": arguments, "_meta": meta}
    return client, post_stream(client, "tools/call", params, id="cut")


def last_id(stream: StreamReader) -> str:
    """Return the id from which a client resumes a stream."""
    return stream.events[-1][0] if stream.events else stream.primed[-1][0]
