"""People sign in with a real OpenID provider; what it must not do is noticed."""

import time
from collections.abc import Iterator

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import User

from gateway_site import people_actions
from gateway_site.identity import discovery
from gateway_site.identity.stranger_limits import HURRIED_KEYS
from gateway_site.models import AuditEvent
from gateway_site.sign_in import AccountAdapter, is_same_address
from tests.consent.people_and_servers import authorize_address, oauth_client, server, upstream
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, change, configured, leave, signed_in

pytestmark = pytest.mark.django_db
GOING_TO = "/oauth/authorize?client_id=x&resource=http%3A%2F%2Flocalhost%3A8000%2Fv1%2Fmcp%2Fteam"
GRACE = {"email": "grace@contoso.com", "email_verified": True, "preferred_username": "grace"}


@pytest.fixture
def provider(db) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(GRACE)).serve() as provider:
        yield provider


@pytest.fixture
def company(provider) -> SocialApp:
    return configured(provider)


@pytest.fixture
def ada(db) -> User:
    user = User(username="ada", email="ada@contoso.com")
    people_actions.save_person(user, {}, password="correct horse battery", actor=None)
    return user


def reason() -> str:
    return AuditEvent.objects.filter(kind="person.provider_failed").first().details["reason"]


def test_the_provider_brings_new_people_in(provider, company):
    client = browser()
    answer = arrive(client, provider, going_to=GOING_TO)
    assert answer.headers["Location"] == GOING_TO
    grace = User.objects.get(username="grace")
    assert client.session["_auth_user_id"] == str(grace.pk)
    assert not grace.has_usable_password()
    assert not grace.is_staff


def test_who_comes_by_a_provider_gives_themselves_no_password_that_outlives_it(
    provider, company, mailoutbox
):
    client = browser()
    arrive(client, provider)
    grace = User.objects.get(username="grace")
    new = {"password1": "correct horse battery", "password2": "correct horse battery"}
    for answer in (
        client.get("/accounts/password/set/"),
        client.post("/accounts/password/set/", new),
        client.post("/accounts/password/change/", new, follow=True),
    ):
        assert answer.status_code == 403 and "ask the administrator" in answer.content.decode()
    context = {"password_reset_url": "http://localhost:8000/x", "user": grace}
    AccountAdapter().send_password_reset_mail(grace, "grace@contoso.com", context)
    grace.refresh_from_db()
    assert not grace.has_usable_password() and not mailoutbox


def test_an_address_of_another_alphabet_is_another_address(provider, company, ada):
    """PostgreSQL writes the dotless i as an I, and Python the Kelvin sign as a k."""
    people_actions.save_person(ada, {"email": "ada@kiosk.example"}, actor=None)
    for other in ("ada@k\u0131osk.example", "ada@\u212aiosk.example"):
        provider.subject, provider.claims["email"] = other, other
        arrive(browser(), provider)
        assert not SocialAccount.objects.filter(user=ada).exists()
        assert not is_same_address(other, "ada@kiosk.example")
    assert is_same_address("ada@Kiosk.example", "Ada@kiosk.example")


def test_an_administrator_who_changes_something_else_verifies_no_address(
    provider, company, admin_client
):
    provider.claims["email_verified"] = False
    arrive(browser(), provider)
    mallory = User.objects.get(username="grace")
    form = {
        "username": "grace",
        "email": "grace@contoso.com",
        "first_name": "G",
        "is_active": "on",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "00:00:00",
    }
    place = f"/admin/auth/user/{mallory.pk}/change/"
    assert admin_client.post(place, form).status_code == 302
    people_actions.save_person(mallory, {"last_name": "H"}, actor=None)
    assert not EmailAddress.objects.filter(verified=True).exists()
    provider.subject, provider.claims["email_verified"] = "the real one", True
    client = browser()
    arrive(client, provider)
    assert client.session.get("_auth_user_id") != str(mallory.pk)


def test_strangers_do_not_fill_the_audit_trail(provider, company):
    failures = AuditEvent.objects.filter(kind="person.provider_failed")
    for number in range(5):
        answer = browser().get(f"/accounts/oidc/company/login/callback/?error=e{number}&state=x")
        assert answer.status_code in (200, 401)
    assert failures.count() == 1
    provider.client_secret = "another"
    for _ in range(2):
        arrive(browser(), provider)
    assert failures.count() == 3, "what somebody began is told each time"


