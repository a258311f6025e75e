"""Connecting an account through the pages (protocol.md e4 to e8, security.md 4E)."""

import asyncio
import json
import re
import time
from datetime import timedelta

import httpx
import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from tests.fakes.asgi_server import serve
from tests.patience import PATIENCE
from tests.upstreams.connecting import (
    ProtectedUpstream,
    account_of,
    approve,
    begin,
    browser_of,
    connect,
    person,
    query_of,
    upstream_at,
)
from upstreams import accounts, sealed_secrets, token_vault
from upstreams.models import PendingAuthorization, UpstreamAccount

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_person_connects_their_account(server, protected) -> None:
    server.account = "alice@saas.example"
    alice, upstream = person(), upstream_at(protected.url)
    answer = connect(browser_of(alice), upstream)
    assert (answer.status_code, answer["Location"]) == (303, "/connections/")
    assert answer["Cache-Control"] == "no-store"
    account = account_of(alice, upstream)
    assert account.account_label == "alice@saas.example"
    assert sealed_secrets.open_tokens(account, upstream.url).access_token in server.tokens
    assert "at-" not in account.sealed_secret
    assert accounts.status_for(alice, upstream).state == "connected"


def test_sealing_what_a_connect_needs_holds_nobody_else_up(server, protected, monkeypatch) -> None:
    real, on_the_loop = token_vault.seal, []

    def seal(*members):
        try:
            asyncio.get_running_loop()
            on_the_loop.append(members[1])  # a key service may take seconds to answer
        except RuntimeError:
            pass
        return real(*members)

    monkeypatch.setattr(token_vault, "seal", seal)
    connect(browser_of(person()), upstream_at(protected.url))
    assert on_the_loop == []


def test_the_request_to_the_authorization_server_holds_what_the_specification_wants(
    server, protected
) -> None:
    upstream = upstream_at(
        protected.url,
        oauth_extra_authorize_parameters={
            "audience": "api",
            "state": "evil",
            "redirect_uri": "https://evil.example/",
        },
    )
    address = begin(browser_of(person()), upstream)
    query = query_of(address)
    assert query["response_type"] == "code"
    assert query["code_challenge_method"] == "S256"
    assert len(query["code_challenge"]) == 43
    assert query["resource"] == protected.url
    assert query["redirect_uri"] == "http://localhost:8000/connect/callback"
    assert len(query["state"]) >= 43
    assert query["audience"] == "api"
    assert query["state"] != "evil"
    pending = PendingAuthorization.objects.get()
    assert query["state"] not in json.dumps(
        PendingAuthorization.objects.values(
            "state_digest", "browser_digest", "sealed_verifier", "redirect_uri"
        ).get()
    )
    assert pending.expires_at <= timezone.now() + timedelta(minutes=10)


def test_the_resource_is_sent_with_every_token_request_unless_switched_off(
    server, protected
) -> None:
    upstream = upstream_at(protected.url)
    connect(browser_of(person()), upstream)
    assert server.calls("/token")[-1].form["resource"] == protected.url
    other = upstream_at(protected.url, key="entra", oauth_send_resource=False)
    browser = browser_of(person("bob"))
    address = begin(browser, other)
    assert "resource" not in query_of(address)
    browser.get(approve(address))
    assert "resource" not in server.calls("/token")[-1].form


@pytest.mark.parametrize(
    ("configured", "challenged", "listed", "offered", "asked"),
    [
        ("", "read write", ["read", "admin"], [], "read write"),
        ("", "", ["read", "admin", "offline_access"], [], "read admin"),
        ("", "", ["*", "read"], [], "read"),
        ("one two", "read", ["admin"], ["offline_access"], "one two"),
        ("", "read", [], ["read", "offline_access"], "read offline_access"),
        ("", "read offline_access", [], ["read"], "read"),
        ("", "", [], [], None),
    ],
)
def test_scopes_come_from_the_administrator_the_challenge_or_the_metadata(
    server, configured, challenged, listed, offered, asked
) -> None:
    if offered:
        server.changes["scopes_supported"] = offered
    with ProtectedUpstream(server, challenge_scope=challenged, scopes=listed).serve() as running:
        upstream = upstream_at(running.url, oauth_scopes=configured)
        query = query_of(begin(browser_of(person()), upstream))
    assert query.get("scope") == asked
    assert ("prompt" in query) == ("offline_access" in (asked or ""))


def test_nothing_begins_for_a_person_who_is_not_signed_in(server, protected) -> None:
    upstream = upstream_at(protected.url)
    for method in ("get", "post"):
        answer = getattr(Client(HTTP_HOST="localhost:8000"), method)(f"/connect/{upstream.key}/")
        assert answer.status_code == 302
        assert "/accounts/login/" in answer["Location"]
    assert not server.requests


def test_the_page_begins_nothing_by_being_looked_at(server, protected) -> None:
    upstream = upstream_at(protected.url)
    browser = browser_of(person())
    page = browser.get(f"/connect/{upstream.key}/")
    assert page.status_code == 200
    assert "Fake" in page.content.decode()
    assert "alice" in page.content.decode()
    assert browser.head(f"/connect/{upstream.key}/").status_code == 405
    assert not server.requests


def test_a_cross_site_post_is_refused(server, protected) -> None:
    upstream = upstream_at(protected.url)
    browser = Client(enforce_csrf_checks=True, HTTP_HOST="localhost:8000")
    browser.force_login(person())
    assert browser.post(f"/connect/{upstream.key}/").status_code == 403
    assert not server.requests


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "evil",
        "///evil.example",
        "/" + "a" * 9000,
        "\t//evil.example",
        "/%09/../\r\nx: y",
    ],
)
def test_the_way_back_stays_on_this_site(server, protected, target: str) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    answer = browser.get(approve(begin(browser, upstream, target)))
    location = answer["Location"]
    assert location == "/connections/" or (location.startswith("/%09") and "\r" not in location)


