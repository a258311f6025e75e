"""The sign-in pages in the look of the rest."""

import pytest
from allauth.socialaccount.models import SocialApp
from django.test import Client

from tests.consent.people_and_servers import browser_of, person

pytestmark = pytest.mark.django_db


def configured_provider() -> None:
    SocialApp.objects.create(
        provider="openid_connect",
        provider_id="company",
        name="Contoso",
        client_id="gateway",
        secret="x",
        settings={"server_url": "https://idp.example"},
    )


def test_local_form_stands_alone_without_providers():
    body = Client().get("/accounts/login/").content.decode()
    assert "Username or e-mail address" in body
    assert "or with a local account" not in body
    assert 'autocomplete="current-password"' in body


def test_company_sign_in_comes_first():
    configured_provider()
    body = Client().get("/accounts/login/?next=/connections/").content.decode()
    assert body.index("Continue with Contoso") < body.index("Username or e-mail address")
    assert "next=%2Fconnections%2F" in body


def test_failed_sign_in_says_so_and_keeps_the_way_back():
    person()
    page = Client().post(
        "/accounts/login/", {"login": "maria", "password": "wrong", "next": "/connections/"}
    )
    body = page.content.decode()
    assert 'role="alert"' in body
    assert 'value="/connections/"' in body


def test_whom_a_program_sent_is_told_what_comes_after_signing_in():
    said = "A program asks to use this gateway as you."
    for going_to, shown in (("/oauth/authorize?client_id=x", True), ("/connections/", False)):
        page = Client().get("/accounts/login/", {"next": going_to}).content.decode()
        assert (said in page) is shown
    wrong = {"login": "maria", "password": "wrong", "next": "/oauth/authorize?client_id=x"}
    assert said in Client().post("/accounts/login/", wrong).content.decode()


@pytest.mark.parametrize("mail", [True, False])
def test_a_forgotten_password_leads_to_mail_only_where_there_is_mail(settings, mail):
    settings.MAIL_CONFIGURED = mail
    page = browser_of(person()).get("/accounts/password/change/").content.decode()
    assert ("/accounts/password/reset/" in page) is mail
    assert ("Your administrator can set a new one." in page) is not mail


def test_nobody_signs_up_by_themselves():
    body = Client().get("/accounts/signup/").content.decode()
    assert "Accounts are made by your administrator" in body


@pytest.mark.parametrize(
    "path",
    ["/accounts/logout/", "/accounts/password/change/", "/accounts/2fa/"],
)
def test_account_pages_share_the_frame(path):
    body = browser_of(person()).get(path, follow=True).content.decode()
    assert "gateway/gateway.css" in body
    assert "Menu:" not in body


def test_no_page_loads_anything_from_elsewhere():
    for path in ("/accounts/login/", "/accounts/signup/", "/nowhere"):
        body = Client(headers={"accept": "text/html"}).get(path).content.decode()
        assert "//" not in body.replace("http://localhost:8000", "")


# Several ways -----------------------------------------------------------------------------
def divided(**domains: list[str]) -> None:
    for name, listed in domains.items():
        SocialApp.objects.create(
            provider="openid_connect",
            provider_id=name,
            name=name.capitalize(),
            client_id="gateway",
            settings={"server_url": f"https://{name}.example", "sign_in_domains": listed},
        )


def test_with_one_provider_there_is_nothing_to_choose():
    divided(north=["north.example"])
    body = Client().get("/accounts/login/").content.decode()
    assert "Continue with North" in body
    assert 'name="address"' not in body
    assert "<summary>Sign in with a local account</summary>" in body


def test_where_providers_divide_the_domains_the_address_comes_first():
    divided(north=["north.example"], south=["south.example"], partners=[])
    body = Client().get("/accounts/login/?next=/connections/").content.decode()
    assert body.index('name="address"') < body.index("Continue with Partners")
    assert "Continue with North" not in body
    assert 'value="/connections/"' in body
    everything = Client().get("/accounts/login/?all=1").content.decode()
    assert everything.count("Continue with ") == 3
    assert 'name="address"' not in everything


def test_an_address_leads_to_its_provider(monkeypatch):
    divided(north=["north.example"], south=["south.example"])
    metadata = {
        "authorization_endpoint": "https://south.example/authorize",
        "token_endpoint": "https://south.example/token",
    }
    monkeypatch.setattr("gateway_site.identity.discovery.metadata_of", lambda issuer: metadata)
    form = {"address": "Ada@South.example", "next": "/connections/"}
    client = Client()
    sent = client.post("/accounts/choose/", form).headers["Location"]
    assert sent.startswith("https://south.example/authorize?client_id=gateway&")
    assert "login_hint=Ada%40South.example" in sent
    state = next(iter(client.session["socialaccount_states"].values()))[0]
    assert state["next"] == "/connections/"


@pytest.mark.parametrize("going_to", ["/connections/", "https://evil.example/"])
def test_any_other_address_gets_every_way(going_to):
    divided(north=["north.example"], south=["south.example"])
    form = {"address": "ada@west.example", "next": going_to}
    sent = Client().post("/accounts/choose/", form).headers["Location"]
    safe = "&next=%2Fconnections%2F" if going_to.startswith("/") else ""
    assert sent == f"/accounts/login/?all=1{safe}"


def test_a_provider_that_does_not_answer_is_said_plainly():
    divided(north=["north.invalid"], south=["south.example"])
    SocialApp.objects.filter(provider_id="north").update(
        settings={"server_url": "http://127.0.0.1:9", "sign_in_domains": ["north.invalid"]}
    )
    answer = Client().post("/accounts/choose/", {"address": "ada@north.invalid"})
    assert answer.status_code == 401
    assert "Sign-in did not work" in answer.content.decode()


def test_who_a_client_expects_is_passed_on_to_the_provider():
    divided(north=["north.example"], south=["south.example"])
    hint = "/accounts/login/?login_hint=ada%40north.example%22%3E"
    body = Client().get(hint).content.decode()
    assert 'value="ada@north.example&quot;&gt;"' in body
    body = Client().get(hint + "&all=1").content.decode()
    assert body.count('name="login_hint" value="ada@north.example&quot;&gt;"') == 2
