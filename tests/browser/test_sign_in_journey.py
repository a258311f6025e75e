"""Signing in by a provider, security keys and sessions, in a real browser and in every look."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.looks import LOOKS, fits, problems
from tests.browser.stage import PASSWORD, Stage
from tests.fakes.openid_provider import OpenIdProvider
from tests.fakes.saml_provider import SamlProvider
from tests.running_gateway import running_gateway

PROVIDERS = """
from allauth.socialaccount.models import SocialApp
from gateway_site import people_actions
for name, url, domains in {providers}:
    app = SocialApp(provider_id=name.lower(), name=name)
    settings = {{"server_url": url, "sign_in_domains": domains}}
    values = {{"client_id": "gw", "settings": settings}}
    people_actions.save_identity_provider(app, values, secret="sso-s3cret", actor=None)
"""
SAML_PROVIDER = """
from allauth.socialaccount.models import SocialApp
from gateway_site import people_actions
app = SocialApp(provider_id="fabrikam", name="Fabrikam")
settings = {{"preset": "saml", "server_url": "{url}/metadata.xml"}}
people_actions.save_identity_provider(app, {{"settings": settings}}, actor=None)
"""
NO_PROVIDERS = """
from allauth.socialaccount.models import SocialApp
from gateway_site import people_actions
for app in SocialApp.objects.all():
    people_actions.delete_identity_provider(app, actor=None)
"""


@pytest.fixture
def company(stage: Stage) -> Iterator[OpenIdProvider]:
    """One provider that signs Grace in; others come by ``set_up``."""
    claims = {"email": "grace@contoso.com", "email_verified": True, "name": "Grace Hopper"}
    with OpenIdProvider(claims=claims, algorithm="ES256").serve() as provider:
        yield provider
    stage.gateway.manage("shell", "-v", "0", "-c", NO_PROVIDERS)


def set_up(stage: Stage, *providers: tuple[str, str, list[str]]) -> None:
    code = PROVIDERS.format(providers=json.dumps(providers))
    stage.gateway.manage("shell", "-v", "0", "-c", code)


@pytest.mark.parametrize("look", LOOKS)
def test_a_provider_signs_somebody_in_and_everywhere_out(
    stage: Stage, seat: Any, shoot: Any, company: OpenIdProvider, look: str
):
    set_up(stage, ("Contoso", company.url, []))
    chair = seat(**LOOKS[look])
    other = seat(user_agent="Mozilla/5.0 (iPhone) Version/18.1 Safari/604.1").page()
    other.goto(f"{stage.url}/accounts/login/?next=/connections/")
    other.get_by_role("button", name="Continue with Contoso").click()
    other.wait_for_url("**/connections/")
    page = chair.page()
    page.goto(f"{stage.url}/accounts/login/?next=/connections/")
    expect(page.get_by_label("Password")).to_be_hidden()
    found = problems(page)
    shoot(page, f"sign-in-one-provider-{look}")
    page.get_by_text("Sign in with a local account").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.get_by_role("button", name="Continue with Contoso").click()
    page.wait_for_url("**/connections/")
    page.goto(f"{stage.url}/accounts/sessions/")
    expect(page.get_by_text("This browser")).to_be_visible()
    found += problems(page)
    shoot(page, f"sessions-{look}")
    assert fits(page)
    page.get_by_role("button", name="Sign out everywhere").click()
    page.wait_for_url("**/accounts/login/")
    for tab in (page, other):
        tab.goto(f"{stage.url}/connections/")
        assert "/accounts/login/" in tab.url
    assert found == []
    assert chair.complaints == []


@pytest.mark.parametrize("look", LOOKS)
def test_the_address_chooses_the_provider(
    stage: Stage, seat: Any, shoot: Any, company: OpenIdProvider, look: str
):
    set_up(
        stage,
        ("Contoso", company.url, ["contoso.com"]),
        ("Fabrikam", "https://fabrikam.example", ["fabrikam.com"]),
        ("Partners", "https://partners.example", []),
    )
    chair = seat(**LOOKS[look])
    page = chair.page()
    page.goto(f"{stage.url}/accounts/login/?next=/connections/")
    expect(page.get_by_role("button", name="Continue with Contoso")).to_have_count(0)
    found = problems(page)
    shoot(page, f"sign-in-by-address-{look}")
    page.get_by_label("E-mail address", exact=True).fill("somebody@elsewhere.example")
    page.get_by_role("button", name="Continue", exact=True).click()
    page.wait_for_url("**/accounts/login/?all=1**")
    expect(page.get_by_role("button", name="Continue with Contoso")).to_be_visible()
    found += problems(page)
    shoot(page, f"sign-in-every-way-{look}")
    page.go_back()
    page.get_by_label("E-mail address", exact=True).fill("grace@contoso.com")
    page.get_by_role("button", name="Continue", exact=True).click()
    page.wait_for_url("**/connections/")
    assert company.asked[-1]["login_hint"] == "grace@contoso.com"
    assert found == []
    assert chair.complaints == []


LINES_OF_THE_ADDRESS = """link => {
    const words = document.createRange();
    words.selectNodeContents(link);
    return new Set([...words.getClientRects()].map(line => line.top)).size;
}"""


@pytest.mark.parametrize("look", LOOKS)
def test_who_is_not_let_in_reads_where_to_ask_in_one_piece(
    stage: Stage, seat: Any, shoot: Any, company: OpenIdProvider, look: str
):
    set_up(stage, ("Contoso", company.url, []))
    closed = {"settings": {"server_url": company.url, "allowed_groups": ["staff"]}}
    change = f"""