def test_who_leaves_and_does_not_return_leaves_a_session_for_half_an_hour_only(
    provider, company, settings
):
    client = browser()
    leave(client)
    assert client.session.get_expiry_age() <= 1800
    arrive(client, provider)
    assert signed_in(client)
    assert client.session.get_expiry_age() == settings.SESSION_COOKIE_AGE
    # Signing in again there, while signed in here, shortens nothing.
    leave(client)
    assert client.session.get_expiry_age() == settings.SESSION_COOKIE_AGE


def test_the_request_is_what_openid_connect_asks_for(provider, company):
    arrive(browser(), provider)
    asked, redeemed = provider.asked[0], provider.token_requests[0]
    assert asked["scope"] == "openid profile email"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["nonce"]) >= 22
    assert len(asked["state"]) >= 22
    assert asked["redirect_uri"] == "http://localhost:8000/accounts/oidc/company/login/callback/"
    assert redeemed["client_secret"] == "sso-s3cret"
    again = browser()
    arrive(again, provider)
    assert provider.asked[1]["nonce"] != asked["nonce"]


def test_a_link_cannot_change_what_is_asked_for(provider, company):
    client = browser()
    more = "?scope=admin&auth_params=redirect_uri%3Dhttps://evil.example&login_hint=x"
    sent = client.post(f"/accounts/oidc/company/login/{more}")
    provider.answer_to(sent.headers["Location"])
    assert provider.asked[0]["scope"] == "openid profile email"
    assert provider.asked[0]["redirect_uri"].startswith("http://localhost:8000/")
    assert "login_hint" not in provider.asked[0]


def test_a_provider_that_only_takes_basic_gets_basic(provider, company):
    provider.metadata_changes["token_endpoint_auth_methods_supported"] = None
    arrive(browser(), provider)
    assert provider.token_requests[0]["by"] == "basic"


def test_the_same_person_comes_back(provider, company):
    arrive(browser(), provider)
    provider.claims["email"] = "changed@contoso.com"
    again = browser()
    arrive(again, provider)
    assert again.session["_auth_user_id"] == str(User.objects.get().pk)


def test_a_verified_address_finds_the_existing_account(provider, company, ada):
    provider.claims["email"] = "ada@contoso.com"
    client = browser()
    arrive(client, provider)
    assert client.session["_auth_user_id"] == str(ada.pk)


@pytest.mark.parametrize("verified", [False, "false", "true", 1, None])
def test_an_address_that_is_not_verified_opens_nobodys_account(provider, company, ada, verified):
    provider.claims |= {"email": "ada@contoso.com", "email_verified": verified}
    client = browser()
    arrive(client, provider)
    assert client.session.get("_auth_user_id") != str(ada.pk)
    assert not SocialAccount.objects.filter(user=ada).exists()


def test_addresses_of_a_trusted_provider_count_as_verified(provider, company, ada):
    change(company, verified_email=True)
    provider.claims = {"email": "ada@contoso.com"}
    client = browser()
    arrive(client, provider)
    assert client.session["_auth_user_id"] == str(ada.pk)


@pytest.mark.parametrize(
    "said",
    [
        {"email_verified": False},
        {"email_verified": "false"},
        {"xms_edov": False},
        {"xms_edov": 0},
        {"xms_edov": "0"},
        {"xms_edov": "false", "email_verified": True},
    ],
)
def test_trust_does_not_make_true_what_the_provider_denies(provider, company, ada, said):
    change(company, verified_email=True)
    provider.claims = {"email": "ada@contoso.com", **said}
    client = browser()
    arrive(client, provider)
    assert client.session.get("_auth_user_id") != str(ada.pk)
    assert not SocialAccount.objects.filter(user=ada).exists()
    change(company, allowed_domains=["contoso.com"])
    assert arrive(browser(), provider).status_code == 403


@pytest.mark.parametrize("role", ["is_staff", "is_superuser"])
def test_an_address_never_opens_an_administrators_account(provider, company, ada, role):
    people_actions.save_person(ada, {role: True}, actor=None)
    change(company, verified_email=True)
    provider.claims["email"] = "ada@contoso.com"
    stranger = browser()
    arrive(stranger, provider)
    assert not signed_in(stranger)
    assert not SocialAccount.objects.exists()
    # Who is signed in already connects the provider.
    own = browser()
    own.post("/accounts/login/", {"login": "ada", "password": "correct horse battery"})
    sent = own.post("/accounts/oidc/company/login/?process=connect")
    back = provider.answer_to(sent.headers["Location"])
    came = own.get("/accounts/oidc/company/login/callback/", back)
    assert came.headers["Location"] == "/accounts/reauthenticate/"
    own.post("/accounts/reauthenticate/", {"password": "correct horse battery"})
    later = browser()
    arrive(later, provider)
    assert later.session["_auth_user_id"] == str(ada.pk)