def test_a_local_way_back_is_kept_with_its_query(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    target = "/oauth/authorize?client_id=https%3A%2F%2Fa.example%2Fc&state=1"
    assert browser.get(approve(begin(browser, upstream, target)))["Location"] == target


# What the server answers to the code.


def test_145_fewer_scopes_are_stored_and_told(server, protected) -> None:
    server.granted_scope = "read"
    alice = person()
    upstream, browser = upstream_at(protected.url, oauth_scopes="read write"), browser_of(alice)
    answer = connect(browser, upstream)
    told = " ".join(str(message) for message in get_messages(answer.wsgi_request))
    assert "write" in told
    assert account_of(alice, upstream).scope == "read"


def test_a_refused_exchange_leaves_the_old_account_alone(server, protected) -> None:
    alice = person()
    upstream, browser = upstream_at(protected.url), browser_of(alice)
    connect(browser, upstream)
    before = account_of(alice, upstream)
    server.reply_changes = {"access_token": "bad token"}
    answer = connect(browser, upstream)
    assert answer.status_code == 502
    after = account_of(alice, upstream)
    assert (after.grant_id, after.sealed_secret) == (before.grant_id, before.sealed_secret)


def test_82_connecting_again_makes_a_new_grant(server, protected) -> None:
    alice = person()
    upstream, browser = upstream_at(protected.url), browser_of(alice)
    connect(browser, upstream)
    before = account_of(alice, upstream)
    server.account = "second@saas.example"
    connect(browser, upstream)
    after = account_of(alice, upstream)
    assert after.grant_id != before.grant_id
    assert after.version > before.version
    assert after.account_label == "second@saas.example"


def test_88_two_tabs_both_finish(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    other = upstream_at(protected.url, key="second")
    first, second = begin(browser, upstream), begin(browser, other)
    assert browser.get(approve(first)).status_code == 303
    assert browser.get(approve(second)).status_code == 303


def test_a_person_has_at_most_ten_open_attempts(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    for _ in range(12):
        begin(browser, upstream)
    assert PendingAuthorization.objects.count() == 10


def test_89_the_binding_cookie_is_kept_from_scripts_and_other_sites(
    server, protected, settings
) -> None:
    settings.SERVED_OVER_TLS = True
    upstream, browser = upstream_at(protected.url), browser_of(person())
    begin(browser, upstream)
    cookie = browser.cookies["__Host-gateway-connect"]
    assert cookie["httponly"] and cookie["secure"]
    assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("Lax", "/", "")


def test_86_disconnecting_deletes_here_and_revokes_there(server, protected) -> None:
    alice = person()
    upstream = upstream_at(protected.url)
    connect(browser_of(alice), upstream)
    secret = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
    assert accounts.disconnect(alice, upstream, actor=alice)
    assert not UpstreamAccount.objects.exists()
    deadline = time.monotonic() + PATIENCE
    while not server.revoked and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.revoked == [secret.refresh_token]
    assert not accounts.disconnect(alice, upstream, actor=alice)


def test_the_whole_way_works_on_a_real_server(server, protected) -> None:
    from gateway_site.asgi import application

    alice, upstream = person(), upstream_at(protected.url)
    session = browser_of(alice).cookies["gateway-session"].value
    headers = {"host": "localhost:8000", "origin": "http://localhost:8000"}
    with serve(application) as origin, httpx.Client(base_url=origin, headers=headers) as browser:
        browser.cookies.set("gateway-session", session)
        page = browser.get(f"/connect/{upstream.key}/")
        assert page.status_code == 200, page.text
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert found is not None
        begun = browser.post(
            f"/connect/{upstream.key}/", data={"csrfmiddlewaretoken": found.group(1)}
        )
        assert begun.status_code == 303, begun.text
        assert browser.post(f"/connect/{upstream.key}/", data={}).status_code == 403
        done = browser.get(approve(begun.headers["location"]))
        assert (done.status_code, done.headers["location"]) == (303, "/connections/")
    assert accounts.status_for(alice, upstream).state == "connected"


@pytest.mark.parametrize(
    ("scope", "claims", "label"),
    [
        ("openid notes", {"sub": "1", "email": "alice@work.example"}, "alice@work.example"),
        ("openid notes", {"sub": "1"}, ""),
        ("openid notes", {"email": 7}, ""),
        ("notes", {"email": "alice@work.example"}, ""),
    ],
)
def test_whose_account_it_is_comes_from_userinfo_where_openid_was_granted(
    server, protected, scope: str, claims: dict, label: str
) -> None:
    server.userinfo = claims
    server.changes["userinfo_endpoint"] = f"{server.origin}/userinfo"
    alice, upstream = person(), upstream_at(protected.url, oauth_scopes=scope)
    assert connect(browser_of(alice), upstream).status_code == 303
    assert account_of(alice, upstream).account_label == label
    assert len(server.calls("/userinfo")) == ("openid" in scope)


def test_a_userinfo_that_fails_or_is_elsewhere_is_no_reason_not_to_connect(
    server, protected
) -> None:
    browser, upstream = browser_of(person()), upstream_at(protected.url, oauth_scopes="openid")
    for place in (f"{server.origin}/nothing", "https://elsewhere.example/userinfo"):
        server.changes["userinfo_endpoint"] = place
        assert connect(browser, upstream).status_code == 303
