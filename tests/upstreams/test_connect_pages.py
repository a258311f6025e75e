"""The connect pages, links to them, and people's own keys (security.md 4E, protocol.md 5.8)."""

import time

import pytest
from django.test import Client

from tests.fakes.mcp_upstream import FakeUpstream
from tests.upstreams.connecting import (
    account_of,
    browser_of,
    person,
    upstream_at,
)
from upstreams import accounts, connect_links, sealed_secrets
from upstreams.models import CredentialKind, UpstreamAccount

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_link_opens_for_its_person_only(server, protected) -> None:
    alice, bob, upstream = person(), person("bob"), upstream_at(protected.url)
    link = connect_links.link_for(alice.pk, upstream.key).removeprefix("http://localhost:8000")
    assert browser_of(alice).get(link).status_code == 200
    for method in ("get", "post"):
        answer = getattr(browser_of(bob), method)(link)
        assert answer.status_code == 403
        assert "Fake" not in answer.content.decode()
    for wrong in (link[:-1], link.replace("for=", "for=f"), link.split(".")[0], link[:-40]):
        assert browser_of(alice).get(wrong).status_code == 403
    assert not server.requests


def test_a_link_for_one_upstream_does_not_open_another_and_ages(monkeypatch) -> None:
    link = connect_links.link_for(7, "fake").split("=")[1]
    assert connect_links.is_for(link, 7, "fake")
    assert not connect_links.is_for(link, 7, "other")
    assert not connect_links.is_for(link, 8, "fake")
    real = time.time
    monkeypatch.setattr(connect_links.time, "time", lambda: real() + 25 * 3600)
    assert not connect_links.is_for(link, 7, "fake")


def test_an_upstream_that_is_not_for_a_person_looks_as_if_there_were_none(monkeypatch) -> None:
    upstream = upstream_at("https://x.example/mcp")
    monkeypatch.setattr(accounts, "_rule", lambda user, upstream: False)
    browser = browser_of(person())
    assert browser.get(f"/connect/{upstream.key}/").status_code == 404
    assert browser.post(f"/connect/{upstream.key}/").status_code == 404
    assert browser.get("/connect/none/").status_code == 404


def test_a_person_pastes_their_key_and_it_is_never_shown_again() -> None:
    alice = person()
    with FakeUpstream(tokens={"sk-canary-1"}).serve() as server:
        upstream = upstream_at(
            server.url, credential_kind=CredentialKind.USER_KEY, user_key_help="Ask Bob."
        )
        browser = browser_of(alice)
        page = browser.get(f"/connect/{upstream.key}/").content.decode()
        assert 'type="password"' in page and "Ask Bob." in page
        answer = browser.post(f"/connect/{upstream.key}/", {"key": " sk-canary-1 "})
    assert answer.status_code == 303
    account = account_of(alice, upstream)
    assert sealed_secrets.open_tokens(account, upstream.url).access_token == "sk-canary-1"
    assert "canary" not in browser.get(f"/connect/{upstream.key}/").content.decode()


@pytest.mark.parametrize("key", ["", "  ", "a\r\nX: y", "a\x00b", "é", "a" * 9000, "a\tb"])
def test_a_key_that_cannot_travel_is_refused_without_an_echo(key: str) -> None:
    upstream = upstream_at("https://x.example/mcp", credential_kind=CredentialKind.USER_KEY)
    answer = browser_of(person()).post(f"/connect/{upstream.key}/", {"key": key})
    assert answer.status_code == 400
    assert not UpstreamAccount.objects.exists()
    assert not key.strip() or key not in answer.content.decode()


def test_a_failing_server_is_a_page_that_says_what_to_do(server, protected) -> None:
    server.registration = False
    upstream = upstream_at(protected.url)
    page = browser_of(person()).post(f"/connect/{upstream.key}/")
    text = page.content.decode()
    assert page.status_code == 502
    assert "administrator" in text
    assert server.origin not in text
    staff = browser_of(person("root", is_staff=True, is_superuser=True))
    shown = staff.post(f"/connect/{upstream.key}/").content.decode()
    assert "http://localhost:8000/connect/callback" in shown


def test_the_pages_are_not_stored_not_framed_and_tell_others_nothing(server, protected) -> None:
    upstream = upstream_at(protected.url)
    for answer in (
        browser_of(person()).get(f"/connect/{upstream.key}/"),
        browser_of(person("bob")).get("/connect/callback?state=x"),
    ):
        assert answer["Cache-Control"] == "no-store"
        assert answer["Referrer-Policy"] in ("no-referrer", "same-origin")
        assert answer["X-Frame-Options"] == "DENY"


def test_160_our_client_documents_are_exact_and_hold_no_private_key() -> None:
    browser = Client(HTTP_HOST="localhost:8000")
    for name in ("gateway.json", "gateway-public.json"):
        answer = browser.get(f"/.well-known/oauth-client/{name}")
        document = answer.json()
        assert answer["Content-Type"] == "application/json"
        assert "max-age" in answer["Cache-Control"]
        assert document["client_id"] == f"http://localhost:8000/.well-known/oauth-client/{name}"
        assert document["redirect_uris"] == ["http://localhost:8000/connect/callback"]
    keys = browser.get("/.well-known/oauth-client/jwks.json").json()["keys"]
    assert keys and all("d" not in key and key["alg"] == "ES256" for key in keys)
    assert browser.get("/.well-known/oauth-client/other.json").status_code == 404
    assert browser.post("/.well-known/oauth-client/gateway.json").status_code == 405
