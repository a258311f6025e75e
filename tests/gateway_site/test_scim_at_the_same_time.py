"""What directories and identity providers say of one person, or of two, at the very same moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from gateway_site.identity import roles
from gateway_site.models import AuditEvent
from gateway_site.scim import resources
from tests.gateway_site.directory import OKTA_USER, Directory

pytestmark = pytest.mark.django_db(transaction=True)
OFF = {"op": "replace", "value": {"active": False}}
ROUNDS = 5


@pytest.fixture
def scim(transactional_db) -> Directory:
    return Directory()


def before(monkeypatch: Any, name: str, happens: Callable[[], object]) -> None:
    """Have something happen when a directory's person was found and is about to be changed."""
    action = getattr(resources, name)

    def later(*args: Any, **kwargs: Any) -> Any:
        happens()
        return action(*args, **kwargs)

    monkeypatch.setattr(resources, name, later)


def test_of_two_administrators_switched_off_by_two_directories_one_stays(scim, monkeypatch) -> None:
    directories = (scim, Directory("okta"))
    made = [
        one("POST", "Users", OKTA_USER | {"userName": f"admin-{n}", "emails": []}).said["id"]
        for n, one in enumerate(directories)
    ]
    meeting = Barrier(2)
    before(monkeypatch, "change_person", lambda: meeting.wait(30))

    def switch_off(number: int) -> int:
        try:
            return int(directories[number].patch(f"Users/{made[number]}", OFF).status_code)
        finally:
            connection.close()

    for past in range(1, ROUNDS + 1):
        User.objects.filter(pk__in=made).update(is_active=True, is_staff=True, is_superuser=True)
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(switch_off, range(2))) == [200, 403]
        assert User.objects.filter(is_superuser=True, is_active=True).count() == 1
        kept = AuditEvent.objects.filter(kind="scim.last_administrator_kept")
        assert kept.count() == past


def test_a_role_that_a_provider_takes_meanwhile_is_not_written_back(scim, monkeypatch) -> None:
    User.objects.create_superuser("root")
    key = scim("POST", "Users", OKTA_USER).said["id"]
    person = User.objects.get(pk=key)
    roles.set_roles(person, {(roles.STAFF, "owners"), (roles.ADMINISTRATOR, "owners")}, source="x")
    before(monkeypatch, "change_person", lambda: roles.set_roles(person, set(), source="x"))
    assert scim.patch(f"Users/{key}", OFF).said["active"] is False
    person.refresh_from_db()
    assert (person.is_active, person.is_staff, person.is_superuser) == (False, False, False)


@pytest.mark.parametrize("how", ["renamed", "deleted"])
def test_who_becomes_an_administrator_meanwhile_is_one(scim, monkeypatch, how: str) -> None:
    key = scim("POST", "Users", OKTA_USER).said["id"]

    def rise() -> None:
        roles.set_roles(User.objects.get(pk=key), {(roles.STAFF, "owners")}, source="x")

    before(monkeypatch, {"renamed": "change_person", "deleted": "delete_person"}[how], rise)
    if how == "renamed":
        answer = scim.patch(f"Users/{key}", {"op": "replace", "value": {"userName": "mallory"}})
        assert (answer.status_code, answer.said["scimType"]) == (400, "mutability")
    else:
        assert scim("DELETE", f"Users/{key}").status_code == 403
    assert User.objects.get(pk=key).is_staff
    assert User.objects.get(pk=key).username == OKTA_USER["userName"]


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_who_is_deleted_meanwhile_is_not_found(scim, monkeypatch, method: str) -> None:
    key = scim("POST", "Users", OKTA_USER).said["id"]
    whole = scim("GET", f"Users/{key}").said
    for name in ("change_person", "delete_person"):
        before(monkeypatch, name, User.objects.filter(pk=key).delete)
    if method == "PATCH":
        answer = scim.patch(f"Users/{key}", OFF)
    else:
        answer = scim(method, f"Users/{key}", whole if method == "PUT" else None)
    assert answer.status_code == 404
    assert not User.objects.filter(pk=key).exists()
