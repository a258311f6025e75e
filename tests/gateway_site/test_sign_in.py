"""People sign in by name, address or provider, and land where they were going."""

import base64
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    hotp_value,
    yield_hotp_counters_from_time,
)
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from gateway_site import people_actions, sign_in_secrets
from gateway_site.sign_in import SEALED_SECRET
from upstreams.signals import audit

PASSWORD = "correct horse battery"
GOING_TO = "/oauth/authorize?" + urlencode(
    {"client_id": "x", "resource": "http://localhost:8000/v1/mcp/team", "state": "a&b"}
)


@pytest.fixture(autouse=True)
def fresh_limits(db):
    cache.clear()


@pytest.fixture
def ada(db) -> User:
    user = User(username="ada", email="ada@example.com")
    people_actions.save_person(user, {}, password=PASSWORD, actor=None)
    return user


def sign_in(client: Client, login: str, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/accounts/login/", {"login": login, "password": password, **more})


@pytest.mark.parametrize("login", ["ada", "ada@example.com", "ADA@example.com"])
def test_a_local_account_opens_by_name_and_by_address(client, ada, login):
    assert sign_in(client, login).headers["Location"] == "/"
    assert client.session["_auth_user_id"] == str(ada.pk)


def test_the_way_to_the_consent_page_is_kept(client, ada):
    answer = sign_in(client, "ada", next=GOING_TO)
    assert answer.headers["Location"] == GOING_TO


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:x"])
def test_nobody_is_sent_elsewhere_after_signing_in(client, ada, target):
    assert sign_in(client, "ada", next=target).headers["Location"] == "/"


def test_guessing_passwords_is_stopped(client, ada):
    for _ in range(6):
        sign_in(client, "ada", "wrong")
    answer = sign_in(client, "ada")
    assert "_auth_user_id" not in client.session
    assert answer.status_code in (200, 429)


def test_unknown_people_and_wrong_passwords_look_alike(ada):
    def page(login: str) -> str:
        text = sign_in(Client(), login, "wrong password").content.decode()
        text = re.sub(r'value="[^"]*"', "", text)
        return re.sub(r"[0-9a-f]{16}", "", text)

    assert page("ada") == page("nobody")


def test_somebody_who_was_switched_off_does_not_get_in(client, ada):
    people_actions.save_person(ada, {"is_active": False}, actor=None)
    sign_in(client, "ada")
    assert "_auth_user_id" not in client.session


def test_a_changed_password_ends_other_sessions(client, ada):
    sign_in(client, "ada")
    assert client.get("/connections/").status_code == 200
    people_actions.save_person(ada, {}, password="another horse battery", actor=None)
    assert client.get("/connections/").status_code == 302


def test_nobody_makes_an_account_for_themselves(client, db):
    form = {
        "username": "eve",
        "email": "eve@example.com",
        "password1": PASSWORD,
        "password2": PASSWORD,
    }
    client.post("/accounts/signup/", form)
    assert not User.objects.filter(username="eve").exists()


def test_a_second_factor_is_asked_for(client, ada):
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    TOTP.activate(ada, secret)
    stored = Authenticator.objects.get(user=ada).data["secret"]
    assert secret not in stored
    answer = sign_in(client, "ada", next="/connections/")
    assert "2fa" in answer.headers["Location"]
    assert "_auth_user_id" not in client.session
    counter = next(iter(yield_hotp_counters_from_time()))
    code = format_hotp_value(hotp_value(secret, counter))
    client.post(answer.headers["Location"], {"code": code})
    assert client.session["_auth_user_id"] == str(ada.pk)


def test_an_administrators_word_is_what_verifies_an_address(ada):
    kept = EmailAddress.objects.get(user=ada)
    assert (kept.email, kept.verified, kept.primary) == ("ada@example.com", True, True)
    people_actions.save_person(ada, {"email": "new@example.com"}, actor=None)
    assert [a.email for a in EmailAddress.objects.filter(user=ada)] == ["new@example.com"]


def test_sign_in_secrets_follow_a_key_rotation(ada, settings):
    app = SocialApp(provider_id="company")
    values = {"client_id": "gw", "settings": {"server_url": "https://idp.example"}}
    people_actions.save_identity_provider(app, values, secret="sso-s3cret", actor=None)
    TOTP.activate(ada, "JBSWY3DPEHPK3PXP")
    before = SocialApp.objects.get().settings[SEALED_SECRET]
    new = base64.urlsafe_b64encode(bytes(range(32))).decode()
    settings.GATEWAY_ENCRYPTION_KEYS = [new, *settings.GATEWAY_ENCRYPTION_KEYS]
    audit.send(sender=None, kind="vault.resealed", user=None, target="", details={}, address="")
    settings.GATEWAY_ENCRYPTION_KEYS = [new]
    app = SocialApp.objects.get()
    assert app.settings[SEALED_SECRET] != before
    assert people_actions.provider_secret(app) == "sso-s3cret"
    assert sign_in_secrets.reseal() == 2
