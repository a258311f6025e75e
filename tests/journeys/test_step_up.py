"""A client that may only read asks its person for more, from the refusal to the call (c7, c8)."""

import pytest

from tests.journeys.chatgpt_client import ChatGptClient, ChatGptDocuments
from tests.journeys.test_chatgpt import connect
from tests.journeys.wire_client import Answer, Tokens, WireClient, parse_challenge
from tests.journeys.world import PATIENCE, Person, World, within

READS, CHANGES = "echo", "exact"
WIDER = {"mcp:tools", "mcp:tools.write"}
CHALLENGES = "mcp/www_authenticate"


def learn_what_reads(client: WireClient) -> None:
    """List, so that the gateway knows what the upstream says of its tools."""
    assert CHANGES in client.names()
    within(PATIENCE * 5, lambda: client.call(READS, {"text": "hi"}).status == 200)


def check_challenge(client: WireClient, challenge: dict[str, str]) -> str:
    """Check that everything a client needs stands in the one challenge; returns the scope."""
    assert challenge["error"] == "insufficient_scope"
    assert challenge["error_description"]
    metadata = client.http.get(challenge["resource_metadata"]).json()
    assert metadata == client.resource_metadata
    assert set(challenge["scope"].split()) == WIDER
    return challenge["scope"]


def agree_to_more(client: WireClient, person: Person, challenged: str) -> Tokens:
    """Authorize with the union of what the client has and needs, and read the page first."""
    assert client.tokens is not None
    wanted = sorted({*client.tokens.scope.split(), *challenged.split()})
    url = client.authorize_url(scope=" ".join(wanted))
    person.open_signed_in(url)
    page = person.browser.open(url)
    assert "New since you agreed" in page.text
    assert "asks for more: use the tools that change something in your name" in page.text
    assert CHANGES in page.text
    return client.exchange(person.browser.press("Authorize").stopped_at)


def refused_with_403(client: WireClient) -> str:
    """Make the call that the token is too small for; returns the scope that is asked for."""
    refused: Answer = client.call(CHANGES)
    assert refused.status == 403
    challenges = refused.headers.get_list("www-authenticate")
    assert len(challenges) == 1
    assert refused.error["code"] == -31003
    return check_challenge(client, parse_challenge(challenges[0]))


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_a_client_is_refused_authorizes_for_more_and_calls(
    world: World, person: Person, era: str
) -> None:
    client = person.client_of("stepping", era=era)
    assert client.tokens is not None
    narrow = client.tokens
    assert narrow.scope == "mcp:tools"
    learn_what_reads(client)
    challenged = refused_with_403(client)
    tokens = agree_to_more(client, person, challenged)
    assert set(tokens.scope.split()) == WIDER
    assert client.call(CHANGES).result
    assert client.call(READS, {"text": "still"}).result
    assert client.refresh().status_code == 200
    assert set(client.tokens.scope.split()) == WIDER
    assert client.call(CHANGES).result
    # The person agreed for new tokens; those from before are what they were.
    client.tokens = narrow
    assert client.call(CHANGES).status == 403


def test_who_says_no_keeps_what_they_had(world: World, person: Person) -> None:
    client = person.client_of("stepping")
    learn_what_reads(client)
    url = client.authorize_url(scope=refused_with_403(client))
    person.open_signed_in(url)
    person.browser.open(url)
    assert "error=access_denied" in person.browser.press("Deny").stopped_at
    assert client.call(CHANGES).status == 403
    assert client.call(READS, {"text": "still"}).result


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_chatgpt_reads_the_challenge_in_the_result_and_goes_on(
    world: World, person: Person, chatgpt: ChatGptDocuments, era: str
) -> None:
    client = ChatGptClient(world.gateway.endpoint("stepping"), chatgpt, era=era)
    connect(client, person).open()
    learn_what_reads(client)
    # Without both of these ChatGPT offers its person nothing (clients.md 1.6).
    listed = {tool["name"]: tool for tool in client.rpc("tools/list").result["tools"]}
    for name, scopes in ((READS, ["mcp:tools"]), (CHANGES, sorted(WIDER))):
        schemes = [{"type": "oauth2", "scopes": scopes}]
        assert listed[name]["securitySchemes"] == schemes
        assert listed[name]["_meta"]["securitySchemes"] == schemes
    refused = client.call(CHANGES, **{"openai/subject": "v1/abc"})
    assert refused.status == 200
    result = refused.result
    assert result["isError"] is True
    assert "Authorize again" in result["content"][0]["text"]
    assert len(result["_meta"][CHALLENGES]) == 1
    challenged = check_challenge(client, parse_challenge(result["_meta"][CHALLENGES][0]))
    tokens = agree_to_more(client, person, challenged)
    assert set(tokens.scope.split()) >= WIDER
    assert client.call(CHANGES, **{"openai/subject": "v1/abc"}).result.get("isError") is not True
