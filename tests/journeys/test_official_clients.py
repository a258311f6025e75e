"""The whole journey with the official clients of both generations, over real sockets."""

import json
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.official_client import official_client
from tests.journeys.world import Person, World, within
from tests.virtualmcp.answering_client import ROOTS, SAMPLE, form, question

MODERN, LEGACY = "2026-07-28", "2025-11-25"
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
REMOTE = [
    pytest.param("mcp-remote", mode, LEGACY, id=f"mcp-remote, {mode}", marks=pytest.mark.npm)
    for mode in ("legacy", "auto")
]
# With "auto" mcp-remote is a stateless client to the gateway, with two gaps: an address to open
# does not reach its own client, and it cancels by a notice beside the stream that it keeps open,
# which no stateless server can attribute to a call. What it no longer wants ends when it ends.
ENDS_LATE = ("mcp-remote", "auto")

# What an upstream comes to offer, and the notice that says so.
KINDS = {
    "tools": {"name": "new", "inputSchema": {"type": "object"}},
    "prompts": {"name": "new"},
    "resources": {"uri": "file:///notes/new", "name": "new"},
}
PAGE = question(
    "elicitation/create",
    mode="url",
    message="Sign in?",
    elicitationId="page-1",
    url="https://accounts.example/sign-in",
)


