"""Administrators set up, check and test identity providers."""

from urllib.parse import urlsplit

import pytest
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

from gateway_site import people_actions
from gateway_site.models import AuditEvent, GroupMapping
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import configured

pytestmark = pytest.mark.django_db
PLACE = "/admin/socialaccount/socialapp/"
FORM = {
    "client_id": "gw",
    "client_secret": "sso-s3cret",
    "group_mappings-TOTAL_FORMS": "0",
    "group_mappings-INITIAL_FORMS": "0",
}


@pytest.fixture
def administrator(db) -> Client:
    client = Client(SERVER_NAME="localhost", SERVER_PORT="8000")
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def provider():
    with OpenIdProvider(algorithm="ES256").serve() as provider:
        yield provider


def rows(answer) -> dict[str, tuple[str, str]]:
    steps = answer.context["steps"]
    return {step.title: (step.state, step.text) for step in steps}


def test_a_kind_and_three_words_set_a_provider_up(administrator):
    form = FORM | {"preset": "entra", "server_url": "8f6e2d1c"}
    answer = administrator.post(f"{PLACE}add/", form)
    assert answer.status_code == 302, answer.context["errors"]
    app = SocialApp.objects.get()
    assert (app.name, app.provider_id) == ("Microsoft Entra ID", "entra")
    assert app.settings["server_url"] == "https://login.microsoftonline.com/8f6e2d1c/v2.0"
    page = administrator.get(f"{PLACE}{app.pk}/change/").content.decode()
    assert "Beyond 200 groups Entra sends none" in page
    assert "accounts/oidc/entra/login/callback/" in page
    add = administrator.get(f"{PLACE}add/").content.decode()
    assert "Directory (tenant) ID" in add


def test_mistakes_are_shown_at_their_field(administrator):
    wrong = FORM | {"preset": "entra", "server_url": "common"}
    text = administrator.post(f"{PLACE}add/", wrong).content.decode()
    assert "every company" in text
    text = administrator.post(f"{PLACE}add/", FORM | {"preset": "google"}).content.decode()
    assert "anybody can have a Google account" in text
    good = FORM | {"server_url": "https://x.example", "provider_id": "x"}
    assert administrator.post(f"{PLACE}add/", good).status_code == 302
    assert "has this id" in administrator.post(f"{PLACE}add/", good).content.decode()
    assert SocialApp.objects.count() == 1


def test_everything_on_the_form_is_kept(administrator):
    leads = Group.objects.create(name="leads")
    form = FORM | {
        "preset": "keycloak",
        "server_url": "https://sso.contoso.com/realms/staff/",
        "name": "Contoso",
        "provider_id": "contoso",
        "allowed_domains": "contoso.com, contoso.de",
        "allowed_groups": "/staff\r\n/leads\r\n",
        "sign_in_domains": "contoso.com",
        "groups_claim": "realm_access.roles",
        "groups_by_name": "on",
        "sign_out_there": "on",
        "sign_out_ends_access": "on",
        "recheck_minutes": "30",
        "staff_groups": "/ops, europe\r\n/ops, asia",
        "administrator_groups": "/owners",
        "sign_in_days": "7",
        "trust_addresses": "no",
        "scopes": "openid email roles",
        "group_mappings-TOTAL_FORMS": "1",
        "group_mappings-0-claim_value": " /leads ",
        "group_mappings-0-group": str(leads.pk),
    }
    answer = administrator.post(f"{PLACE}add/", form)
    assert answer.status_code == 302, answer.context["errors"]
    app = SocialApp.objects.get()
    kept = {name: value for name, value in app.settings.items() if name != "sealed_secret"}
    assert kept == {
        "preset": "keycloak",
        "server_url": "https://sso.contoso.com/realms/staff",
        "allowed_domains": ["contoso.com", "contoso.de"],
        "allowed_groups": ["/staff", "/leads"],
        "sign_in_domains": ["contoso.com"],
        "groups_claim": "realm_access.roles",
        "groups_by_name": True,
        "sign_out_there": True,
        "sign_out_ends_access": True,
        "recheck_minutes": 30,
        "staff_groups": ["/ops, europe", "/ops, asia"],
        "administrator_groups": ["/owners"],
        "sign_in_days": 7,
        "only_known_people": False,
        "verified_email": False,
        "scope": ["openid", "email", "roles"],
    }
    mapping = GroupMapping.objects.get()
    assert (mapping.claim_value, mapping.group) == ("/leads", leads)
    assert AuditEvent.objects.filter(kind="identity_provider.mapping_changed").count() == 1
    page = administrator.get(f"{PLACE}{app.pk}/change/").content.decode()
    assert "/accounts/oidc/contoso/backchannel-logout/" in page
    for shown in ("contoso.com, contoso.de", "/staff\n/leads", "openid email roles"):
        assert shown in page


