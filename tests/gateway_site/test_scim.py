"""Directories provision people and groups by SCIM; the requests are shaped as they send them."""

import json
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_refresh_token_model

from gateway_site import people_actions
from gateway_site.models import AuditEvent, ScimToken
from oauthserver.models import OAuthClient
from oauthserver.token_values import new_access_token
from tests.gateway_site.directory import ENTERPRISE, ENTRA_USER, OKTA_USER, SCIM, USER, Directory

pytestmark = pytest.mark.django_db


@pytest.fixture
def scim(db) -> Directory:
    return Directory()


# Entra ID ----------------------------------------------------------------------------------
def test_entra_provisions_changes_and_switches_off_a_person(scim):
    # Its connection test looks for somebody who is not there.
    nobody = scim("GET", 'Users?filter=userName+eq+"5f5f1f3c-0000-4000-8000-000000000000"')
    assert (nobody.status_code, nobody.said["totalResults"]) == (200, 0)
    made = scim("POST", "Users", ENTRA_USER)
    assert made.status_code == 201
    key = made.said["id"]
    assert made.headers["Location"] == f"http://localhost:8000/scim/v2/Users/{key}"
    assert made.said["externalId"] == ENTRA_USER["externalId"]
    ada = User.objects.get(pk=key)
    assert (ada.username, ada.email, ada.first_name) == (
        "Ada.Lovelace@contoso.com",
        "ada@contoso.com",
        "Ada",
    )
    assert ada.is_active
    assert not ada.has_usable_password()
    assert scim.found('Users?userName eq "ada.lovelace@CONTOSO.com"') == [key]
    assert scim.found(f'Users?externalId eq "{ENTRA_USER["externalId"]}"') == [key]
    changed = scim.patch(
        f"Users/{key}",
        {"op": "Add", "path": 'emails[type eq "work"].value', "value": "al@contoso.com"},
        {"op": "Replace", "path": "name.familyName", "value": "King"},
        {"op": "Replace", "path": f"{ENTERPRISE}:department", "value": "Poetry"},
        {"op": "Replace", "value": {"displayName": "Ada King", "name.givenName": "Augusta"}},
    )
    assert changed.status_code == 200
    assert changed.said["name"]["formatted"] == "Augusta King"
    assert changed.said["emails"][0]["value"] == "al@contoso.com"
    off = scim.patch(f"Users/{key}", {"op": "Replace", "path": "active", "value": "False"})
    assert off.said["active"] is False
    ada.refresh_from_db()
    assert not ada.is_active
    on = scim.patch(f"Users/{key}", {"op": "Replace", "path": "active", "value": "True"})
    assert on.said["active"] is True
    assert scim("DELETE", f"Users/{key}").status_code == 204
    assert not User.objects.filter(pk=key).exists()
    assert scim("GET", f"Users/{key}").status_code == 404


def test_entra_provisions_groups(scim):
    people = [
        scim("POST", "Users", ENTRA_USER | {"userName": f"{n}@contoso.com", "emails": []}).said[
            "id"
        ]
        for n in "abc"
    ]
    made = scim(
        "POST",
        "Groups",
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
            "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159",
            "displayName": "Engineering",
            "meta": {"resourceType": "Group"},
        },
    )
    assert made.status_code == 201
    key = made.said["id"]
    first = scim.patch(
        f"Groups/{key}",
        {"op": "Add", "path": "members", "value": [{"$ref": None, "value": p} for p in people[:2]]},
    )
    assert first.status_code == 200
    group = Group.objects.get(pk=key)
    assert {str(u.pk) for u in group.user_set.all()} == set(people[:2])
    left = scim.patch(
        f"Groups/{key}", {"op": "Remove", "path": "members", "value": [{"value": people[0]}]}
    )
    assert [m["value"] for m in left.said["members"]] == [people[1]]
    shown = scim("GET", f"Groups/{key}?excludedAttributes=members").said
    assert "members" not in shown
    assert scim.found(f'Groups?id eq "{key}" and members eq "{people[1]}"') == [key]
    assert scim.found(f'Groups?id eq "{key}" and members eq "{people[0]}"') == []
    scim.patch(f"Groups/{key}", {"op": "Replace", "path": "displayName", "value": "Engines"})
    group.refresh_from_db()
    assert group.name == "Engines"
    assert scim("GET", f"Users/{people[1]}").said["groups"][0]["display"] == "Engines"


