"""Each kind of identity provider, with the claims as it sends them, and what they give here.

The claims are shaped after the vendors' documentation (see ``sources`` of each preset).
"""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError

from gateway_site import people_actions
from gateway_site.identity.presets import GENERIC, PRESETS
from gateway_site.models import AuditEvent
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, change, configured, signed_in

pytestmark = pytest.mark.django_db

OBJECT_ID = "0760b6cf-170e-4a14-91b3-4b78e0739963"
# preset, claims of the ID token, claims of UserInfo (None: the same), the group as it is called
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None, str]] = {
    "entra, groups": (
        "entra",
        {
            "ver": "2.0",
            "tid": "833ced3d-cb2e-41de-92f1-29e2af035ddc",
            "oid": "abdb1b7a-c09a-40ae-b8bb-37836ebc6abd",
            "preferred_username": "ada@contoso.com",
            "name": "Ada Lovelace",
            "groups": [OBJECT_ID, "3b2b0c93-acd8-4208-8eba-7a48db1cd4c0"],
            "wids": ["cf1c38e5-3621-4004-a7cb-879624dced7c"],
        },
        None,
        OBJECT_ID,
    ),
    "entra, app roles": (
        "entra",
        {"preferred_username": "ada@contoso.com", "roles": ["Gateway.User"]},
        None,
        "Gateway.User",
    ),
    "okta": (
        "okta",
        {"email": "ada@contoso.com", "email_verified": True, "groups": ["Everyone", "staff"]},
        {"email": "ada@contoso.com", "email_verified": True, "zoneinfo": "Europe/Berlin"},
        "staff",
    ),
    "auth0": (
        "auth0",
        {
            "email": "ada@contoso.com",
            "email_verified": True,
            "nickname": "ada",
            "https://mcp-gateway/groups": ["staff"],
        },
        None,
        "staff",
    ),
    "keycloak, groups": (
        "keycloak",
        {
            "email": "ada@contoso.com",
            "email_verified": True,
            "preferred_username": "ada",
            "typ": "ID",
            "acr": "1",
            "groups": ["/staff", "/staff/leads"],
        },
        None,
        "/staff",
    ),
    "keycloak, realm roles": (
        "keycloak",
        {
            "email": "ada@contoso.com",
            "email_verified": True,
            "realm_access": {"roles": ["offline_access", "staff"]},
        },
        None,
        "staff",
    ),
    "ping": (
        "ping",
        {"email": "ada@contoso.com", "email_verified": True, "groups": ["staff"], "env": "1b2c"},
        None,
        "staff",
    ),
    "onelogin, one text": (
        "onelogin",
        {"email": "ada@contoso.com", "email_verified": True, "groups": "everyone;staff"},
        None,
        "staff",
    ),
    "cognito": (
        "cognito",
        {
            "email": "ada@contoso.com",
            "email_verified": True,
            "cognito:username": "ada",
            "cognito:groups": ["staff"],
            "token_use": "id",
        },
        # Not asked for: UserInfo gives a text here.
        {"sub": "s-1", "email": "ada@contoso.com", "email_verified": "true"},
        "staff",
    ),
    "logto": (
        "logto",
        {"email": "ada@contoso.com", "email_verified": True, "roles": ["staff"], "username": "ada"},
        None,
        "staff",
    ),
    "logto, in UserInfo only": (
        "logto",
        {"email": "ada@contoso.com", "email_verified": True, "username": "ada"},
        {"sub": "s-1", "email": "ada@contoso.com", "email_verified": True, "roles": ["staff"]},
        "staff",
    ),
    "clerk, in the ID token": (
        "clerk",
        {
            "email": "ada@contoso.com",
            "email_verified": True,
            "public_metadata": {"groups": ["staff"]},
            "unsafe_metadata": {"groups": ["owners"]},
        },
        None,
        "staff",
    ),
    "clerk, in UserInfo only": (
        "clerk",
        {"email": "ada@contoso.com", "email_verified": True},
        {
            "sub": "s-1",
            "email": "ada@contoso.com",
            "email_verified": True,
            "public_metadata": {"groups": ["staff"]},
        },
        "staff",
    ),
}
CLAIMS = {"entra, app roles": "roles", "keycloak, realm roles": "realm_access.roles"}


