"""Each client that people use goes its own way from the 401 to a tool's answer, and stays."""

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fakes.browser import walk_consent
from tests.journeys.named_clients import HABITS, Habits, NamedClient
from tests.journeys.world import PASSWORD, Person, World
from tests.oauthserver.document_host import DocumentHost, document_host

SLUG = "modern-alone"


@pytest.fixture(scope="module")
def documents() -> Iterator[DocumentHost]:
    """Publish what clients publish of themselves."""
    with document_host() as host:
        host.base = host.base.replace("127.0.0.1", "localhost")
        yield host


@pytest.fixture(scope="module")
def somebody(world: World) -> Iterator[Person]:
    """Return one person with all these clients, whose browser knows where each of them listens."""
    made = world.person()
    made.browser.stops = tuple(habits.redirect for habits in HABITS)
    yield made
    made.browser.close()


def approve(person: Person, client: NamedClient) -> str:
    """Go through the browser; where the client named no server, pick it."""
    url = client.address_to_open()
    if "resource" in parse_qs(urlsplit(url).query):
        return person.authorize(url)
    page = person.browser.open(url)
    if any(form.field_of_kind("password") for form in page.forms):
        page = person.browser.sign_in(person.username, PASSWORD)
    assert "did not say which one" in page.text
    link = next(target for target, _ in page.links if SLUG in target)
    origin = client.endpoint.removesuffix(urlsplit(client.endpoint).path)
    return walk_consent(person.browser, origin + link, person.username, PASSWORD)


@pytest.mark.parametrize("habits", HABITS, ids=str)
def test_a_client_connects_lists_calls_refreshes_and_is_still_connected(
    world: World, somebody: Person, documents: DocumentHost, habits: Habits
) -> None:
    client = NamedClient(world.gateway.endpoint(SLUG), habits)
    client.become_known(documents)
    redirect = approve(somebody, client)
    assert redirect.startswith(f"{habits.redirect}?"), redirect
    # Also checks the state and, byte for byte, the issuer.
    tokens = client.exchange(redirect)
    assert tokens.refresh_token
    assert "mcp:tools" in tokens.scope.split()
    assert "echo" in client.open_tools()
    assert client.call("echo", {"text": "hi"}).result["content"][0]["text"] == "hi"
    before = tokens.refresh_token
    refreshed = client.refresh()
    assert refreshed.status_code == 200, refreshed.text
    assert client.tokens is not None
    assert client.tokens.refresh_token not in ("", before)
    assert client.call("echo", {"text": "again"}).result["content"][0]["text"] == "again"
    # What is over says so in the one word that makes clients authorize anew.
    dead = client.refresh("mcpgw_rt_" + "x" * 43)
    assert (dead.status_code, dead.json()["error"]) == (400, "invalid_grant")
    client.close()