def status_with(endpoint: str, token: str) -> int:
    """Return how the endpoint answers an access token."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"},
    }}  # fmt: skip
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
    }
    return httpx.post(endpoint, json=ping, headers=headers, trust_env=False).status_code


@pytest.mark.parametrize(("program", "mode", "revision"), PROGRAMS)
def test_an_official_client_goes_from_401_to_tools_refreshes_and_is_shut_out_when_revoked(
    world: World, person: Person, program: str, mode: str, revision: str
) -> None:
    endpoint = world.gateway.endpoint("guarded-alone")
    with official_client(program, endpoint, person.authorize, mode=mode) as client:
        assert client.do("connect")["revision"] == revision
        asked = parse_qs(urlsplit(client.authorizations[0]).query)
        assert asked["resource"] == [endpoint]
        assert asked["code_challenge_method"] == ["S256"]

        assert {"echo", "slow", "show_board"} <= set(client.do("tools")["names"])
        called = client.do("call", name="slow", arguments={"steps": 3, "pause": 0.05})
        assert (called["text"], called["progress"]) == ("done", [1, 2, 3])
        echoed = client.do("call", name="echo", arguments={"text": "Grüße 🌍"})
        assert echoed["structured"] == {"text": "Grüße 🌍"}
        assert client.do("call", name="fail", arguments={"text": "no"})["is_error"]

        assert "ui://board/view.html" in client.do("resources")["uris"]
        page = client.do("read", uri="ui://board/view.html")
        assert (page["mime"], page["text"]) == ("text/html;profile=mcp-app", "<p>board</p>")
        assert client.do("prompt", name="greet", arguments={"name": "Ada"})["text"] == "Hello Ada"
        completed = client.do("complete", prompt="greet", argument="name", value="A")
        assert completed["values"] == ["Ada", "Alan"]

        before = client.do("tokens")
        client.do("expire")
        assert client.do("call", name="echo", arguments={"text": "again"})["text"] == "again"
        after = client.do("tokens")
        assert after["access"] != before["access"]
        assert after["refresh"] != before["refresh"]
        assert len(client.authorizations) == 1

        person.revoke_client()
        person.gone = True
        assert status_with(endpoint, after["access"]) == 401
        shut_out = client.attempt("call", name="echo", arguments={"text": "still?"})
        assert shut_out["event"] == "failed"
        assert "NotComingBack" in shut_out["error"]
        # The person is asked anew; an SDK that also listens may ask for that a second time.
        assert len(client.authorizations) >= 2


@pytest.mark.parametrize(("program", "mode", "revision"), PROGRAMS)
def test_an_official_client_uses_several_upstreams_behind_one_address(
    world: World, person: Person, program: str, mode: str, revision: str
) -> None:
    endpoint = world.gateway.endpoint("team")
    with official_client(program, endpoint, person.authorize, mode=mode) as client:
        client.do("connect")
        names = client.do("tools")["names"]
        assert len(names) == len(set(names))
        echoes = sorted(name for name in names if "echo" in name)
        assert echoes == ["echo", "guarded_echo", "legacy_echo"]
        for name in echoes:
            assert client.do("call", name=name, arguments={"text": name})["text"] == name
        boards = [uri for uri in client.do("resources")["uris"] if uri.startswith("ui://")]
        assert len(boards) == 3
        for uri in boards:
            assert client.do("read", uri=uri)["text"] == "<p>board</p>"


@pytest.mark.parametrize(("program", "mode", "revision"), PROGRAMS + REMOTE)
def test_an_official_client_answers_questions_and_cancels_whatever_the_upstreams_era(
    world: World, person: Person, program: str, mode: str, revision: str
) -> None:
    endpoint = world.gateway.endpoint("asking")
    at_once = (program, mode) != ENDS_LATE
    pages = [PAGE] if at_once else []
    upstreams = (world.modern, world.legacy)
    cancelled = [up.events.count("cancelled:hang") for up in upstreams]
    asking = {"rounds": [[form("Who?"), SAMPLE], [ROOTS, *pages]]}
    with official_client(program, endpoint, person.authorize, mode=mode) as client:
        client.do("connect")
        client.do("tools")
        for tool, up, before in zip(("", "legacy_"), upstreams, cancelled, strict=True):
            began = up.events.count("started:interview")
            answered = json.loads(
                client.do("call", name=f"{tool}interview", arguments=asking)["text"]
            )
            assert {"action": "accept", "content": {"answer": "Ada"}} in answered
            assert answered.count({"action": "accept"}) == len(pages)
            assert [one["roots"][0]["uri"] for one in answered if "roots" in one] == [
                "file:///work"
            ]
            assert [one["content"]["text"] for one in answered if "model" in one] == ["said"]
            assert up.events.count("started:interview") == began + 1
            moved = client.do("call", name=f"{tool}slow", arguments={"steps": 2, "pause": 0.02})
            assert moved["progress"] == [1, 2]

            started = up.events.count("started:hang")
            client.do("begin", name=f"{tool}hang", arguments={})
            assert up.wait(lambda one, n=started: one.events.count("started:hang") > n, 15)
            client.do("abort")
            if at_once:
                assert_cancelled(up, before)
        heard = client.do("asked")["heard"]
        of_each = ["[{}] Who?", *["[{}] Sign in?" for _ in pages], "sampling", "roots"]
        asked = [one.format(up) for up in ("Modern", "Legacy") for one in of_each]
        assert sorted(heard) == sorted(asked)
    for up, before in zip(upstreams, cancelled, strict=True):
        assert_cancelled(up, before)


def assert_cancelled(upstream: FakeUpstream, before: int) -> None:
    """Wait until the upstream knows that one more call is not wanted."""
    assert upstream.wait(lambda up: up.events.count("cancelled:hang") > before, 20)


@pytest.mark.parametrize(("program", "mode", "revision"), PROGRAMS + REMOTE)
def test_an_official_client_hears_of_changes_at_upstreams_of_both_eras(
    world: World, person: Person, program: str, mode: str, revision: str
) -> None:
    endpoint = world.gateway.endpoint("team")
    uris = ["legacy+file:///notes/1", "modern+file:///notes/1"]
    with official_client(program, endpoint, person.authorize, mode=mode) as client:
        assert client.do("connect")["revision"] == revision
        client.do("tools")
        assert client.do("watch", uris=uris)["uris"] == uris

        def heard(*kinds: str) -> int:
            for upstream in (world.modern, world.legacy):
                upstream.announce("notifications/resources/updated", {"uri": "file:///notes/1"})
                for kind in KINDS:
                    upstream.announce(f"notifications/{kind}/list_changed")
            changes = client.do("noticed")["changes"]
            return min(changes.count(kind) for kind in kinds)

        within(20, lambda: heard(*(f"updated {uri}" for uri in uris)) > 0)
        for upstream in (world.modern, world.legacy):
            for kind, added in KINDS.items():
                entries = getattr(upstream, kind)
                before, told = list(entries), heard(kind)
                entries.append(added)
                within(20, lambda: heard(kind) > told)  # noqa: B023
                entries[:] = before
        client.do("unwatch", uris=uris)
        if (program, mode) != ENDS_LATE:
            assert_given_back(world.legacy)
    assert_given_back(world.legacy)


def assert_given_back(upstream: FakeUpstream) -> None:
    """Wait until the upstream need not tell any more: the last of those who listened is gone."""
    assert upstream.wait(lambda up: "file:///notes/1" not in up.subscribed, 20)