from allauth.socialaccount.models import SocialApp
from gateway_site import people_actions
app = SocialApp.objects.get(provider_id="contoso")
people_actions.save_identity_provider(app, {closed!r}, secret="sso-s3cret", actor=None)
"""
    stage.gateway.manage("shell", "-v", "0", "-c", change)
    page = seat(**LOOKS[look]).page()
    page.goto(f"{stage.url}/accounts/login/?next=/connections/")
    for shown in ("sign-in", "not-admitted"):
        help_links = page.locator('a[href="mailto:it-help@example.com"]:visible')
        expect(help_links.first).to_be_visible()
        shoot(page, f"where-to-ask-{shown}-{look}")
        assert problems(page) == []
        before = page.viewport_size
        for width in range(320, 480, 4):
            page.set_viewport_size({"width": width, "height": 700})
            for link in help_links.all():
                assert link.evaluate(LINES_OF_THE_ADDRESS) == 1, (shown, width)
            assert fits(page)
        page.set_viewport_size(before)
        if shown == "sign-in":
            page.get_by_role("button", name="Continue with Contoso").click()
            expect(page.get_by_role("heading", level=1)).to_have_text(
                "You cannot come in with this account"
            )


@pytest.fixture
def fabrikam(stage: Stage) -> Iterator[SamlProvider]:
    """A SAML provider of another site than the gateway: its answer comes without our cookies."""
    attributes = {"email": ["lin@fabrikam.com"], "givenName": ["Lin"], "sn": ["Yao"]}
    with SamlProvider(attributes=attributes, name_id="lin-1").serve() as provider:
        provider.url = provider.url.replace("127.0.0.1", "localhost")
        stage.gateway.manage("shell", "-v", "0", "-c", SAML_PROVIDER.format(url=provider.url))
        yield provider
    stage.gateway.manage("shell", "-v", "0", "-c", NO_PROVIDERS)


@pytest.mark.parametrize("look", LOOKS)
def test_a_client_is_authorized_by_somebody_who_signs_in_by_saml(
    stage: Stage, seat: Any, shoot: Any, fabrikam: SamlProvider, look: str
):
    chair = seat(**LOOKS[look])
    page = chair.page()
    redirect = f"{stage.client_url}/callback"
    client = stage.register("Editor", redirect)
    page.goto(stage.authorize_url(client, redirect, "harbour", f"saml-{look}"))
    found = problems(page)
    shoot(page, f"sign-in-saml-{look}")
    page.get_by_role("button", name="Continue with Fabrikam").click()
    page.wait_for_url("**/oauth/authorize?**")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Editor wants to use Harbour as you")
    expect(page.get_by_text("Lin Yao")).to_be_visible()
    found += problems(page)
    shoot(page, f"consent-after-saml-{look}")
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{redirect}?**")
    answer = stage.client.answers[-1]
    assert (answer["state"], answer["iss"]) == (f"saml-{look}", stage.url)
    token = stage.token(client, redirect, answer["code"], "harbour")
    assert stage.call_status(token, "harbour") == 200
    assert found == []
    assert chair.complaints == []


def test_an_answer_by_saml_that_is_not_signed_shows_what_to_do(
    stage: Stage, seat: Any, shoot: Any, fabrikam: SamlProvider
):
    fabrikam.signs = "nothing"
    page = seat().page()
    page.goto(f"{stage.url}/accounts/login/?next=/connections/")
    page.get_by_role("button", name="Continue with Fabrikam").click()
    page.wait_for_url(f"{stage.url}/accounts/saml/**")
    assert problems(page) == []
    shoot(page, "saml-refused")
    page.goto(f"{stage.url}/connections/")
    assert "/accounts/login/" in page.url


@pytest.fixture(scope="module")
def key_gateway() -> Iterator[str]:
    """A gateway by the name localhost: browsers take security keys for names only."""
    people = [{"username": f"keys-{look}", "password": "env:KEY_PASSWORD"} for look in LOOKS]
    environment = {"GATEWAY_EXTRA_HOSTS": "localhost", "KEY_PASSWORD": PASSWORD}
    with running_gateway({"version": 1, "users": people}, environment=environment) as gateway:
        yield gateway.url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("look", LOOKS)
def test_a_security_key_is_added_and_asked_for(key_gateway: str, seat: Any, shoot: Any, look: str):
    name = f"keys-{look}"
    chair = seat(**LOOKS[look])
    page = chair.page()
    session = chair.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    key = {"protocol": "ctap2", "transport": "usb", "hasResidentKey": True}
    key |= {
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": key})
    page.goto(f"{key_gateway}/accounts/login/")
    chair.sign_in(page, name)
    page.goto(f"{key_gateway}/accounts/2fa/")
    found = problems(page)
    shoot(page, f"second-factor-{look}")
    page.goto(f"{key_gateway}/accounts/2fa/webauthn/add/")
    if "reauthenticate" in page.url:
        shoot(page, f"prove-it-again-{look}")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Confirm").click()
    found += problems(page)
    shoot(page, f"add-key-{look}")
    assert fits(page)
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_url(lambda address: "/webauthn/add/" not in address)
    page.goto(f"{key_gateway}/accounts/logout/")
    page.get_by_role("button", name="Sign out").last.click()
    page.goto(f"{key_gateway}/accounts/login/?next=/connections/")
    chair.sign_in(page, name)
    page.wait_for_url("**/2fa/authenticate/**")
    found += problems(page)
    shoot(page, f"asked-for-key-{look}")
    assert fits(page)
    page.get_by_role("button", name="Use a security key").click()
    page.wait_for_url("**/connections/")
    assert found == []
    assert chair.complaints == []
