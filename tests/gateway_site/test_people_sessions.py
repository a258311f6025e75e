"""People see where they are signed in and sign out there; administrators do it for them."""

import json
import os
import re
import subprocess
import sys
import time
from datetime import timedelta
from io import StringIO

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from gateway_site import people_actions
from gateway_site.browser_names import browser_name
from gateway_site.models import AuditEvent, SiteProfile
from oauthserver.models import OAuthClient
from oauthserver.token_values import new_access_token
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site import arriving
from tests.gateway_site.arriving import configured

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
PLACE = "/accounts/sessions/"
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Safari/604.1"


@pytest.fixture(autouse=True)
def fresh_limits(db):
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def ada(db) -> User:
    user = User(username="ada", email="ada@example.com")
    people_actions.save_person(user, {}, password=PASSWORD, actor=None)
    return user


def browser(agent: str = FIREFOX, name: str = "ada") -> Client:
    client = Client(headers={"user-agent": agent})
    answer = client.post("/accounts/login/", {"login": name, "password": PASSWORD})
    assert answer.status_code == 302
    return client


def signed_in(client: Client) -> bool:
    return client.get("/connections/").status_code == 200


def token_of(user: User) -> object:
    client, _ = OAuthClient.objects.get_or_create(
        client_id="c",
        defaults={
            "name": "C",
            "client_type": "public",
            "authorization_grant_type": "authorization-code",
            "redirect_uris": "https://c.example/cb",
        },
    )
    return get_access_token_model().objects.create(
        user=user,
        application=client,
        token=new_access_token(),
        expires=timezone.now() + timedelta(hours=1),
        scope="mcp:tools",
        resource=["http://localhost:8000/v1/mcp/team"],
    )


def live_tokens(user: User) -> int:
    now = timezone.now()
    return get_access_token_model().objects.filter(user=user, expires__gt=now).count()


def test_people_see_their_browsers_and_no_keys(ada):
    first, second = browser(), browser(SAFARI)
    page = second.get(PLACE).content.decode()
    assert page.index("Safari on iPhone") < page.index("Firefox on Windows")
    assert page.count("This browser") == 1
    assert "Mozilla" not in page
    for client in (first, second):
        assert client.session.session_key not in page


def test_one_browser_is_signed_out_and_only_ones_own(ada):
    people_actions.save_person(User(username="bob"), {}, password=PASSWORD, actor=None)
    first, second, bob = browser(), browser(SAFARI), browser(name="bob")
    his = UserSession.objects.get(user__username="bob").pk
    first_id = UserSession.objects.get(session_key=first.session.session_key).pk
    second.post(PLACE, {"end": str(his)})
    assert signed_in(bob)
    second.post(PLACE, {"end": str(first_id)})
    assert not signed_in(first)
    assert signed_in(second)
    assert AuditEvent.objects.filter(kind="person.session_ended").count() == 1


def test_all_other_browsers_are_signed_out_while_clients_stay(ada):
    first, second = browser(), browser(SAFARI)
    token_of(ada)
    second.post(PLACE, {"end": "others"})
    assert not signed_in(first)
    assert signed_in(second)
    assert live_tokens(ada) == 1


def test_119_signing_out_everywhere_ends_every_browser_and_every_client(ada):
    first, second = browser(), browser(SAFARI)
    token_of(ada)
    answer = second.post(PLACE, {"end": "everything"})
    assert answer.headers["Location"] == "/accounts/login/"
    assert not signed_in(first)
    assert not signed_in(second)
    assert live_tokens(ada) == 0
    assert not Session.objects.filter(session_key__in=[first.session.session_key or "x"]).exists()


def test_ending_needs_a_form_of_ours(ada):
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    assert client.post(PLACE, {"end": "everything"}).status_code == 403
    assert client.get(PLACE, {"end": "everything"}).status_code == 200
    assert signed_in(client)


def test_an_administrator_sees_sessions_and_ends_them(ada, admin_client):
    first = browser()
    token_of(ada)
    page = admin_client.get(f"/admin/auth/user/{ada.pk}/change/").content.decode()
    assert "Firefox on Windows, 127.0.0.1" in page
    form = {"action": "sign_out_everywhere", "_selected_action": [str(ada.pk)]}
    assert "Are you sure?" in admin_client.post("/admin/auth/user/", form).content.decode()
    assert signed_in(first)
    admin_client.post("/admin/auth/user/", {**form, "confirmed": "yes"})
    assert not signed_in(first)
    assert live_tokens(ada) == 0


