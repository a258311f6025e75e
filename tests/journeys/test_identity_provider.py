"""The company's sign-in with an identity provider that nobody of this project wrote.

The provider is panva's ``oidc-provider`` as a process, the gateway another one; an administrator
has configured it as the generic kind, by the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.fakes.asgi_server import serve
from tests.fakes.browser import Browser, walk_consent
from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.identity_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    IdentityProvider,
    identity_provider,
    sign_in_there,
)
from tests.journeys.wire_client import WireClient
from tests.journeys.world import within
from tests.running_gateway import RunningGateway, running_gateway

pytestmark = [pytest.mark.npm, pytest.mark.timeout(240)]
CALLBACK = "{}/accounts/oidc/company/login/callback/"
# What a loaded machine may take for what is promised within seconds.
PATIENCE = 20.0


@dataclass
class Company:
    """The gateway with the company's provider."""

    gateway: RunningGateway
    provider: IdentityProvider

    def browser(self) -> Browser:
        """Somebody's browser, which stops where a client takes over."""
        return Browser(stops=("http://127.0.0.1/callback",))

    def arrive(self, browser: Browser, login: str) -> str:
        """Sign in by the provider's button; returns the text of the page where that ends."""
        browser.open(f"{self.gateway.url}/accounts/login/")
        browser.press("Continue with Company")
        return sign_in_there(browser, login).text

    def client_of(self, browser: Browser) -> WireClient:
        """Connect an MCP client for who is signed in in a browser."""
        client = WireClient(self.gateway.endpoint("team"))
        client.discover()
        client.register()
        client.exchange(walk_consent(browser, client.authorize_url(), "", ""))
        return client


def settings(provider: IdentityProvider, upstream: str) -> dict[str, object]:
    return {
        "groups": ["Engineers"],
        "identity_providers": [
            {
                "id": "company",
                "name": "Company",
                "preset": "generic",
                "server_url": provider.url,
                "client_id": CLIENT_ID,
                "client_secret": "env:COMPANY_SECRET",
                "scopes": ["openid", "profile", "email", "groups"],
                "group_mapping": {"engineering": "Engineers"},
                "sign_out_there": True,
            }
        ],
        "upstreams": [{"key": "tools", "title": "Tools", "url": upstream, "credential": "none"}],
        "virtual_mcps": [
            {
                "slug": "team",
                "title": "Team",
                "audience": "groups",
                "groups": ["Engineers"],
                "upstreams": ["tools"],
            }
        ],
    }


@pytest.fixture(scope="module")
def company() -> Iterator[Company]:
    with identity_provider() as provider, serve(FakeUpstream()) as upstream:
        configuration = settings(provider, f"{upstream}/mcp")
        secret = {"COMPANY_SECRET": CLIENT_SECRET}
        with running_gateway(configuration, environment=secret) as gateway:
            provider.know_gateway(gateway.url)
            yield Company(gateway, provider)


def signed_in(company: Company, browser: Browser) -> bool:
    """Tell whether a page that needs somebody signed in opens."""
    return "/accounts/login" not in browser.open(f"{company.gateway.url}/connections/").url


def test_people_come_in_by_discovery_and_pkce_with_the_groups_the_provider_names(company) -> None:
    company.provider.person("grace", "engineering", "all staff")
    company.provider.person("heidi", "sales")
    browser = company.browser()
    company.arrive(browser, "grace")
    assert signed_in(company, browser)
    client = company.client_of(browser)
    assert client.names()
    other = company.browser()
    company.arrive(other, "heidi")
    assert signed_in(company, other)
    barred = WireClient(company.gateway.endpoint("team"))
    barred.discover()
    barred.register()
    page = other.open(barred.authorize_url())
    assert not page.find_button("Authorize"), page.text
    assert company.provider.errors() == []


def begun(company: Company, login: str) -> tuple[Browser, dict[str, str], dict[str, str]]:
    """Sign in there and stop before coming back; with what was asked and what came of it."""
    browser = Browser(stops=(f"{company.provider.url}/auth?",))
    browser.open(f"{company.gateway.url}/accounts/login/")
    asked = browser.press("Continue with Company").stopped_at
    browser.stops = (CALLBACK.format(company.gateway.url),)
    browser.open(asked)
    answered = sign_in_there(browser, login).stopped_at
    browser.stops = company.browser().stops
    of_asked, of_answered = (dict(parse_qsl(urlsplit(url).query)) for url in (asked, answered))
    return browser, of_asked, of_answered


