"""Official clients answer what a stateful upstream asks on its session's own stream (2.3.5)."""

import json

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.official_client import official_client
from tests.journeys.world import Person, World
from tests.virtualmcp.answering_client import ROOTS, form
from upstreams.revisions import LEGACY_LATEST as LEGACY
from upstreams.revisions import MODERN

PROGRAMS = [
    pytest.param("python-2", "auto", MODERN, id="python 2, stateless"),
    pytest.param("python-2", "legacy", LEGACY, id="python 2, stateful"),
    pytest.param("python-1", "legacy", LEGACY, id="python 1"),
    pytest.param(
        "typescript-2", "auto", MODERN, id="typescript 2, stateless", marks=pytest.mark.npm
    ),
    pytest.param(
        "typescript-2", "legacy", LEGACY, id="typescript 2, stateful", marks=pytest.mark.npm
    ),
    pytest.param("typescript-1", "legacy", LEGACY, id="typescript 1", marks=pytest.mark.npm),
]


@pytest.mark.parametrize(("program", "mode", "revision"), PROGRAMS)
def test_an_official_client_answers_what_comes_on_the_upstreams_own_stream(
    world: World, person: Person, program: str, mode: str, revision: str
) -> None:
    endpoint, upstream = world.gateway.endpoint("asking"), world.legacy
    upstream.asks_apart = True
    try:
        with official_client(program, endpoint, person.authorize, mode=mode) as client:
            client.do("connect")
            client.do("tools")
            asking = {"rounds": [[form("In a call?"), ROOTS]]}
            answered = json.loads(
                client.do("call", name="legacy_interview", arguments=asking)["text"]
            )
            assert {"action": "accept", "content": {"answer": "Ada"}} in answered
            if revision == LEGACY:
                question = f"between {program}"
                upstream.announce_raw({"jsonrpc": "2.0", "id": question, **form("Between calls?")})
                assert upstream.wait(lambda up: accepted(up, question), 15)
    finally:
        upstream.asks_apart = False


def accepted(upstream: FakeUpstream, question: str) -> bool:
    """Tell whether somebody said yes; sessions of earlier clients are asked too, and refuse."""
    answers = [seen.message for seen in upstream.requests if seen.message.get("id") == question]
    return any(one.get("result", {}).get("action") == "accept" for one in answers)
