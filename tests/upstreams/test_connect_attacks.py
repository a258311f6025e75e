"""Attacks on the way back from an authorization server (security.md #76 to #80, #91).

Each must end without a request to the token endpoint.
"""

import threading

import httpx
import pytest
from django.test import Client
from django.utils import timezone

from tests.upstreams.connecting import (
    FakeAuthorizationServer,
    approve,
    begin,
    browser_of,
    person,
    query_of,
    token_requests,
    upstream_at,
)
from upstreams.models import PendingAuthorization, UpstreamAccount
from upstreams.signals import audit

pytestmark = pytest.mark.django_db(transaction=True)


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
