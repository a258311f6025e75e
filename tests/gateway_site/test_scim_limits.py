"""What a directory's token cannot do: become an administrator, see services, take addresses."""

from typing import Any

import pytest
from django.contrib.auth.models import User

from gateway_site import people_actions
from gateway_site.models import AuditEvent
from oauthserver.models import OAuthClient, ServiceAccount
from tests.gateway_site.directory import ENTRA_USER, OKTA_USER, PATCH, Directory

pytestmark = pytest.mark.django_db


@pytest.fixture
def scim(db) -> Directory:
    return Directory()


@pytest.mark.parametrize("role", ["is_staff", "is_superuser"])
def test_an_administrators_account_can_only_be_switched_off(scim, role):
    User.objects.create_superuser("root")
    key = scim("POST", "Users", OKTA_USER).said["id"]
    User.objects.filter(pk=key).update(**{role: True})
    whole = scim("GET", f"Users/{key}").said
    assert scim("PUT", f"Users/{key}", whole).status_code == 200
    mail = [{"value": "mallory@evil.example", "primary": True}]
    for value in ({"emails": mail}, {"userName": "mallory"}, {"externalId": "x", "active": False}):
        answer = scim.patch(f"Users/{key}", {"op": "replace", "value": value})
        assert (answer.status_code, answer.said["scimType"]) == (400, "mutability")
    assert scim("DELETE", f"Users/{key}").status_code == 403
    assert scim("GET", f"Users/{key}").said == whole
    off = {"op": "replace", "value": {"active": False}}
    assert scim.patch(f"Users/{key}", off).said["active"] is False
    on = {"op": "replace", "value": {"active": True}}
    assert scim.patch(f"Users/{key}", on).status_code == 400


@pytest.mark.parametrize("others", ["none", "switched off"])
def test_the_last_full_administrator_is_neither_switched_off_nor_deleted(scim, others):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    User.objects.filter(pk=key).update(is_superuser=True, is_staff=True)
    if others == "switched off":
        User.objects.create_superuser("root", is_active=False)
    whole = scim("GET", f"Users/{key}").said
    off = {"op": "replace", "value": {"active": False}}
    for answer in (
        scim.patch(f"Users/{key}", off),
        scim("PUT", f"Users/{key}", whole | {"active": False}),
    ):
        assert answer.status_code == 403
        assert answer.said["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert answer.said["status"] == "403" and "Make another one first" in answer.said["detail"]
    assert scim("DELETE", f"Users/{key}").status_code == 403
    assert User.objects.get(pk=key).is_active
    events = AuditEvent.objects.filter(kind="scim.last_administrator_kept")
    assert [(e.target, e.details) for e in events] == [
        (OKTA_USER["userName"], {"by": "scim:entra"})
    ] * 2
    User.objects.create_superuser("second")
    assert scim.patch(f"Users/{key}", off).said["active"] is False


@pytest.mark.parametrize("role", ["is_staff", "is_superuser"])
def test_an_administrators_account_is_not_taken_over(scim, role):
    root = User(username="root", email="ada@contoso.com")
    people_actions.save_person(root, {role: True}, actor=None)
    assert scim("POST", "Users", ENTRA_USER).status_code == 409
    assert scim("POST", "Users", ENTRA_USER | {"userName": "root", "emails": []}).status_code == 409
    assert scim("GET", f"Users/{root.pk}").status_code == 404


def test_accounts_of_services_are_none_of_a_directorys(scim):
    robot = User(username="robot", email="ada@contoso.com")
    people_actions.save_person(robot, {}, actor=None)
    client = OAuthClient.objects.create(client_id="robot", name="Robot")
    ServiceAccount.objects.create(client=client, user=robot)
    assert scim("POST", "Users", ENTRA_USER).status_code == 409
    assert scim("GET", f"Users/{robot.pk}").status_code == 404
    assert scim.found('Users?userName eq "robot"') == []
    assert scim("DELETE", f"Users/{robot.pk}").status_code == 404
    member = {"op": "add", "path": "members", "value": [{"value": str(robot.pk)}]}
    group = scim("POST", "Groups", {"displayName": "G"}).said["id"]
    assert scim.patch(f"Groups/{group}", member).status_code == 400


def test_an_address_that_somebody_signs_in_with_is_not_given_twice(scim, admin_client):
    first = scim("POST", "Users", OKTA_USER).said["id"]
    mail = [{"value": "taken@contoso.com", "primary": True}]
    scim("PATCH", f"Users/{first}", patching({"emails": mail}))
    second = scim("POST", "Users", ENTRA_USER).said["id"]
    answer = scim("PATCH", f"Users/{second}", patching({"emails": mail}))
    assert (answer.status_code, answer.said["scimType"]) == (409, "uniqueness")
    assert User.objects.get(pk=second).email == "ada@contoso.com"
    page = f"/admin/auth/user/{second}/change/"
    form = dict(admin_client.get(page).context["adminform"].form.initial)
    form = {n: v for n, v in form.items() if n in ("username", "email") and v}
    stamp = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    said = admin_client.post(page, form | stamp | {"email": "Taken@contoso.com"})
    assert "Another account signs in with this address." in said.content.decode()


def test_nul_characters_are_refused(scim):
    key = scim("POST", "Users", OKTA_USER).said["id"]
    for value in ({"userName": "a\0b"}, {"externalId": "\0"}, {"name": {"givenName": "\0"}}):
        answer = scim("PATCH", f"Users/{key}", patching(value))
        assert (answer.status_code, answer.said["scimType"]) == (400, "invalidValue")
    for kind in ("Users?filter=externalId", "Groups?filter=displayName"):
        answer = scim("GET", f"{kind}%20eq%20%22a%00b%22")
        assert (answer.status_code, answer.said["scimType"]) == (400, "invalidFilter")


def patching(value: dict[str, Any]) -> dict[str, Any]:
    return {"schemas": [PATCH], "Operations": [{"op": "replace", "value": value}]}
