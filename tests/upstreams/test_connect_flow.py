"""Connecting an account through the pages (protocol.md e4 to e8, security.md 4E)."""

import json
import threading
import time
from datetime import timedelta

import httpx
import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from tests.upstreams.connecting import (
    FakeAuthorizationServer,
    ProtectedUpstream,
    account_of,
    approve,
    begin,
    browser_of,
    connect,
    person,
    query_of,
    token_requests,
    upstream_at,
)
from upstreams import accounts, connect_links, sealed_secrets
from upstreams.models import CredentialKind, PendingAuthorization, UpstreamAccount
from upstreams.signals import audit

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


# Attacks on the way back: each must end without a request to the token endpoint.


def refused(answer, server: FakeAuthorizationServer) -> None:
    assert answer.status_code == 400, answer.content.decode()
    assert token_requests(server) == 0
    assert not UpstreamAccount.objects.exists()


def test_76_a_victim_who_finishes_the_attackers_connect_gives_nothing_away(
    server, protected
) -> None:
    upstream = upstream_at(protected.url)
    callback = approve(begin(browser_of(person("mallory")), upstream))
    victim = browser_of(person("alice"))
    refused(victim.get(callback), server)
    begin(victim, upstream)  # a victim who has a binding cookie of their own
    refused(victim.get(callback), server)


def test_77_another_person_in_the_same_browser_is_refused(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person("alice"))
    callback = approve(begin(browser, upstream))
    browser.force_login(person("bob"))
    refused(browser.get(callback), server)


def test_78_the_same_person_in_another_browser_is_refused(server, protected) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    callback = approve(begin(browser_of(alice), upstream))
    refused(browser_of(alice).get(callback), server)