def check(administrator, app, step="check"):
    return administrator.post(f"{PLACE}{app.pk}/test/", {"step": step})


def test_a_check_says_that_all_is_well(administrator, provider):
    provider.metadata_changes = {
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }
    found = rows(check(administrator, configured(provider)))
    assert {state for state, _ in found.values()} == {"ok"}
    assert "the address of this page" in found["Back-channel logout"][1]
    assert found["Keys"] == ("ok", "1 usable.")


@pytest.mark.parametrize(
    ("changes", "settings", "step", "state", "words"),
    [
        ({"issuer": "https://x.example"}, {}, "Issuer and endpoints", "failed", "x.example"),
        ({"token_endpoint": None}, {}, "Issuer and endpoints", "failed", "token_endpoint"),
        ({"code_challenge_methods_supported": ["plain"]}, {}, "PKCE", "warn", "S256"),
        ({"scopes_supported": ["openid"]}, {}, "Scopes", "warn", "email, profile"),
        (
            {"id_token_signing_alg_values_supported": ["HS256"]},
            {},
            "Signatures",
            "failed",
            "RS256",
        ),
        (
            {"end_session_endpoint": None},
            {"sign_out_there": True},
            "Signing out",
            "warn",
            "stay signed in",
        ),
    ],
)
def test_a_check_says_which_step_failed(
    administrator, provider, changes, settings, step, state, words
):
    provider.metadata_changes = changes
    found = rows(check(administrator, configured(provider, **settings)))
    assert found[step][0] == state
    assert words in found[step][1]


def test_a_provider_that_is_not_there_leaves_the_other_steps_untried(administrator, provider):
    app = configured(provider)
    app.settings["server_url"] = "http://127.0.0.1:9"
    app.save()
    found = rows(check(administrator, app))
    assert found["Discovery document"][0] == "failed"
    assert "could not be reached" in found["Discovery document"][1]
    assert found["Keys"][0] == "skipped"


def come_back(administrator, provider, app):
    sent = check(administrator, app, "sign-in")
    assert sent.status_code == 302
    answer = provider.answer_to(sent.headers["Location"])
    return administrator.get("/accounts/oidc/company/login/callback/", answer)


def test_a_test_sign_in_shows_what_came_and_signs_nobody_in(administrator, provider):
    provider.claims = {"email": "ada@contoso.com", "email_verified": True, "groups": ["a", "b"]}
    app = configured(provider, allowed_groups=["c"])
    staff = Group.objects.create(name="staff")
    people_actions.set_group_mapping(app, [("a", staff)], actor=None)
    before = administrator.session["_auth_user_id"]
    answer = come_back(administrator, provider, app)
    found = rows(answer)
    assert found["Groups there"] == ("ok", "a, b")
    assert found["Groups here"] == ("ok", "staff")
    assert found["Admission"][0] == "failed"
    assert "ada@contoso.com" in answer.content.decode()
    assert administrator.session["_auth_user_id"] == before
    assert User.objects.count() == 1


def test_a_test_sign_in_says_why_it_failed(administrator, provider):
    app = configured(provider)
    provider.client_secret = "another"
    found = rows(come_back(administrator, provider, app))
    assert found["Sign-in"][0] == "failed"
    assert "invalid_client" in found["Sign-in"][1]


def test_testing_is_for_administrators(provider):
    app = configured(provider)
    helper = User.objects.create_user("helper", is_staff=True)
    client = Client(SERVER_NAME="localhost", SERVER_PORT="8000")
    client.force_login(helper)
    assert check(client, app).status_code == 403
    assert check(client, app, "sign-in").status_code == 403
    helper.user_permissions.add(Permission.objects.get(codename="change_socialapp"))
    assert check(client, app, "sign-in").status_code == 403
    User.objects.filter(pk=helper.pk).update(is_superuser=True)
    sent = check(client, app, "sign-in")
    answer = provider.answer_to(sent.headers["Location"])
    User.objects.filter(pk=helper.pk).update(is_superuser=False)
    callback = urlsplit(sent.headers["Location"])
    assert callback.path == "/authorize"
    assert client.get("/accounts/oidc/company/login/callback/", answer).status_code == 403