@pytest.fixture(scope="module")
def served():
    with OpenIdProvider(algorithm="ES256").serve() as provider:
        yield provider


@pytest.fixture
def provider(served, db):
    served.claims, served.userinfo, served.token_claims = {}, None, {}
    served.metadata_changes = {}
    return served


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPES)
def test_groups_arrive_as_each_provider_sends_them(provider, shape):
    preset, claims, userinfo, theirs = SHAPES[shape]
    provider.claims, provider.userinfo = claims, userinfo
    if userinfo is not None:
        userinfo.setdefault("sub", provider.subject)
    more = {"groups_claim": CLAIMS[shape]} if shape in CLAIMS else {}
    app = configured(provider, preset=preset, allowed_domains=["contoso.com"], **more)
    staff = Group.objects.create(name="people")
    people_actions.set_group_mapping(app, [(theirs, staff)], actor=None)
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    assert list(User.objects.get().groups.all()) == [staff]
    assert User.objects.get().email == "ada@contoso.com"
    assert provider.asked[-1]["scope"] == " ".join(PRESETS[preset].scopes)


TENANT = "833ced3d-cb2e-41de-92f1-29e2af035ddc"
ELSEWHERE = "https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, True),
        ({"acct": 0, "idp": f"https://sts.windows.net/{TENANT}/"}, True),
        ({"acct": 1}, False),
        ({"idp": ELSEWHERE}, False),
        ({"idp": "live.com"}, False),
        ({"acct": 1, "idp": ELSEWHERE, "xms_edov": True}, True),
        ({"xms_edov": False}, False),
    ],
)
def test_a_guest_of_an_entra_tenant_is_nobody_by_their_address(provider, said, found):
    ada = User(username="ada", email="ada@contoso.com")
    people_actions.save_person(ada, {}, actor=None)
    provider.claims = {"tid": TENANT, "email": "ada@contoso.com", **said}
    app = configured(provider, preset="entra")
    arrive(browser(), provider)
    assert ada.socialaccount_set.exists() is found
    change(app, allowed_domains=["contoso.com"])
    client = browser()
    arrive(client, provider)
    assert signed_in(client) is found


def test_google_is_let_in_by_the_domain_it_vouches_for(provider):
    provider.claims = {"email": "ada@contoso.com", "email_verified": True, "hd": "contoso.com"}
    configured(provider, preset="google", allowed_domains=["contoso.com"])
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    # A private account may carry a company address.
    provider.claims = {"email": "eve@contoso.com", "email_verified": True}
    provider.subject = "s-2"
    client = browser()
    assert arrive(client, provider).status_code == 403
    assert not signed_in(client)
    provider.subject = "s-1"


def test_who_comes_by_workos_is_let_in_and_has_the_groups_that_are_given_here(provider):
    provider.claims = {"email": "ada@contoso.com", "email_verified": True, "name": "Ada"}
    app = configured(provider, preset="workos", allowed_domains=["contoso.com"])
    staff = Group.objects.create(name="people")
    people_actions.set_group_mapping(app, [("staff", staff)], actor=None)
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    ada = User.objects.get()
    ada.groups.add(staff)
    # Nothing is read from what its documentation does not name.
    provider.claims["groups"] = provider.claims["roles"] = ["owners"]
    arrive(browser(), provider)
    assert list(ada.groups.all()) == [staff]
    ada.groups.clear()
    change(app, groups_claim="role")
    provider.claims["role"] = "staff"
    arrive(browser(), provider)
    assert list(ada.groups.all()) == [staff]