def test_a_person_who_is_signed_out_is_refused_and_not_sent_round(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    browser.cookies.pop("gateway-session", None)
    answer = browser.get(callback)
    refused(answer, server)
    assert "not signed in" in answer.content.decode()


def test_a_binding_cookie_of_ones_own_making_is_refused(server, protected) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    callback = approve(begin(browser_of(alice), upstream))
    other = browser_of(alice)
    other.cookies["gateway-connect"] = "made-up:value:x"
    refused(other.get(callback), server)


def test_79_an_answer_is_used_once(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    assert browser.get(callback).status_code == 303
    assert browser.get(callback).status_code == 400
    assert token_requests(server) == 1


def test_79_two_answers_at_once_make_one_exchange(server, protected) -> None:
    alice, upstream = person(), upstream_at(protected.url)
    browser = browser_of(alice)
    callback = approve(begin(browser, upstream))
    statuses: list[int] = []

    def go() -> None:
        copy = Client(HTTP_HOST="localhost:8000")
        copy.cookies = browser.cookies.copy()
        statuses.append(copy.get(callback).status_code)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [303, 400, 400, 400]
    assert token_requests(server) == 1


def test_79_a_late_answer_is_refused(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    PendingAuthorization.objects.update(expires_at=timezone.now())
    refused(browser.get(callback), server)


@pytest.mark.parametrize("change", ["missing", "cut", "long", "twice", "other", "null"])
def test_79_a_state_that_is_not_ours_is_refused(server, protected, change: str) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    state = query_of(callback)["state"]
    wrong = {
        "missing": callback.replace("state=", "stat="),
        "cut": callback.replace(state, state[:-1]),
        "long": callback.replace(state, "a" * 10_000),
        "twice": f"{callback}&state={state}",
        "other": callback.replace(state, "A" * 43),
        "null": callback.replace(state, state + "%00"),
    }[change]
    refused(browser.get(wrong), server)


def test_79_an_answer_on_another_upstreams_address_is_refused(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    refused(browser.get(callback.replace("/callback", "/callback/fake")), server)


@pytest.mark.parametrize("iss", ["https://evil.example", "omit-one", "slash", "case", "twice"])
def test_80_an_answer_of_another_issuer_is_refused(server, protected, iss: str) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    httpx_iss = httpx.QueryParams({"iss": server.issuer})
    right = str(httpx_iss)
    wrong = {
        "https://evil.example": callback.replace(right, "iss=https%3A%2F%2Fevil.example"),
        "omit-one": callback.replace(f"&{right}", ""),
        "slash": callback.replace(right, right + "%2F"),
        "case": callback.replace(right, right.replace("http", "HTTP")),
        "twice": f"{callback}&{right}",
    }[iss]
    assert wrong != callback
    answer = browser.get(wrong)
    refused(answer, server)
    assert "evil" not in answer.content.decode()


def test_80_an_issuer_that_is_wrong_though_not_announced_is_refused(server, protected) -> None:
    server.changes["authorization_response_iss_parameter_supported"] = None
    server.iss = "https://evil.example"
    upstream, browser = upstream_at(protected.url), browser_of(person())
    refused(browser.get(approve(begin(browser, upstream))), server)


def test_80_an_error_of_another_issuer_shows_none_of_its_text(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    state = query_of(begin(browser, upstream))["state"]
    answer = browser.get(
        "/connect/callback",
        {
            "state": state,
            "iss": "https://evil.example",
            "error": "access_denied",
            "error_description": "CALL 555",
        },
    )
    refused(answer, server)
    assert "declined" not in answer.content.decode()
    assert "555" not in answer.content.decode()


def test_a_server_that_names_itself_nowhere_has_a_redirect_address_of_its_own(
    server, protected
) -> None:
    server.iss = "omit"
    upstream, browser = upstream_at(protected.url), browser_of(person())
    address = begin(browser, upstream)
    assert query_of(address)["redirect_uri"].endswith("/connect/callback/fake")
    callback = approve(address)
    refused(browser.get(callback.replace("/callback/fake", "/callback")), server)
    assert browser.get(callback).status_code == 303


def test_91_unsigned_data_on_the_callback_decides_nothing(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    extra = "&params=eyJyZWRpcmVjdF91cmkiOiJodHRwczovL2V2aWwifQ&next=https://evil.example&code_verifier=x"
    assert browser.get(callback + extra)["Location"] == "/connections/"
    assert "redirect_uri" not in extra or server.calls("/token")[0].form["redirect_uri"].startswith(
        "http://localhost:8000/"
    )


def test_a_person_who_declines_sees_our_words(server, protected) -> None:
    server.decision = "deny"
    upstream, browser = upstream_at(protected.url), browser_of(person())
    answer = browser.get(approve(begin(browser, upstream)))
    refused(answer, server)
    assert "declined" in answer.content.decode()
    assert "<b>no" not in answer.content.decode()


def test_an_upstream_that_moved_meanwhile_gets_no_tokens(server, protected) -> None:
    upstream, browser = upstream_at(protected.url), browser_of(person())
    callback = approve(begin(browser, upstream))
    upstream.url = "https://elsewhere.example/mcp"
    upstream.save()
    refused(browser.get(callback), server)


def test_a_refused_answer_is_in_the_audit_trail(server, protected) -> None:
    heard: list[str] = []

    def hear(sender, kind, **kwargs) -> None:
        heard.append(kind)

    audit.connect(hear)
    try:
        upstream = upstream_at(protected.url)
        callback = approve(begin(browser_of(person("mallory")), upstream))
        browser_of(person("alice")).get(callback)
    finally:
        audit.disconnect(hear)
    assert "account.connect_refused" in heard


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
    deadline = time.monotonic() + 5
    while not server.revoked and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.revoked == [secret.refresh_token]
    assert not accounts.disconnect(alice, upstream, actor=alice)


# Links and keys.


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
    upstream = upstream_at(
        "https://x.example/mcp", credential_kind=CredentialKind.USER_KEY, user_key_help="Ask Bob."
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