@pytest.mark.parametrize("across", ["0", "1"])
@pytest.mark.parametrize("who", ["nobody", "a person", "staff without a permission"])
def test_who_may_not_end_sessions_is_not_asked_and_told_no_names(ada, who, across):
    client = Client()
    if who != "nobody":
        staff = who.startswith("staff")
        client.force_login(User.objects.create_user("grace", is_staff=staff))
    form = {"action": "sign_out_everywhere", "_selected_action": [str(ada.pk)]}
    answer = client.post("/admin/auth/user/", {**form, "select_across": across})
    assert answer.status_code in (302, 403)
    assert ada.username not in answer.content.decode()


@pytest.mark.parametrize("action", ["sign_out_everywhere", "delete_selected"])
def test_an_action_on_rows_that_cannot_be_is_refused(ada, admin_client, action):
    for row in ("x", "", "9" * 40, "1\0"):
        form = {"action": action, "_selected_action": [str(ada.pk), row]}
        for answered in ({}, {"confirmed": "yes"}, {"post": "yes"}):
            answer = admin_client.post("/admin/auth/user/", {**form, **answered})
            assert answer.status_code == 400


def test_217_deleting_a_person_ends_their_sessions(ada):
    first = browser()
    people_actions.delete_person(ada, actor=None)
    assert not signed_in(first)
    assert not Session.objects.exists()


def test_a_session_that_began_before_it_was_noted_is_noted_with_its_next_page(ada):
    client = Client(headers={"user-agent": FIREFOX})
    client.force_login(ada)
    UserSession.objects.all().delete()
    assert signed_in(client)
    assert UserSession.objects.get().user_agent == FIREFOX
    before = UserSession.objects.get().last_seen_at
    assert signed_in(client)
    assert UserSession.objects.get().last_seen_at == before


def settings_of(public_url: str) -> dict[str, object]:
    """Read the product's settings in a process of their own."""
    names = ["SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME"]
    names += ["SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"]
    program = (
        "import json; from gateway_site import settings as s; "
        f"print(json.dumps({{n: getattr(s, n) for n in {names}}}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PUBLIC_URL": public_url},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_89_cookies_are_bound_to_the_host_over_https(settings):
    over_tls, plain = settings_of("https://gw.example"), settings_of("http://localhost:8000")
    assert over_tls["SESSION_COOKIE_NAME"] == "__Host-gateway-session"
    assert over_tls["CSRF_COOKIE_NAME"] == "__Host-gateway-csrf"
    assert over_tls["SESSION_COOKIE_SECURE"] is over_tls["CSRF_COOKIE_SECURE"] is True
    assert plain["SESSION_COOKIE_NAME"] == "gateway-session"
    assert plain["SESSION_COOKIE_SECURE"] is False
    assert (settings.SESSION_COOKIE_HTTPONLY, settings.SESSION_COOKIE_SAMESITE) == (True, "Lax")
    assert settings.SESSION_COOKIE_DOMAIN is None


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox on Windows"),
        (SAFARI, "Safari on iPhone"),
        ("<script>", "Another browser"),
    ],
)
def test_browsers_are_named_in_words(agent, name):
    assert browser_name(agent) == name


# The one way into the administration -------------------------------------------------------
def test_220_the_administration_has_no_sign_in_of_its_own(ada, client):
    answer = client.post("/admin/login/?next=/admin/", {"username": "ada", "password": PASSWORD})
    assert answer.headers["Location"] == "/accounts/login/?next=%2Fadmin%2F"
    assert "_auth_user_id" not in client.session
    assert client.get("/admin/auth/user/").headers["Location"].startswith("/admin/login/")
    client.force_login(ada)
    assert client.get("/admin/", follow=True).status_code == 403


# Second factor -----------------------------------------------------------------------------
def require_second_factor() -> None:
    profile = SiteProfile.objects.first() or SiteProfile()
    people_actions.update_site(profile, {"require_second_factor": True}, actor=None)


def test_a_required_second_factor_comes_before_everything_else(ada):
    client = browser()
    assert signed_in(client)
    require_second_factor()
    for path in ("/connections/", "/", "/admin/", "/oauth/authorize?client_id=x", PLACE):
        assert client.get(path).headers["Location"] == "/accounts/2fa/totp/activate/", path
    assert client.post("/accounts/logout/").status_code == 302
    client = browser()
    TOTP.activate(ada, generate_totp_secret())
    assert signed_in(client)


def test_who_comes_by_a_provider_has_the_second_factor_there(ada):
    claims = {"email": "ada@example.com", "email_verified": True}
    with OpenIdProvider(claims=claims, algorithm="ES256").serve() as provider:
        configured(provider)
        require_second_factor()
        client = arriving.browser()
        arriving.arrive(client, provider)
        assert signed_in(client)


# A sign-in that is not long ago -------------------------------------------------------------
def age(client: Client, minutes: float) -> None:
    session = client.session
    for record in session["account_authentication_methods"]:
        record["at"] -= minutes * 60
    session.save()