# Okta --------------------------------------------------------------------------------------
def test_okta_provisions_and_switches_off_a_person(scim):
    assert scim("GET", "Users?startIndex=1&count=2").status_code == 200
    assert scim.found('Users?userName eq "grace@contoso.com"') == []
    made = scim("POST", "Users", OKTA_USER)
    assert made.status_code == 201
    key = made.said["id"]
    grace = User.objects.get(pk=key)
    assert not grace.has_usable_password()
    assert "password" not in json.dumps(made.said)
    # Okta reads it, and sends the whole of it back.
    whole = scim("GET", f"Users/{key}").said
    put = scim("PUT", f"Users/{key}", whole | {"name": {"givenName": "G", "familyName": "H"}})
    assert put.status_code == 200
    assert put.said["name"]["formatted"] == "G H"
    assert put.said["active"] is True
    off = scim.patch(f"Users/{key}", {"op": "replace", "value": {"active": False}})
    assert off.said["active"] is False
    grace.refresh_from_db()
    assert not grace.is_active


def test_okta_pushes_groups(scim):
    people = [
        scim("POST", "Users", OKTA_USER | {"userName": f"{n}@c.com", "emails": []}).said["id"]
        for n in "ab"
    ]
    made = scim(
        "POST",
        "Groups",
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
            "displayName": "Test SCIMv2",
            "members": [],
        },
    )
    key = made.said["id"]
    scim.patch(
        f"Groups/{key}",
        {"op": "replace", "path": "members", "value": [{"value": p} for p in people]},
    )
    scim.patch(f"Groups/{key}", {"op": "replace", "value": {"id": key, "displayName": "Renamed"}})
    gone = scim.patch(f"Groups/{key}", {"op": "remove", "path": f'members[value eq "{people[0]}"]'})
    assert [m["value"] for m in gone.said["members"]] == [people[1]]
    assert Group.objects.get(pk=key).name == "Renamed"
    put = scim(
        "PUT", f"Groups/{key}", {"displayName": "Renamed", "members": [{"value": people[0]}]}
    )
    assert [m["value"] for m in put.said["members"]] == [people[0]]
    assert scim("DELETE", f"Groups/{key}").status_code == 204
    assert not User.objects.get(pk=people[0]).groups.exists()


# What is at stake --------------------------------------------------------------------------
def test_119_switching_a_person_off_ends_sessions_and_tokens_for_good(scim):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    grace = User.objects.get(pk=key)
    browser = Client()
    browser.force_login(grace)
    assert browser.get("/connections/").status_code == 200
    assert UserSession.objects.filter(user=grace).count() == 1
    client = OAuthClient.objects.create(
        client_id="c",
        name="C",
        client_type="public",
        authorization_grant_type="authorization-code",
        redirect_uris="https://c.example/cb",
    )
    access = get_access_token_model().objects.create(
        user=grace,
        application=client,
        token=new_access_token(),
        expires=timezone.now() + timedelta(hours=1),
        scope="mcp:tools",
        resource=["http://localhost:8000/v1/mcp/team"],
    )
    get_refresh_token_model().objects.create(
        user=grace, application=client, token="r", access_token=access
    )
    scim.patch(f"Users/{key}", {"op": "replace", "value": {"active": False}})
    assert browser.get("/connections/").status_code == 302
    assert not UserSession.objects.exists()
    scim.patch(f"Users/{key}", {"op": "replace", "value": {"active": True}})
    assert browser.get("/connections/").status_code == 302
    live = get_access_token_model().objects.filter(user=grace, expires__gt=timezone.now())
    assert not live.exists()
    assert not get_refresh_token_model().objects.filter(user=grace, revoked=None).exists()
    kinds = set(AuditEvent.objects.values_list("kind", flat=True))
    assert {"person.changed", "person.access_ended", "token.revoked"} <= kinds
    by = AuditEvent.objects.filter(kind="person.changed").first()
    assert by.details["by"] == "scim:entra"


@pytest.mark.parametrize("value", [None, "no", 0, {}, [], "", "falsch"])
def test_what_is_no_yes_or_no_is_not_guessed(scim, value):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    answer = scim.patch(f"Users/{key}", {"op": "replace", "path": "active", "value": value})
    assert (answer.status_code, answer.said["scimType"]) == (400, "invalidValue")
    assert User.objects.get(pk=key).is_active