# What a provider takes to sign somebody out, as it documents it; None where none is announced.
SIGN_OUT = {key: "post_logout_redirect_uri" for key in PRESETS if key != "saml"} | {
    "cognito": "logout_uri",
    "google": None,
    "workos": None,
}


@pytest.mark.parametrize("preset", SIGN_OUT)
def test_signing_out_there_is_asked_for_as_each_provider_takes_it(provider, preset):
    parameter = SIGN_OUT[preset]
    provider.metadata_changes = {} if parameter else {"end_session_endpoint": None}
    provider.claims = {"email": "ada@contoso.com", "email_verified": True, "hd": "contoso.com"}
    configured(provider, preset=preset, allowed_domains=["contoso.com"], sign_out_there=True)
    client = browser()
    arrive(client, provider)
    sent = client.post("/accounts/logout/").headers["Location"]
    assert not signed_in(client)
    if parameter is None:
        assert sent == "/"
        return
    asked = dict(parse_qsl(urlsplit(sent).query))
    hint = asked.pop("id_token_hint", "")
    assert asked == {"client_id": "gw", parameter: "http://localhost:8000/accounts/login/"}
    assert bool(hint) is (parameter == "post_logout_redirect_uri")


@pytest.mark.parametrize(
    ("entered", "issuer"),
    [
        ("entra 8f6e", "https://login.microsoftonline.com/8f6e/v2.0"),
        ("okta contoso.okta.com", "https://contoso.okta.com"),
        ("okta https://c.okta.com/oauth2/default", "https://c.okta.com/oauth2/default"),
        ("google ", "https://accounts.google.com"),
        ("auth0 contoso.eu.auth0.com", "https://contoso.eu.auth0.com"),
        ("keycloak https://sso.c.example/realms/x/", "https://sso.c.example/realms/x"),
        ("ping 1b2c", "https://auth.pingone.com/1b2c/as"),
        ("onelogin contoso", "https://contoso.onelogin.com/oidc/2"),
        (
            "cognito eu-central-1.amazonaws.com/eu-central-1_Ab",
            "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Ab",
        ),
        ("workos contoso", "https://contoso.authkit.app"),
        ("logto ab12", "https://ab12.logto.app/oidc"),
        ("clerk clerk.c.example", "https://clerk.c.example"),
    ],
)
def test_few_words_make_an_issuer(entered, issuer):
    key, _, value = entered.partition(" ")
    assert PRESETS[key].issuer_for(value) == issuer


def test_every_preset_says_where_its_facts_are_from():
    assert len(PRESETS) == 13
    for preset in PRESETS.values():
        assert preset.sources
        assert preset.asks_for
        assert "openid" in preset.scopes
    assert GENERIC.issuer_for("https://x.example/") == "https://x.example"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"preset": "entra", "server_url": "common"}, "server_url"),
        ({"preset": "entra", "server_url": "organizations"}, "server_url"),
        ({"preset": "google"}, "allowed_domains"),
        ({"preset": "nothing", "server_url": "https://x.example"}, "preset"),
        ({"server_url": "https://x.example", "scope": ["email"]}, "scopes"),
        ({"server_url": "https://x.example", "allowed_domains": ["a@b"]}, "allowed_domains"),
        ({"server_url": "https://x.example?a=b"}, "server_url"),
    ],
)
def test_settings_that_would_let_in_others_are_refused(settings, field):
    from allauth.socialaccount.models import SocialApp

    values = {"client_id": "gw", "settings": settings}
    with pytest.raises(ValidationError) as refused:
        people_actions.save_identity_provider(SocialApp(provider_id="x"), values, actor=None)
    assert field in refused.value.message_dict


# Groups ------------------------------------------------------------------------------------
@pytest.fixture
def company(provider):
    provider.claims = {"email": "ada@contoso.com", "email_verified": True, "groups": ["a"]}
    app = configured(provider)
    ours = {name: Group.objects.create(name=name) for name in ("one", "two", "by hand")}
    pairs = [("a", ours["one"]), ("b", ours["two"])]
    people_actions.set_group_mapping(app, pairs, actor=None)
    return app


