"""Upstreams that are not connected, dead, or somebody else's: what a client and a person meet."""

import json

from tests.fakes.mcp_upstream import Canned
from tests.journeys.wire_client import WireClient
from tests.journeys.world import USER_KEY, Person, World

PROBLEMS = "gateway/upstreams"


def skip_connecting(world: World, person: Person, slug: str, era: str = "modern") -> WireClient:
    """Authorize a client without connecting anything."""
    client = WireClient(world.gateway.endpoint(slug), era=era)
    client.discover()
    client.register()
    person.open_signed_in(client.authorize_url())
    client.exchange(person.browser.press("Authorize").stopped_at)
    return client


def test_an_upstream_that_is_not_connected_gives_a_link_and_works_after_it_was_followed(
    world: World, person: Person
) -> None:
    client = skip_connecting(world, person, "team")
    listed = client.rpc("tools/list").result
    names = [tool["name"] for tool in listed["tools"]]
    assert "echo" in names
    assert not any(name.startswith("guarded_") for name in names)
    problem = next(one for one in listed["_meta"][PROBLEMS] if one["key"] == "guarded")
    assert problem["connect_url"].startswith(f"{world.gateway.url}/connect/guarded/")

    another = world.person()
    knowing = another.client_of("team")
    assert "guarded_echo" in knowing.names()

    called = client.call("guarded_echo", {"text": "hello"}).result
    assert called["isError"] is True
    link = called["content"][0]["text"].split()[-1]
    assert link.startswith(f"{world.gateway.url}/connect/guarded/")

    person.connect(link)
    assert client.call("guarded_echo", {"text": "hello"}).result["content"][0]["text"] == "hello"
    assert "guarded_echo" in client.names()


def test_a_client_that_opens_urls_is_asked_to_and_its_call_goes_on_afterwards(
    world: World, person: Person
) -> None:
    assert "guarded_echo" in world.person().client_of("team").names()
    client = skip_connecting(world, person, "team")
    client.capabilities = {"elicitation": {"url": {}}}
    params = {"name": "guarded_echo", "arguments": {"text": "later"}}
    asked = client.rpc("tools/call", params).result
    assert asked["resultType"] == "input_required"
    key, question = next(iter(asked["inputRequests"].items()))
    assert question["params"]["mode"] == "url"
    person.connect(question["params"]["url"])
    answers = {key: {"action": "accept"}}
    retried = client.rpc(
        "tools/call",
        {**params, "inputResponses": answers, "requestState": asked["requestState"]},
    )
    assert retried.result["content"][0]["text"] == "later"


def test_a_stateful_client_that_opens_urls_gets_the_url_error(world: World, person: Person) -> None:
    assert "guarded_echo" in world.person().client_of("team").names()
    client = skip_connecting(world, person, "team", era="legacy")
    client.capabilities = {"elicitation": {"url": {}}}
    client.initialize()
    refused = client.call("guarded_echo", {"text": "x"})
    assert (refused.status, refused.error["code"]) == (200, -32042)
    elicitation = refused.error["data"]["elicitations"][0]
    assert elicitation["mode"] == "url"
    assert elicitation["elicitationId"]
    assert elicitation["url"].startswith(world.gateway.url)


def test_a_connect_link_of_one_person_is_refused_to_another(world: World, person: Person) -> None:
    client = skip_connecting(world, person, "team")
    listed = client.rpc("tools/list").result
    link = next(one for one in listed["_meta"][PROBLEMS] if one["key"] == "guarded")["connect_url"]
    other = world.person()
    other.open_signed_in(link)
    page = other.browser.page
    assert page is not None
    assert page.status in (403, 404)
    assert page.find_button("Connect") is None


def test_the_other_upstreams_work_when_one_is_dead_and_the_dead_one_is_named(
    world: World, person: Person
) -> None:
    client = person.client_of("partly")
    listed = client.rpc("tools/list").result
    assert {"echo", "legacy_echo"} <= {tool["name"] for tool in listed["tools"]}
    assert [one["key"] for one in listed["_meta"][PROBLEMS]] == ["dead"]
    assert client.call("echo", {"text": "up"}).result["content"][0]["text"] == "up"
    assert client.call("legacy_echo", {"text": "up"}).result["content"][0]["text"] == "up"


def test_an_upstream_that_fails_in_a_call_is_an_error_of_that_call_alone(
    world: World, person: Person
) -> None:
    client = person.client_of("modern-alone")
    for body, kind in ((b"<html>oops</html>", "text/html"), (b'{"half', "application/json")):
        world.answer_once(world.modern, body, kind)
        failed = client.call("echo", {"text": "x"})
        assert failed.status == 200
        assert "modern" in json.dumps(failed.message).lower()
    assert client.call("echo", {"text": "fine"}).result["content"][0]["text"] == "fine"


def test_an_upstream_that_redirects_inside_is_not_followed(world: World, person: Person) -> None:
    client = person.client_of("modern-alone")
    seen = len(world.legacy.requests)
    inside = world.legacy.url
    world.modern.script.append(Canned(status=307, headers={"location": inside}))
    failed = client.call("echo", {"text": "x"})
    assert failed.status == 200
    assert "error" in failed.message or failed.result["isError"]
    assert len(world.legacy.requests) == seen


def test_two_people_use_one_server_each_with_their_own_account(world: World) -> None:
    ada, bob = world.person(), world.person()
    first, second = ada.client_of("guarded-alone"), bob.client_of("guarded-alone")
    first.call("headers")
    of_ada = world.guarded.last_headers("tools/call")["authorization"]
    second.call("headers")
    of_bob = world.guarded.last_headers("tools/call")["authorization"]
    assert of_ada.startswith("Bearer ")
    assert of_ada != of_bob
    # What the upstream takes is nothing the client ever saw.
    assert first.tokens is not None
    assert first.tokens.access_token not in of_ada

    # A session of one person is nothing to another.
    first.era = second.era = "legacy"
    first.initialize()
    second.session_id = first.session_id
    assert second.rpc("tools/list").status == 404


def test_each_person_brings_a_key_of_their_own(world: World, person: Person) -> None:
    client = person.client_of("keyed-alone")
    assert client.call("echo", {"text": "keyed"}).result["content"][0]["text"] == "keyed"
    assert world.keyed.last_headers("tools/call")["authorization"] == f"Bearer {USER_KEY}"