def come_back(company: Company, browser: Browser, answer: dict[str, str]) -> bool:
    """Come back to the gateway with an answer; tells whether that signs anybody in."""
    browser.open(f"{CALLBACK.format(company.gateway.url)}?{urlencode(answer)}")
    return signed_in(company, browser)


def test_each_sign_in_is_bound_to_its_browser_by_state_nonce_and_pkce(company) -> None:
    company.provider.person("walter", "engineering")
    company.provider.person("trudy", "engineering")
    walter, asked, answered = begun(company, "walter")
    _, also_asked, also_answered = begun(company, "trudy")
    for one in (asked, also_asked):
        assert (one["response_type"], one["code_challenge_method"]) == ("code", "S256")
    for name in ("state", "nonce", "code_challenge"):
        assert asked[name] != also_asked[name]
        assert min(len(asked[name]), len(also_asked[name])) >= 32
    assert answered["iss"] == company.provider.url
    # Another browser, with all that came back to this one.
    assert not come_back(company, Browser(), answered)
    # Another person's code behind one's own state: the provider refuses it, by the verifier.
    assert not come_back(company, walter, answered | {"code": also_answered["code"]})
    # A state counts once.
    assert not come_back(company, walter, answered)
    other, _, good = begun(company, "walter")
    assert come_back(company, other, good)


def test_a_group_that_is_lost_there_is_lost_here_at_the_next_sign_in_for_clients_too(
    company,
) -> None:
    company.provider.person("victor", "engineering")
    browser = company.browser()
    company.arrive(browser, "victor")
    client = company.client_of(browser)
    assert client.names()
    company.provider.person("victor", "sales")
    company.arrive(company.browser(), "victor")
    within(PATIENCE, lambda: client.rpc("tools/list").status != 200)
    company.provider.person("victor", "sales", "engineering")
    company.arrive(company.browser(), "victor")
    within(PATIENCE, lambda: client.rpc("tools/list").status == 200)


def test_somebody_disabled_there_does_not_come_in(company) -> None:
    company.provider.person("ivan", "engineering", disabled=True)
    browser = company.browser()
    company.arrive(browser, "ivan")
    assert not signed_in(company, browser)
    company.provider.person("ivan", "engineering")
    company.arrive(browser, "ivan")
    assert signed_in(company, browser)


def test_a_new_key_at_the_provider_is_fetched_when_it_is_first_used(company) -> None:
    company.provider.person("judy", "engineering")
    first = company.browser()
    company.arrive(first, "judy")
    assert signed_in(company, first)
    company.provider.do("rotate", drop=True)
    within(PATIENCE, lambda: arrives(company, "judy"))


def test_a_key_that_is_added_there_is_taken_while_the_old_one_stays_published(company) -> None:
    company.provider.person("judith", "engineering")
    assert arrives(company, "judith")
    company.provider.do("rotate")
    within(PATIENCE, lambda: arrives(company, "judith"))
    assert company.provider.errors() == []


def arrives(company: Company, login: str) -> bool:
    browser = company.browser()
    company.arrive(browser, login)
    return signed_in(company, browser)


def test_signing_out_here_signs_out_there(company) -> None:
    company.provider.person("mallory", "engineering")
    browser = company.browser()
    company.arrive(browser, "mallory")
    browser.open(f"{company.gateway.url}/accounts/logout/")
    page = browser.press("Sign out")
    assert page.url.startswith(f"{company.provider.url}/session/end"), page.url
    page = browser.press("Yes, sign me out")
    assert page.url.startswith(f"{company.gateway.url}/accounts/login/"), page.text
    browser.press("Continue with Company")
    assert browser.page is not None and browser.page.find_button("Sign-in")


def test_signing_out_there_ends_the_session_here(company) -> None:
    company.provider.person("niaj", "engineering")
    browser, elsewhere = company.browser(), company.browser()
    company.arrive(browser, "niaj")
    company.arrive(elsewhere, "niaj")
    client = company.client_of(browser)
    browser.open(f"{company.provider.url}/session/end")
    browser.press("Yes, sign me out")
    assert company.provider.errors() == []
    assert not signed_in(company, browser)
    assert signed_in(company, elsewhere), "another session there was ended"
    assert client.names(), "clients were to stay"