SENSITIVE = [
    "auth/user/add/",
    "auth/group/add/",
    "socialaccount/socialapp/add/",
    "gateway_site/scimtoken/add/",
    "oauthserver/trustedissuer/add/",
    "oauthserver/serviceaccount/add/",
    "oauthserver/clientpolicy/",
]


def test_changing_who_may_come_in_asks_to_sign_in_again_after_an_hour(ada):
    people_actions.save_person(ada, {"is_staff": True, "is_superuser": True}, actor=None)
    client = browser()
    for page in SENSITIVE:
        assert client.get(f"/admin/{page}").status_code == 200
    age(client, 61)
    for page in SENSITIVE:
        sent = client.get(f"/admin/{page}").headers["Location"]
        assert sent.startswith("/accounts/reauthenticate/?next=%2Fadmin%2F")
        assert client.post(f"/admin/{page}", {"name": "x"}).status_code == 302
    assert client.get("/admin/auth/user/").status_code == 200
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    assert client.get(f"/admin/{SENSITIVE[0]}").status_code == 200


def test_no_change_in_the_administration_goes_by_a_sign_in_of_long_ago(ada):
    people_actions.save_person(ada, {"is_staff": True, "is_superuser": True}, actor=None)
    client = browser()
    age(client, 61)
    password = f"auth/user/{ada.pk}/password/"
    assert client.get(f"/admin/{password}").status_code == 302
    for page in (password, "upstreams/upstream/add/", "auth/user/", "gateway_site/siteprofile/"):
        answer = client.post(f"/admin/{page}", {"action": "sign_out_everywhere"})
        assert answer.headers["Location"].startswith("/accounts/reauthenticate/"), page
    for page in ("", "upstreams/upstream/add/", "auth/user/"):
        assert client.get(f"/admin/{page}").status_code == 200
    client.post("/admin/logout/")
    assert not signed_in(client)


def test_who_comes_by_a_provider_signs_in_again_there(ada):
    people_actions.save_person(ada, {"is_staff": True, "is_superuser": True}, actor=None)
    ada.set_unusable_password()
    ada.save()
    claims = {"email": "ada@example.com", "email_verified": True}
    with OpenIdProvider(claims=claims, algorithm="ES256").serve() as provider:
        configured(provider)
        SocialAccount.objects.create(user=ada, provider="company", uid=provider.subject)
        client = arriving.browser()
        arriving.arrive(client, provider)
        age(client, 61)
        sent = client.get(f"/admin/{SENSITIVE[1]}").headers["Location"]
        assert sent.startswith("/accounts/oidc/company/login/?next=%2Fadmin%2F")
        for leftover in (int(time.time()) - 600, None):
            provider.token_claims = {"auth_time": leftover}
            assert arriving.arrive(client, provider).status_code == 403
            assert client.get(f"/admin/{SENSITIVE[1]}").status_code == 302
            # Nor does signing out and in again, with the session that is open at the provider.
            provider.token_claims = {"auth_time": leftover and leftover - 3600}
            another = arriving.browser()
            arriving.arrive(another, provider)
            assert another.get(f"/admin/{SENSITIVE[1]}").status_code == 302
        provider.token_claims = {}
        arriving.arrive(client, provider)
        asked = provider.asked[-1]
        assert (asked["prompt"], asked["max_age"]) == ("login", "0")
        assert client.get(f"/admin/{SENSITIVE[1]}").status_code == 200


def test_keys_and_recovery_codes_are_offered(ada):
    client = browser()
    page = client.get("/accounts/2fa/").content.decode()
    assert "Security keys" in page
    assert "Recovery codes" in page


# Locked out --------------------------------------------------------------------------------
def recover(*arguments: str) -> str:
    out = StringIO()
    call_command("gateway_recover", *arguments, stdout=out)
    return out.getvalue()


def test_an_administrator_who_is_locked_out_gets_back_in(ada):
    TOTP.activate(ada, generate_totp_secret())
    people_actions.save_person(ada, {"is_active": False}, actor=None)
    for _ in range(6):
        Client().post("/accounts/login/", {"login": "ada", "password": "wrong"})
    said = recover("ada", "--new-password", "--remove-second-factor", "--administrator")
    password = re.search(r"Password: (\S+)", said).group(1)
    client = Client()
    client.post("/accounts/login/", {"login": "ada", "password": password})
    assert client.get("/admin/").status_code == 200
    assert not Authenticator.objects.filter(user=ada).exists()
    event = AuditEvent.objects.filter(kind="person.changed").first()
    assert event.details["by"] == "command line"
    assert password not in str(list(AuditEvent.objects.values_list("details", flat=True)))


def test_recovering_nobody_names_the_administrators(admin_user):
    with pytest.raises(CommandError, match="Administrators: admin"):
        recover("nobody")