@pytest.mark.parametrize("path", ["active", "userName", f"{USER}:active"])
def test_what_an_account_must_have_is_not_removed(scim, path):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    answer = scim.patch(f"Users/{key}", {"op": "remove", "path": path})
    assert (answer.status_code, answer.said["scimType"]) == (400, "mutability")


def test_a_refused_operation_undoes_those_before_it(scim):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    group = scim("POST", "Groups", {"displayName": "G"}).said["id"]
    answer = scim.patch(
        f"Groups/{group}",
        {"op": "add", "path": "members", "value": [{"value": key}]},
        {"op": "add", "path": "members", "value": [{"value": "999999"}]},
    )
    assert answer.status_code == 400
    assert not User.objects.get(pk=key).groups.exists()


def test_an_account_that_somebody_already_has_is_taken_over(scim):
    ada = User(username="ada", email="ada@contoso.com")
    people_actions.save_person(ada, {}, actor=None)
    made = scim("POST", "Users", ENTRA_USER)
    assert (made.status_code, made.said["id"]) == (201, str(ada.pk))
    again = scim("POST", "Users", ENTRA_USER)
    assert (again.status_code, again.said["scimType"]) == (409, "uniqueness")
    assert User.objects.count() == 1


@pytest.mark.parametrize("by", ["address", "name"])
@pytest.mark.parametrize("verified", [True, False])
def test_who_only_says_to_be_somebody_at_a_provider_is_not_taken_for_them(scim, by, verified):
    name = "mallory" if by == "address" else ENTRA_USER["userName"]
    came = User.objects.create_user(name, "ada@contoso.com")
    SocialAccount.objects.create(user=came, provider="company", uid="s-1")
    EmailAddress.objects.create(user=came, email="ada@contoso.com", verified=verified)
    made = scim("POST", "Users", ENTRA_USER)
    if by == "name" and not verified:
        assert (made.status_code, made.said["scimType"]) == (409, "uniqueness")
        assert "Rename or delete" in made.said["detail"]
        return
    assert made.status_code == 201
    assert (made.said["id"] == str(came.pk)) is verified
    ada = User.objects.get(pk=made.said["id"])
    assert EmailAddress.objects.get(email="ada@contoso.com", verified=True).user == ada


def test_local_administrators_are_out_of_a_directorys_reach(scim):
    root = User.objects.create_superuser("root", "ada@contoso.com")
    assert scim("POST", "Users", ENTRA_USER).status_code == 409
    assert scim("GET", f"Users/{root.pk}").status_code == 404
    off = scim.patch(f"Users/{root.pk}", {"op": "replace", "value": {"active": False}})
    assert off.status_code == 404
    assert scim.found('Users?userName eq "root"') == []
    group = scim("POST", "Groups", {"displayName": "G"}).said["id"]
    added = scim.patch(
        f"Groups/{group}", {"op": "add", "path": "members", "value": [{"value": str(root.pk)}]}
    )
    assert added.status_code == 400


def test_a_group_that_the_directory_takes_over_ends_where_the_directory_says(scim):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    group = Group.objects.create(name="staff")
    User.objects.get(pk=key).groups.add(group)
    assert scim.found('Groups?displayName eq "staff"') == [str(group.pk)]
    member = [{"value": key}]
    scim.patch(f"Groups/{group.pk}", {"op": "Add", "path": "members", "value": member})
    scim.patch(f"Groups/{group.pk}", {"op": "Remove", "path": "members", "value": member})
    assert not User.objects.get(pk=key).groups.exists()


# The protocol ------------------------------------------------------------------------------
def test_numbers_and_nesting_beyond_reason_are_answered(scim):
    assert scim("GET", f"Users?startIndex={'9' * 30}").said["Resources"] == []
    key = scim("POST", "Users", OKTA_USER).said["id"]
    deep: object = True
    for _ in range(400):
        deep = [deep]
    assert (
        scim.patch(f"Users/{key}", {"op": "replace", "path": "active", "value": deep}).status_code
        == 400
    )


def test_pages_and_lists(scim):
    for number in range(5):
        body = OKTA_USER | {"userName": f"p{number}@c.com", "emails": []}
        scim("POST", "Users", body)
    page = scim("GET", "Users?startIndex=4&count=10").said
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (5, 4, 2)
    assert scim("GET", "Users?count=0").said["Resources"] == []
    assert scim("GET", "Users?startIndex=-3&count=1").said["startIndex"] == 1
    assert scim("GET", "Users?startIndex=x").status_code == 400