def groups() -> set[str]:
    return set(User.objects.get().groups.values_list("name", flat=True))


def test_groups_follow_the_provider_at_each_sign_in_and_leave_what_was_given_by_hand(
    provider, company
):
    arrive(browser(), provider)
    assert groups() == {"one"}
    User.objects.get().groups.add(Group.objects.get(name="by hand"))
    provider.claims["groups"] = ["b", "unknown"]
    arrive(browser(), provider)
    assert groups() == {"two", "by hand"}
    provider.claims["groups"] = []
    arrive(browser(), provider)
    assert groups() == {"by hand"}
    del provider.claims["groups"]
    arrive(browser(), provider)
    assert groups() == {"by hand"}
    event = AuditEvent.objects.filter(kind="person.groups_synchronised").last()
    assert event.details == {"source": "oidc:company", "given": ["one"], "taken": []}


def test_a_membership_given_by_hand_is_not_taken_by_the_provider(provider, company):
    arrive(browser(), provider)
    provider.claims["groups"] = []
    arrive(browser(), provider)
    User.objects.get().groups.add(Group.objects.get(name="one"))
    provider.claims["groups"] = ["a"]
    arrive(browser(), provider)
    provider.claims["groups"] = []
    arrive(browser(), provider)
    assert groups() == {"one"}


def test_taking_a_mapping_away_takes_the_group_at_once(provider, company):
    arrive(browser(), provider)
    people_actions.set_group_mapping(company, [("b", Group.objects.get(name="two"))], actor=None)
    assert groups() == set()


def test_deleting_the_provider_takes_its_groups(provider, company):
    arrive(browser(), provider)
    people_actions.delete_identity_provider(company, actor=None)
    assert groups() == set()


def test_groups_of_the_same_name_need_no_mapping_where_that_is_wanted(provider, company):
    provider.claims["groups"] = ["two", "a", "nowhere"]
    change(company, groups_by_name=True)
    arrive(browser(), provider)
    assert groups() == {"one", "two"}
    assert not Group.objects.filter(name="nowhere").exists()


@pytest.mark.parametrize(
    "overage",
    [
        {
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://graph.microsoft.com/v1.0/users/x"}},
        },
        {"hasgroups": True},
    ],
)
def test_groups_that_are_too_many_give_nothing_and_say_so(provider, company, overage):
    arrive(browser(), provider)
    assert groups() == {"one"}
    provider.claims = {"email": "ada@contoso.com", "email_verified": True, **overage}
    client = browser()
    arrive(client, provider)
    assert groups() == set()
    assert AuditEvent.objects.filter(kind="person.groups_unknown").count() == 1
    page = client.get("/").content.decode()
    assert "did not name your groups, because you are in too many" in page
    change(company, allowed_groups=["a"])
    answer = arrive(browser(), provider)
    assert answer.status_code == 403
    assert "so many groups" in answer.content.decode()


def test_only_people_of_named_groups_and_domains_come_in(provider, company):
    change(company, allowed_groups=["a", "z"], allowed_domains=["Contoso.com"])
    client = browser()
    arrive(client, provider)
    assert signed_in(client)
    for wrong in (
        {"groups": ["b"]},
        {"groups": None},
        {"email": "ada@evil.example"},
        {"email": "ada@evil.example@contoso.com.evil"},
        {"email_verified": False},
        {"email": None},
    ):
        provider.token_claims = wrong
        provider.userinfo = {"sub": "s-1"}
        client = browser()
        answer = arrive(client, provider)
        assert answer.status_code == 403, wrong
        assert not signed_in(client)
    reasons = {
        event.details["reason"]
        for event in AuditEvent.objects.filter(kind="person.sign_in_refused")
    }
    assert reasons == {"group", "domain"}
    assert User.objects.count() == 1