@pytest.mark.parametrize("row", ["unverified", "none", "another account's"])
def test_an_address_that_was_only_claimed_here_is_no_way_into_that_account(provider, company, row):
    mallory = User.objects.create_user("mallory", "grace@contoso.com", "mallory's password")
    if row == "unverified":
        EmailAddress.objects.create(user=mallory, email="grace@contoso.com", primary=True)
    elif row == "another account's":
        other = User.objects.create_user("other")
        EmailAddress.objects.create(user=other, email="grace@contoso.com", verified=True)
    client = browser()
    arrive(client, provider)
    assert not signed_in(client)
    assert not SocialAccount.objects.exists()


def test_a_provider_can_be_limited_to_known_people(provider, company):
    change(company, only_known_people=True)
    client = browser()
    arrive(client, provider)
    assert not User.objects.exists()
    assert not signed_in(client)


# What a provider, or somebody in between, must not do ------------------------------------
WRONG = {
    "another issuer": {"iss": "https://evil.example"},
    "another client": {"aud": "other"},
    "several clients": {"aud": ["gw", "other"]},
    "issued to another client": {"azp": "other"},
    "another sign-in": {"nonce": "x" * 32},
    "no nonce": {"nonce": None},
    "expired": {"exp": int(time.time()) - 120},
    "from the future": {"iat": int(time.time()) + 600},
    "not valid yet": {"nbf": int(time.time()) + 600},
    "old": {"iat": int(time.time()) - 7200, "exp": int(time.time()) + 300},
    "no expiry": {"exp": None},
    "another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    "nobody": {"sub": ""},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_an_id_token_that_is_wrong_signs_nobody_in(provider, company, wrong):
    provider.token_claims = wrong
    client = browser()
    answer = arrive(client, provider)
    assert answer.status_code == 401
    assert not signed_in(client)
    assert not User.objects.exists()
    assert "ID token" in reason()


@pytest.mark.parametrize("skew", [-50, 50])
def test_clocks_may_differ_by_a_minute(provider, company, skew):
    now = int(time.time())
    provider.token_claims = {"iat": now + skew, "exp": now + skew + 5}
    client = browser()
    arrive(client, provider)
    assert signed_in(client)


def test_a_new_key_at_the_provider_is_fetched_when_it_is_first_used(provider, company, monkeypatch):
    monkeypatch.setattr(discovery, "ASK_AGAIN_SECONDS", 0.0)
    for number in (1, 2):
        client = browser()
        arrive(client, provider)
        assert signed_in(client)
        assert provider.seen.count("/jwks") == number
        provider.rotate()
    client = browser()
    provider.rotate(publish=False)
    assert arrive(client, provider).status_code == 401
    assert not signed_in(client)
    assert "does not publish" in reason()


def test_unknown_keys_do_not_make_the_gateway_ask_without_end(provider, company):
    arrive(browser(), provider)
    provider.rotate(publish=False)
    for _ in range(HURRIED_KEYS.per_address + 3):
        assert arrive(browser(), provider).status_code == 401
    assert provider.seen.count("/jwks") == 1 + HURRIED_KEYS.per_address


def test_a_new_key_is_taken_also_right_after_the_old_ones_were_fetched(provider, company):
    for _ in range(2):
        client = browser()
        arrive(client, provider)
        assert signed_in(client)
        provider.rotate()


def test_a_signature_by_another_key_of_the_same_name_is_refused(provider, company):
    arrive(browser(), provider)
    forged = provider.new_key()
    forged.update(kid=provider.signing_key.kid)
    provider.signing_key = forged
    client = browser()
    assert arrive(client, provider).status_code == 401
    assert not signed_in(client)


def test_userinfo_of_another_person_is_not_believed(provider, company):
    provider.userinfo = {"sub": "s-2", "email": "boss@contoso.com", "email_verified": True}
    client = browser()
    assert arrive(client, provider).status_code == 401
    assert not signed_in(client)


def test_an_answer_of_another_issuer_is_refused(provider, company):
    client = browser()
    assert arrive(client, provider, iss="https://evil.example").status_code == 401
    assert not signed_in(client)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "https://evil.example"}, "says that the issuer is"),
        ({"token_endpoint": "http://evil.example/token"}, "token_endpoint"),
        ({"jwks_uri": None}, "jwks_uri"),
        ({"userinfo_endpoint": "javascript:x"}, "userinfo_endpoint"),
    ],
)
def test_metadata_that_is_not_the_issuers_starts_no_sign_in(provider, company, changes, said):
    provider.metadata_changes = changes
    answer = leave(browser())
    assert answer.status_code == 401
    assert said in reason()
    assert "evil" not in answer.content.decode()