@pytest.mark.parametrize(
    "text",
    [
        "userName sw x",
        'userName eq "a" or userName eq "b"',
        "userName",
        'password eq "x"',
        'userName eq "a" and',
        "x" * 3000,
    ],
)
def test_filters_that_are_not_understood_are_refused(scim, text):
    answer = scim("GET", f"Users?filter={text.replace(' ', '%20')}")
    assert (answer.status_code, answer.said["scimType"]) == (400, "invalidFilter")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "Users", {"schemas": [USER]}, 400),
        ("POST", "Users", [], 400),
        ("POST", "Users", {"userName": "a" * 300}, 400),
        ("POST", "Users", {"userName": "with space"}, 400),
        ("POST", "Users", {"userName": 7}, 400),
        ("POST", "Groups", {}, 400),
        ("PATCH", "Users/{}", {"Operations": []}, 400),
        ("PATCH", "Users/{}", {"Operations": [{"op": "move"}]}, 400),
        ("PATCH", "Users/{}", {"Operations": ["x"]}, 400),
        ("PATCH", "Users/{}", {"Operations": [{"op": "add", "value": 1}]}, 400),
        ("PATCH", "Users/{}", {"Operations": [{"op": "remove"}]}, 400),
        ("POST", "Users/{}", {}, 405),
        ("DELETE", "Users", None, 405),
        ("POST", "Schemas", {}, 405),
        ("GET", "Bulk", None, 404),
        ("GET", "Users/x", None, 404),
        ("GET", "Users/99999999999999999999", None, 404),
        ("GET", "Schemas/none", None, 404),
    ],
)
def test_bad_requests_get_scims_errors(scim, method, path, body, status):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    answer = scim(method, path.format(key), body)
    assert answer.status_code == status, answer.content
    assert answer.said["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert answer.said["status"] == str(status)


def test_only_json_of_a_bearable_size_is_read(scim):
    assert scim("POST", "Users", OKTA_USER, content_type="text/plain").status_code == 415
    assert scim("POST", "Users", {"userName": "x" * 3_000_000}).status_code == 413
    broken = scim.client.post(
        "/scim/v2/Users", "{", SCIM, headers={"Authorization": f"Bearer {scim.token}"}
    )
    assert broken.status_code == 400


def test_it_describes_itself(scim):
    config = scim("GET", "ServiceProviderConfig").said
    assert config["patch"]["supported"]
    assert not config["bulk"]["supported"]
    types = scim("GET", "ResourceTypes").said["Resources"]
    assert [one["endpoint"] for one in types] == ["/Users", "/Groups"]
    assert scim("GET", "ResourceTypes/User").said["schema"] == USER
    names = {a["name"] for a in scim("GET", f"Schemas/{USER}").said["attributes"]}
    assert names == {"userName", "externalId", "active", "name", "emails", "groups"}


# Tokens ------------------------------------------------------------------------------------
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic eDp5", "Bearer " + "x" * 60])
def test_without_the_token_nothing_is_told(scim, header):
    answer = scim("GET", "Users", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="scim"'


def test_a_session_is_no_token(scim, admin_client):
    assert admin_client.get("/scim/v2/Users").status_code == 401


def test_a_token_is_shown_once_and_ends_at_once(scim, admin_client):
    place = "/admin/gateway_site/scimtoken/"
    page = admin_client.post(f"{place}add/", {"name": "okta"}).content.decode()
    value = page.split("mcpgw_scim_")[1].split("<")[0]
    scim.token = f"mcpgw_scim_{value}"
    assert scim("GET", "Users").status_code == 200
    row = ScimToken.objects.get(name="okta")
    assert value not in row.digest
    assert row.last_used_at is not None
    for later in (place, f"{place}{row.pk}/change/", f"{place}{row.pk}/history/"):
        assert value not in admin_client.get(later).content.decode()
    admin_client.post(f"{place}{row.pk}/delete/", {"post": "yes"})
    assert scim("GET", "Users").status_code == 401
    events = AuditEvent.objects.filter(kind__startswith="scim.", target="okta")
    assert [event.kind for event in events.order_by("pk")] == [
        "scim.token_created",
        "scim.token_deleted",
    ]
