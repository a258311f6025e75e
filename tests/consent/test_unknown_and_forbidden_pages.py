"""Pages and documents about what somebody may not use, beside those about what there is not."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from tests.consent.people_and_servers import (
    authorize_address,
    browser_of,
    oauth_client,
    person,
    server,
    upstream,
)
from upstreams.models import CredentialKind

pytestmark = pytest.mark.django_db
# What differs from one answer to the next whatever was asked.
_CHANCE = re.compile(r'(name="csrfmiddlewaretoken" value|nonce|data-request-id)="[^"]*"')
_REQUEST = re.compile(r"\b[0-9a-f]{12,32}\b")


def seen(answer: Any, *own: str) -> tuple[int, str, str | None]:
    """Return status, page and where it leads, without what the address itself said."""
    text = _REQUEST.sub("", _CHANCE.sub("", answer.content.decode()))
    for name in own:
        text = text.replace(name, "…")
    return answer.status_code, text, answer.headers.get("Location")


@pytest.fixture
def maria() -> User:
    """Somebody for whom there is a server, and another one there is not."""
    server("open", (upstream("wiki", CredentialKind.USER_KEY), True))
    leads = Group.objects.create(name="leads")
    closed = server(
        "closed", (upstream("ledger", CredentialKind.USER_KEY), True), audience="groups"
    )
    closed.groups.add(leads)
    return person()


@pytest.mark.parametrize(
    ("method", "place", "theirs", "nothing"),
    [
        ("get", "/servers/{}/", "closed", "nobody"),
        ("get", "/connect/{}/", "ledger", "legder"),
        ("post", "/connect/{}/", "ledger", "legder"),
        ("get", "/connect/{}/connected/", "ledger", "legder"),
        ("post", "/connections/upstreams/{}/key", "ledger", "legder"),
        ("post", "/connections/upstreams/{}/disconnect", "ledger", "legder"),
    ],
)
def test_a_page_of_what_is_not_for_somebody_is_the_page_of_nothing(
    maria: User, method: str, place: str, theirs: str, nothing: str
) -> None:
    browser = browser_of(maria)
    ask = getattr(browser, method)
    told = seen(ask(place.format(theirs)), theirs, theirs.title())
    assert told == seen(ask(place.format(nothing)), nothing, nothing.title())
    assert told[0] == 404
    stranger = getattr(Client(), method)
    sent = [stranger(place.format(name)).headers.get("Location", "") for name in (theirs, nothing)]
    assert sent[0].replace(theirs, nothing) == sent[1] and "/accounts/login/" in sent[1]


def test_no_page_of_theirs_names_what_is_not_for_them(maria: User) -> None:
    browser = browser_of(maria)
    for place in ("/", "/connections/", "/servers/open/"):
        page = browser.get(place).content.decode()
        assert "Closed" not in page and "Ledger" not in page, place
    maria.groups.add(Group.objects.get())
    assert "Closed" in browser.get("/").content.decode()
    assert "Ledger" in browser.get("/connections/").content.decode()


def test_the_consent_page_offers_and_names_nothing_that_is_not_for_the_person(maria: User) -> None:
    client, browser = oauth_client(), browser_of(maria)
    refused = browser.get(authorize_address(client, "closed"))
    assert refused.status_code == 302 and "error=access_denied" in refused.headers["Location"]
    assert "Closed" not in refused.headers["Location"]
    picked = browser.get(authorize_address(client))
    assert picked.status_code == 200 and "Closed" not in picked.content.decode()


def test_documents_that_everybody_reads_say_no_more_than_title_and_address(maria: User) -> None:
    """RFC 9728: a client learns from them where to authorize, before anybody is known."""
    where = "/.well-known/oauth-protected-resource/v1/mcp/{}"
    of_it = Client().get(where.format("closed")).json()
    assert set(of_it) == {
        *("resource", "resource_name", "authorization_servers"),
        *("scopes_supported", "bearer_methods_supported"),
    }
    assert seen(browser_of(maria).get(where.format("closed"))) == seen(
        Client().get(where.format("closed"))
    )
    assert Client().get(where.format("nobody")).status_code == 404
