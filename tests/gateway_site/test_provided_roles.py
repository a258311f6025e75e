"""Administrators by a provider's groups: given, taken, and never taken from who is one by hand."""

import json
from collections.abc import Iterator

import pytest
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import User
from django.test import Client

from gateway_site import identity_recheck, people_actions
from gateway_site.models import AuditEvent, IdentityGrant, ProvidedRole
from gateway_site.scim import tokens
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, change, configured

pytestmark = pytest.mark.django_db(transaction=True)
CLAIMS = {"email": "grace@contoso.com", "email_verified": True, "preferred_username": "grace"}


@pytest.fixture
def provider(transactional_db) -> Iterator[OpenIdProvider]:
    with OpenIdProvider(claims=dict(CLAIMS), gives_refresh_tokens=True).serve() as provider:
        yield provider


@pytest.fixture
def company(provider) -> SocialApp:
    User.objects.create_superuser("root", "root@contoso.com", "correct horse battery")
    return configured(
        provider,
        staff_groups=["gateway operators"],
        administrator_groups=["gateway owners", "it leads"],
        recheck_minutes=15,
    )


def arrived_with(provider: OpenIdProvider, *groups: str) -> Client:
    provider.claims["groups"] = list(groups)
    client = browser()
    arrive(client, provider)
    return client


def role_of(name: str = "grace") -> str:
    person = User.objects.get(username=name)
    return {(False, False): "none", (True, False): "staff", (True, True): "administrator"}[
        person.is_staff, person.is_superuser
    ]


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        ((), "none"),
        (("sales",), "none"),
        (("gateway operators",), "staff"),
        (("gateway owners",), "administrator"),
        (("gateway operators", "it leads"), "administrator"),
    ],
)
def test_a_group_gives_what_the_administrator_wrote_down(provider, company, groups, role) -> None:
    client = arrived_with(provider, *groups)
    assert role_of() == role
    assert (client.get("/admin/").status_code == 200) is (role != "none")


def test_staff_may_do_what_their_groups_here_say_and_no_more(provider, company) -> None:
    client = arrived_with(provider, "gateway operators")
    assert client.get("/admin/auth/user/").status_code == 403


def test_nobody_administers_by_a_provider_unless_that_is_written_down(provider, company) -> None:
    change(company, staff_groups=[], administrator_groups=[], groups_by_name=True)
    arrived_with(provider, "gateway owners", "administrators")
    assert role_of() == "none" and not ProvidedRole.objects.exists()


def test_the_role_goes_with_the_group_and_all_is_in_the_audit_trail(provider, company) -> None:
    first = arrived_with(provider, "gateway owners", "gateway operators")
    arrived_with(provider, "gateway operators")
    assert role_of() == "staff"
    arrived_with(provider)
    assert role_of() == "none" and not ProvidedRole.objects.exists()
    assert first.get("/admin/").status_code != 200
    events = AuditEvent.objects.filter(kind="person.role_changed").order_by("pk")
    assert [
        (e.details["opens_administration"], e.details["full_administrator"]) for e in events
    ] == [
        (True, True),
        (True, False),
        (False, False),
    ]
    assert events[0].details["source"] == "oidc:company" and events[0].target == "grace"
    assert events[0].details["by_groups"] == ["gateway operators", "gateway owners"]


def test_a_recheck_takes_the_role_without_a_sign_in(provider, company) -> None:
    arrived_with(provider, "gateway owners")
    provider.claims["groups"] = []
    IdentityGrant.objects.update(recheck_at=None)
    assert identity_recheck.ask_due(company) == 1
    assert role_of() == "none"


def test_groups_that_are_not_named_give_nothing(provider, company) -> None:
    arrived_with(provider, "gateway owners")
    provider.claims.pop("groups")
    provider.claims["_claim_names"] = {"groups": "src1"}
    arrive(browser(), provider)
    assert role_of() == "none"


def test_who_is_an_administrator_by_hand_stays_one(provider, company) -> None:
    arrived_with(provider)
    for flags in ({"is_staff": True}, {"is_staff": True, "is_superuser": True}):
        User.objects.filter(username="grace").update(is_staff=False, is_superuser=False)
        User.objects.filter(username="grace").update(**flags)
        before = role_of()
        arrived_with(provider, "gateway owners")
        assert role_of() == "administrator"
        arrived_with(provider)
        assert role_of() == before


def test_what_is_written_down_no_more_is_taken_at_once(provider, company) -> None:
    arrived_with(provider, "gateway owners")
    change(company, administrator_groups=["it leads"])
    assert role_of() == "none"
    arrived_with(provider, "gateway owners", "it leads")
    change(company, administrator_groups=["it leads", "others"])
    assert role_of() == "administrator"
    people_actions.delete_identity_provider(company, actor=None)
    assert role_of() == "none"


def test_a_local_administrator_is_untouched_by_all_of_it(provider, company) -> None:
    provider.subject, provider.claims["email"] = "s-9", "root@contoso.com"
    provider.claims["preferred_username"] = "root"
    arrived_with(provider, "gateway owners")
    assert not SocialAccount.objects.filter(user__username="root").exists()
    people_actions.delete_identity_provider(company, actor=None)
    assert role_of("root") == "administrator"


def test_a_directory_switches_off_whom_a_provider_made_administrator(provider, company) -> None:
    arrived_with(provider, "gateway owners")
    tokens.create("entra", actor=None, value="t" * 40)
    headers = {"Authorization": f"Bearer {'t' * 40}"}

    def patch(name: str, **values: object) -> int:
        person = User.objects.get(username=name)
        operations = [{"op": "replace", "path": p, "value": v} for p, v in values.items()]
        body = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
            "Operations": operations,
        }
        answer = browser().patch(
            f"/scim/v2/Users/{person.pk}",
            json.dumps(body),
            content_type="application/scim+json",
            headers=headers,
        )
        return int(answer.status_code)

    assert patch("root", active=False) == 404
    assert patch("grace", userName="mallory") == 400
    assert patch("grace", active=False) == 200
    assert not User.objects.get(username="grace").is_active


@pytest.mark.parametrize("how", ["the group is lost", "it is written down no more", "deleted"])
def test_the_last_full_administrator_stays_one_whatever_a_provider_says(
    provider, company, how
) -> None:
    arrived_with(provider, "gateway owners")
    User.objects.get(username="root").delete()
    if how == "the group is lost":
        arrived_with(provider, "sales")
    elif how == "it is written down no more":
        change(company, administrator_groups=["gateway ownres"])
    else:
        people_actions.delete_identity_provider(company, actor=None)
    assert role_of() == "administrator"
    assert AuditEvent.objects.filter(kind="person.role_kept", target="grace").exists()


def test_of_two_administrators_by_a_provider_one_stays(provider, company) -> None:
    arrived_with(provider, "gateway owners")
    provider.subject = "s-9"
    provider.claims.update(email="hopper@contoso.com", preferred_username="hopper")
    arrived_with(provider, "gateway owners")
    User.objects.get(username="root").delete()
    people_actions.delete_identity_provider(company, actor=None)
    assert sorted([role_of("grace"), role_of("hopper")]) == ["administrator", "none"]