def test_62_the_state_belongs_to_one_browser_one_provider_and_one_use(provider, company):
    configured(provider, "other")
    client, stranger = browser(), browser()
    sent = leave(client)
    answer = provider.answer_to(sent.headers["Location"])
    place = "/accounts/oidc/{}/login/callback/"
    assert stranger.get(place.format("company"), answer).status_code == 401
    assert client.get(place.format("other"), answer).status_code == 401
    before = client.session.session_key
    assert client.get(place.format("company"), answer).status_code == 302
    assert signed_in(client)
    assert client.session.session_key != before
    again = browser()
    again.cookies = client.cookies
    assert client.get(place.format("company"), answer).status_code == 401


def test_what_the_provider_writes_in_an_error_reaches_no_page(provider, company):
    provider.refuses = "server_error"
    answer = arrive(browser(), provider)
    assert answer.status_code == 401
    assert "secret words" not in answer.content.decode()
    assert reason() == "server_error"


def test_turning_back_at_the_provider_is_no_error(provider, company):
    provider.refuses = "access_denied"
    answer = arrive(browser(), provider)
    assert answer.headers["Location"] == "/accounts/3rdparty/login/cancelled/"


def test_a_wrong_client_secret_is_said_to_the_administrator(provider, company):
    provider.client_secret = "another"
    assert arrive(browser(), provider).status_code == 401
    assert "invalid_client" in reason()
    assert "Check client ID, client secret" in reason()


def test_somebody_who_was_switched_off_does_not_get_in(provider, company):
    arrive(browser(), provider)
    people_actions.save_person(User.objects.get(), {"is_active": False}, actor=None)
    client = browser()
    answer = arrive(client, provider)
    assert answer.headers["Location"] == "/accounts/inactive/"
    assert not signed_in(client)
    refused = AuditEvent.objects.get(kind="person.sign_in_refused")
    assert refused.details["reason"] == "inactive"


def test_several_providers_stand_side_by_side(provider, company):
    with OpenIdProvider(client_id="second", claims=GRACE, algorithm="ES384").serve() as partner:
        configured(partner, "partner", verified_email=False)
        page = browser().get("/accounts/login/").content.decode()
        assert "Continue with Company" in page
        assert "Continue with Partner" in page
        arrive(browser(), provider)
        partner.claims = {"preferred_username": "grace", "email": "grace@partner.example"}
        client = browser()
        arrive(client, partner, "partner")
        assert signed_in(client)
        # Equal names and subjects at two providers are two people.
        assert User.objects.count() == 2


def test_signing_out_ends_the_session_there_too_where_that_is_wanted(provider, company):
    client = browser()
    arrive(client, provider)
    assert client.post("/accounts/logout/").headers["Location"] == "/"
    change(company, sign_out_there=True)
    arrive(client, provider)
    assert provider.signing_key.kid not in str(client.session.items())
    there = client.post("/accounts/logout/").headers["Location"]
    assert there.startswith(f"{provider.url}/logout?client_id=gw&post_logout_redirect_uri=http%3A")
    assert "id_token_hint=ey" in there
    assert not signed_in(client)
    provider.metadata_changes["end_session_endpoint"] = None
    discovery.cache.clear()
    arrive(client, provider)
    assert client.post("/accounts/logout/").headers["Location"] == "/"


@pytest.mark.parametrize(
    ("preset", "demand", "wanted"),
    [
        ("generic", "prompt=login", "login"),
        ("generic", "max_age=0", "login"),
        ("generic", "prompt=select_account", "select_account"),
        ("google", "prompt=login", "select_account"),
        ("generic", "", None),
    ],
)
def test_what_a_client_demands_of_the_sign_in_goes_to_the_provider(preset, demand, wanted):
    server("tools", (upstream("tools"), True))
    address = f"{authorize_address(oauth_client(), 'tools')}&{demand}"
    with OpenIdProvider(claims={"email": "grace@contoso.com"}).serve() as provider:
        configured(provider, preset=preset, only_known_people=True)
        client = browser()
        assert client.get(address).status_code == 302
        provider.answer_to(leave(client, going_to=address).headers["Location"])
        assert provider.asked[-1].get("prompt") == wanted
