"""Signing in again for what the company vouches for: from the page that asks, and back to it."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from consent.upstream_checklist import checklist_for
from gateway_site.identity_grants import sign_in_ways
from gateway_site.models import IdentityGrant
from tests.fakes.browser import Page
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, configured, path_of, signed_in
from upstreams import accounts, enterprise_identity
from upstreams.models import CredentialKind, Upstream, UpstreamAccount
from virtualmcp.models import UpstreamChoice, VirtualMcp

pytestmark = pytest.mark.django_db(transaction=True)
CLAIMS = {"email": "grace@contoso.com", "email_verified": True, "preferred_username": "grace"}
PAGE = "/connect/planning/"


@pytest.fixture
def provider(transactional_db) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(CLAIMS), gives_refresh_tokens=True).serve() as provider:
        yield provider


@pytest.fixture
def planning(provider) -> Upstream:
    upstream = Upstream.objects.create(
        key="planning",
        title="Planning",
        url="https://planning.example/mcp",
        credential_kind=CredentialKind.ENTERPRISE,
        enterprise_token_url="https://login.example/token",
        enterprise_client_id="gw",
    )
    team = VirtualMcp.objects.create(slug="team", title="Team", audience="everyone")
    UpstreamChoice.objects.create(virtual_mcp=team, upstream=upstream, required=True)
    return upstream


@pytest.fixture
def company(provider) -> SocialApp:
    return configured(provider)


@pytest.fixture
def grace(company, planning, provider) -> Client:
    """The browser of somebody whose sign-in has run out and cannot be renewed."""
    browser = Client(SERVER_NAME="localhost", SERVER_PORT="8000", enforce_csrf_checks=True)
    with_a_token(browser, provider)
    assert signed_in(browser)
    run_out(provider)
    return browser


def with_a_token(browser: Client, provider: OpenIdProvider) -> None:
    browser.handler.enforce_csrf_checks = False
    arrive(browser, provider)
    browser.handler.enforce_csrf_checks = True


def run_out(provider: OpenIdProvider) -> None:
    provider.refresh_tokens.clear()
    IdentityGrant.objects.update(ends={"id_token": int(time.time()) - 5, "access_token": 0})


def person() -> User:
    return User.objects.get(username="grace")


def shown(browser: Client, address: str, **query: str) -> Page:
    answer = browser.get(address, query)
    html = answer.content.decode()
    return Page(address, answer.status_code, html, httpx.Headers({"content-type": "text/html"}))


def press(browser: Client, page: Page, words: str, **changes: str) -> Any:
    found = page.find_button(words)
    assert found is not None, page.text
    form, _ = found
    assert form.method == "post"
    return browser.post(form.action, {**form.fields, **changes}, headers={"origin": LOCAL})


LOCAL = "http://localhost:8000"


def test_a_button_leads_to_the_companys_sign_in_and_back(grace, provider, planning) -> None:
    assert accounts.status_for(person(), planning).state == "needs_reconnect"
    origin = "/oauth/authorize?client_id=a&state=b%26c"
    page = shown(grace, PAGE, next=origin)
    sent = press(grace, page, "Sign in with Company")
    assert sent.status_code == 302
    assert sent["Location"].startswith(f"{provider.url}/authorize?")
    answer = provider.answer_to(sent["Location"])
    assert provider.asked[-1]["login_hint"] == "grace@contoso.com"
    back = grace.get("/accounts/oidc/company/login/callback/", answer)
    assert (back.status_code, back["Location"]) == (302, origin)
    assert signed_in(grace)
    assert enterprise_identity.subject_token(person().pk, "id_token") is not None
    ready = shown(grace, PAGE, next=origin)
    assert "Used as you, by your company's sign-in." in ready.text
    assert ready.find_link("Continue") == origin and ready.find_button("Sign in with") is None


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_way_back_never_leaves_the_gateway(grace, provider, target) -> None:
    page = shown(grace, PAGE, next=target)
    form, _ = page.find_button("Sign in with Company") or pytest.fail(page.text)
    assert form.fields["next"] == "/connections/"
    assert "evil" not in page.html
    sent = press(grace, page, "Sign in with Company", next=target)
    answer = provider.answer_to(sent["Location"])
    back = grace.get("/accounts/oidc/company/login/callback/", answer)
    assert back.status_code == 302
    assert back["Location"].startswith("/") and path_of(back["Location"]) in ("/", "/connections/")


def test_the_page_without_a_token_of_its_own_form_sends_nobody_anywhere(grace) -> None:
    form, _ = shown(grace, PAGE).find_button("Sign in with Company") or pytest.fail()
    assert grace.post(form.action, {"next": "/"}, headers={"origin": LOCAL}).status_code == 403


def test_without_a_provider_the_page_says_who_can_help(grace, company) -> None:
    company.delete()
    page = shown(grace, PAGE)
    assert page.find_button("Sign in with") is None
    assert "Ask your administrator" in page.text
    assert page.find_link("Not now") == "/connections/"


def test_nobody_signs_in_again_while_the_access_they_have_lives(grace, planning) -> None:
    account = UpstreamAccount.objects.create(
        user=person(),
        upstream=planning,
        bound_url=planning.url,
        expires_at=timezone.now() + timedelta(minutes=5),
    )
    assert accounts.status_for(person(), planning).state == "not_needed"
    account.expires_at = timezone.now() - timedelta(seconds=1)
    account.save()
    assert accounts.status_for(person(), planning).state == "needs_reconnect"


def test_only_providers_that_can_vouch_are_offered(grace, company) -> None:
    configured(OpenIdProvider(url="https://other.example"), "another")
    SocialApp.objects.create(provider="saml", provider_id="older", name="Older", client_id="older")
    theirs = person().pk
    assert [way.name for way in sign_in_ways(theirs, "")] == ["Company"]
    assert [way.name for way in sign_in_ways(theirs, "another")] == ["Another"]
    assert sign_in_ways(theirs, "older") == []
    SocialAccount.objects.all().delete()
    assert [way.name for way in sign_in_ways(theirs, "")] == ["Another", "Company"]


def test_the_pages_that_wait_for_it_lead_there(grace, provider, planning) -> None:
    assert checklist_for(person(), "team").why_not == "Connect Planning first."
    page = shown(grace, "/connections/")
    assert page.find_link("Sign in again") == f"{PAGE}?next=%2Fconnections%2F"
    assert "Planning needs to be connected again" in page.text
    with_a_token(grace, provider)
    assert checklist_for(person(), "team").why_not == ""
    page = shown(grace, "/connections/")
    assert "by your company's sign-in" in page.text and not page.find_link("Sign in again")