def test_signing_out_there_ends_clients_too_where_the_administrator_wants_that(company) -> None:
    company.provider.person("olivia", "engineering")
    company.gateway.apply({"identity_providers": [{"id": "company", "sign_out_ends_access": True}]})
    try:
        browser = company.browser()
        company.arrive(browser, "olivia")
        client = company.client_of(browser)
        browser.open(f"{company.provider.url}/session/end")
        browser.press("Yes, sign me out")
        assert company.provider.errors() == []
        within(PATIENCE, lambda: client.rpc("tools/list").status == 401)
        assert client.refresh().status_code == 400
    finally:
        company.gateway.apply(
            {"identity_providers": [{"id": "company", "sign_out_ends_access": False}]}
        )


EVERYTHING_NOTED = (
    "from gateway_site.models import AuditEvent; "
    "print(list(AuditEvent.objects.values('kind', 'target', 'details')))"
)


def test_what_is_secret_of_a_sign_in_is_in_no_log_and_not_in_the_audit_trail(company) -> None:
    company.provider.person("wendy", "engineering")
    browser, asked, answered = begun(company, "wendy")
    assert come_back(company, browser, answered)
    client = company.client_of(browser)
    assert client.names() and client.tokens is not None
    browser.open(f"{company.gateway.url}/accounts/logout/")
    browser.press("Sign out")
    noted = company.gateway.manage("shell", "-v0", "-c", EVERYTHING_NOTED)
    for kind in ("person.signed_in", "consent.given", "token.issued", "person.signed_out"):
        assert kind in noted
    secrets = {
        "client secret": CLIENT_SECRET,
        "code": answered["code"],
        "state": asked["state"],
        "nonce": asked["nonce"],
        "challenge": asked["code_challenge"],
        "access token": client.tokens.access_token,
        "refresh token": client.tokens.refresh_token,
        "a JSON web token": "eyJ",
    }
    for place, text in (("log", company.gateway.log()), ("audit trail", noted)):
        assert [name for name, value in secrets.items() if value in text] == [], place


# What nobody tells the gateway ---------------------------------------------------------------

ASK_NOW = (
    "from gateway_site.models import IdentityGrant; "
    "from gateway_site.identity_recheck import ask_due, providers_to_ask; "
    "IdentityGrant.objects.update(recheck_at=None); print(sum(map(ask_due, providers_to_ask())))"
)
A_WEEK_AND_A_DAY_LATER = (
    "from datetime import timedelta; from django.utils import timezone; "
    "from allauth.socialaccount.models import SocialAccount; "
    "from django.contrib.auth.models import User; at = timezone.now() - timedelta(days=8); "
    "SocialAccount.objects.update(last_login=at); User.objects.update(last_login=at)"
)


def change(company: Company, **settings: object) -> None:
    company.gateway.apply({"identity_providers": [{"id": "company", **settings}]})


def test_the_provider_is_asked_again_and_its_word_holds(company) -> None:
    change(company, recheck_minutes=15)
    try:
        for login in ("peggy", "rupert"):
            company.provider.person(login, "engineering")
        leaver, mover = company.browser(), company.browser()
        company.arrive(leaver, "peggy")
        company.arrive(mover, "rupert")
        lost, moved = company.client_of(leaver), company.client_of(mover)
        assert company.gateway.manage("shell", "-v0", "-c", ASK_NOW).strip() == "2"
        assert lost.names() and moved.names()
        company.provider.person("peggy", "engineering", disabled=True)
        company.provider.person("rupert", "sales")
        company.gateway.manage("shell", "-v0", "-c", ASK_NOW)
        within(PATIENCE, lambda: lost.rpc("tools/list").status == 401)
        assert lost.refresh().status_code == 400
        assert not signed_in(company, leaver)
        within(PATIENCE, lambda: moved.rpc("tools/list").status != 200)
        assert signed_in(company, mover)
    finally:
        change(company, recheck_minutes=0)


def test_a_sign_in_that_is_too_old_sends_the_client_back_to_its_person(company) -> None:
    change(company, sign_in_days=7)
    try:
        company.provider.person("sybil", "engineering")
        browser = company.browser()
        company.arrive(browser, "sybil")
        client = company.client_of(browser)
        assert client.refresh().status_code == 200
        company.gateway.manage("shell", "-v0", "-c", A_WEEK_AND_A_DAY_LATER)
        refused = client.refresh()
        assert refused.status_code == 400 and refused.json()["error"] == "invalid_grant"
        assert "sign in again" in refused.json()["error_description"]
        company.arrive(company.browser(), "sybil")
        assert client.refresh().status_code == 200
    finally:
        change(company, sign_in_days=0)
