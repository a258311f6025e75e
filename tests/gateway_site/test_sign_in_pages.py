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
