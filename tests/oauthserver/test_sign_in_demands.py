"""What ``prompt``, ``max_age``, ``id_token_hint`` and ``login_hint`` do, and cannot do."""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from jwcrypto import jwk, jwt

from oauthserver import sign_in_age, sign_in_demands
from oauthserver.models import OAuthClient
from tests.oauthserver import flows
from tests.oauthserver.conftest import CALLBACK
from tests.oauthserver.flows import BASE, Pkce, answer_of, open_page, press, request_of
from tests.oauthserver.test_openid import KEY, SCOPE, sign_in, signing_key  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.oauthserver.addresses")]
BACKEND = "django.contrib.auth.backends.ModelBackend"


def asked(public: OAuthClient, **more: str) -> str:
    return request_of(public.client_id, CALLBACK, Pkce(), **more)


def sent_to_sign_in(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 302
    target = urlsplit(response["Location"])
    assert target.path == "/accounts/login/", response["Location"]
    return parse_qs(target.query)


@pytest.mark.parametrize("more", [{"prompt": "login"}, {"prompt": "select_account"}])
def test_a_person_signs_in_again_once_and_then_decides(
    browser: Client, public: OAuthClient, alice: User, more: dict[str, str]
) -> None:
    query = asked(public, **more)
    sent = sent_to_sign_in(open_page(browser, query))
    assert sent["next"] == [f"/oauth/authorize?{query}"]
    assert "_auth_user_id" not in browser.session
    sent_to_sign_in(open_page(browser, query))
    browser.force_login(alice, BACKEND)
    for _ in range(2):  # Connecting accounts brings the person back here any number of times.
        page = open_page(browser, query)
        assert page.status_code == 200
    assert "code" in answer_of(press(browser, page))


def test_who_signs_in_for_the_request_is_not_asked_twice(public: OAuthClient, alice: User) -> None:
    browser = Client()
    query = asked(public, prompt="login")
    sent_to_sign_in(open_page(browser, query))
    browser.force_login(alice, BACKEND)
    assert open_page(browser, query).status_code == 200


def test_who_is_not_signed_in_and_asks_again_and_again_fills_no_table(public: OAuthClient) -> None:
    same = Client()
    for number in range(40):
        for browser in (Client(), same):
            query = asked(public, prompt="login", nonce=str(number))
            sent_to_sign_in(open_page(browser, query))
    assert not Session.objects.exists()
    (kept,) = same.cookies.values()
    assert len(kept.OutputString()) < 4096
    assert kept["httponly"] and kept["samesite"] == "Lax"


@pytest.mark.parametrize("change", [lambda value: value[:-1] + "x", lambda _: "", lambda _: "{}"])
def test_a_demand_that_was_not_noted_here_is_none(
    public: OAuthClient, alice: User, change: Callable[[str], str]
) -> None:
    browser, query = Client(), asked(public, prompt="login")
    sent_to_sign_in(open_page(browser, query))
    (name,) = browser.cookies
    browser.cookies[name] = change(browser.cookies[name].value)
    browser.force_login(alice, BACKEND)
    sent_to_sign_in(open_page(browser, query))


def test_another_request_asks_again(browser: Client, public: OAuthClient, alice: User) -> None:
    query = asked(public, prompt="login")
    open_page(browser, query)
    browser.force_login(alice, BACKEND)
    assert open_page(browser, query).status_code == 200
    sent_to_sign_in(open_page(browser, asked(public, prompt="login", nonce="n")))


def test_whose_sign_in_is_too_old_for_tokens_signs_in_before_a_client_gets_any(
    browser: Client, public: OAuthClient, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_old = {alice.pk: "The person has to sign in again."}
    monkeypatch.setattr(sign_in_age, "_rule", lambda person: too_old.get(person.pk, ""))
    silent = open_page(browser, asked(public, prompt="none"))
    assert answer_of(silent)["error"] == "login_required"
    query = asked(public)
    sent = sent_to_sign_in(open_page(browser, query))
    assert sent["next"] == [f"/oauth/authorize?{query}"]
    assert "_auth_user_id" not in browser.session
    too_old.clear()
    browser.force_login(alice, BACKEND)
    assert "code" in answer_of(press(browser, open_page(browser, query)))


def test_max_age_counts_from_the_sign_in(
    browser: Client, public: OAuthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_page(browser, asked(public, max_age="600")).status_code == 200
    now = time.time()
    monkeypatch.setattr(sign_in_demands.time, "time", lambda: now + 601)
    query = asked(public, max_age="600")
    silent = open_page(browser, asked(public, max_age="600", prompt="none"))
    assert answer_of(silent)["error"] == "login_required"
    sent_to_sign_in(open_page(browser, query))


def test_max_age_zero_means_now(browser: Client, public: OAuthClient, alice: User) -> None:
    query = asked(public, max_age="0")
    sent_to_sign_in(open_page(browser, query))
    browser.force_login(alice, BACKEND)
    assert open_page(browser, query).status_code == 200


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "1" * 10])
def test_a_max_age_that_is_no_number_is_refused(
    browser: Client, public: OAuthClient, value: str
) -> None:
    answer = answer_of(open_page(browser, asked(public, max_age=value)))
    assert (answer["error"], answer["iss"]) == ("invalid_request", BASE)


@pytest.mark.parametrize("prompt", ["consent", "", "create", "login_hint"])
def test_other_prompts_only_show_the_page(
    browser: Client, public: OAuthClient, prompt: str
) -> None:
    assert open_page(browser, asked(public, prompt=prompt)).status_code == 200


def test_none_never_gives_a_code_however_often_the_person_agreed(
    browser: Client, public: OAuthClient
) -> None:
    press(browser, open_page(browser, asked(public)))
    answer = answer_of(open_page(browser, asked(public, prompt="none")))
    assert answer["error"] == "consent_required"
    nobody = answer_of(open_page(Client(), asked(public, prompt="none")))
    assert nobody["error"] == "login_required"
    both = answer_of(open_page(browser, asked(public, prompt="none login")))
    assert both["error"] == "invalid_request"


def test_the_hint_reaches_the_sign_in_page_and_proves_nothing(public: OAuthClient) -> None:
    sent = sent_to_sign_in(open_page(Client(), asked(public, login_hint="bob@example.com")))
    assert sent["login_hint"] == ["bob@example.com"]
    for strange in ("a\r\nb", "x" * 300):
        assert "login_hint" not in sent_to_sign_in(
            open_page(Client(), asked(public, login_hint=strange))
        )


@pytest.mark.usefixtures("signing_key")
class TestIdTokenHint:
    def hint(self, browser: Client, api: Client, public: OAuthClient) -> str:
        return str(sign_in(browser, api, public, scope=SCOPE)["id_token"])

    def test_the_same_person_goes_on(
        self, browser: Client, api: Client, public: OAuthClient
    ) -> None:
        hint = self.hint(browser, api, public)
        assert open_page(browser, asked(public, id_token_hint=hint)).status_code == 200

    def test_another_person_signs_in_or_the_client_is_told(
        self, browser: Client, api: Client, public: OAuthClient, bob: User, alice: User
    ) -> None:
        hint = self.hint(browser, api, public)
        browser.force_login(bob, BACKEND)
        query = asked(public, id_token_hint=hint)
        silent = open_page(browser, asked(public, id_token_hint=hint, prompt="none"))
        assert answer_of(silent)["error"] == "login_required"
        sent_to_sign_in(open_page(browser, query))
        browser.force_login(bob, BACKEND)
        assert answer_of(open_page(browser, query))["error"] == "login_required"
        browser.force_login(alice, BACKEND)
        assert open_page(browser, query).status_code == 200

    def test_what_is_no_token_of_ours_is_no_hint(
        self, browser: Client, api: Client, public: OAuthClient, bob: User
    ) -> None:
        hint = self.hint(browser, api, public)
        browser.force_login(bob, BACKEND)
        strange = jwk.JWK.generate(kty="RSA", size=2048)
        forged = jwt.JWT(header={"alg": "RS256"}, claims={"iss": BASE, "sub": "1"})
        forged.make_signed_token(strange)
        for other in ("x", "a.b.c", forged.serialize(), hint[:-9], "x" * 5000):
            assert open_page(browser, asked(public, id_token_hint=other)).status_code == 200

    def test_the_id_token_says_when_the_person_signed_in(
        self, browser: Client, api: Client, public: OAuthClient
    ) -> None:
        session = browser.session
        session["oauthserver.signed_in_at"] = time.time() - 1000
        session.save()
        claims = self.claims(self.hint(browser, api, public))
        assert abs(claims["auth_time"] - (time.time() - 1000)) < 30

    def claims(self, token: str) -> dict[str, Any]:
        key = jwk.JWK.from_pem(KEY)
        return dict(json.loads(jwt.JWT(jwt=token, key=key, algs=["RS256"]).claims))


def test_an_approved_page_can_be_opened_again_and_each_tab_gets_its_code(
    browser: Client, api: Client, public: OAuthClient
) -> None:
    pkce = Pkce()
    query = request_of(public.client_id, CALLBACK, pkce)
    one, two = open_page(browser, query), open_page(browser, query)
    first = answer_of(press(browser, one))["code"]
    # The back button shows the page anew: nothing of it may be kept.
    assert "no-store" in one["Cache-Control"]
    second = answer_of(press(browser, two))["code"]
    third = answer_of(press(browser, open_page(browser, query)))["code"]
    assert len({first, second, third}) == 3
    twice = press(browser, one)
    assert twice.status_code == 400
    assert b"used already" in twice.content
    for code in (first, second, third):
        assert flows.redeem(api, public.client_id, CALLBACK, code, pkce).status_code == 200
