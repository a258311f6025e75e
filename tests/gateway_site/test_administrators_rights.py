"""Staff with some permissions: nobody makes themselves, or anybody, more than they are."""

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialApp
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.test import Client

from gateway_site import people_actions
from gateway_site.models import AuditEvent, ScimToken
from gateway_site.scim import tokens
from oauthserver import actions as client_actions

pytestmark = pytest.mark.django_db
EVERY_RIGHT_OF = ("user", "group", "socialapp", "groupmapping", "scimtoken", "authenticator")


def permissions(*models: str) -> list[Permission]:
    return list(Permission.objects.filter(content_type__model__in=models))


@pytest.fixture
def root() -> User:
    root = User.objects.create_superuser("root", "root@example.com", "correct horse")
    TOTP.activate(root, "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXQ")
    return root


@pytest.fixture
def helper(root) -> User:
    """May change people, groups, providers and SCIM tokens, as the permissions say."""
    helper = User.objects.create_user("helper", is_staff=True)
    helper.user_permissions.set(permissions(*EVERY_RIGHT_OF))
    return helper


@pytest.fixture
def browser(helper) -> Client:
    client = Client()
    client.force_login(helper, backend="django.contrib.auth.backends.ModelBackend")
    return client


def sent(person: User, **changes: Any) -> dict[str, Any]:
    """What the form of a person's page sends, forged fields included."""
    values: dict[str, Any] = {
        "username": person.username,
        "email": person.email,
        "is_active": "on",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "00:00:00",
        **{name: "on" for name in ("is_staff", "is_superuser") if getattr(person, name)},
    }
    return values | changes


def page(row: Any, what: str = "change") -> str:
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{row.pk}/{what}/"


@pytest.mark.parametrize("who", ["helper", "somebody"])
def test_who_may_change_people_makes_nobody_an_administrator(browser, helper, who):
    person = User.objects.get_or_create(username=who)[0]
    before = set(person.user_permissions.all())
    forged = {
        "is_superuser": "on",
        "is_staff": "on",
        "user_permissions": [str(one.pk) for one in permissions("upstream")],
        "first_name": "Changed",
    }
    assert 'name="is_superuser"' not in browser.get(page(person)).content.decode()
    assert browser.post(page(person), sent(person, **forged)).status_code == 302
    person.refresh_from_db()
    assert person.first_name == "Changed" and not person.is_superuser
    assert person.is_staff is (who == "helper")
    assert set(person.user_permissions.all()) == before


def test_groups_that_carry_more_are_neither_given_nor_taken(browser):
    weak, strong = (Group.objects.create(name=name) for name in ("weak", "strong"))
    weak.permissions.set(permissions("group"))
    strong.permissions.set(permissions("group", "upstream"))
    ada = User.objects.create_user("ada")
    forged = sent(ada, groups=[str(strong.pk)])
    answer = browser.post(page(ada), forged)
    assert answer.status_code == 200 and "not one of the available choices" in str(answer.content)
    assert not ada.groups.exists()
    assert browser.post(page(ada), sent(ada, groups=[str(weak.pk)])).status_code == 302
    assert set(ada.groups.all()) == {weak}


def test_a_group_that_was_not_offered_is_not_lost(root):
    client = Client()
    helper = User.objects.create_user("helper", is_staff=True)
    helper.user_permissions.set(permissions("user"))
    client.force_login(helper, backend="django.contrib.auth.backends.ModelBackend")
    strong = Group.objects.create(name="strong")
    strong.permissions.set(permissions("upstream"))
    helper.groups.add(strong)
    more = Group.objects.create(name="more")
    more.permissions.set(permissions("virtualmcp"))
    helper.user_permissions.remove(*permissions("virtualmcp"))
    assert client.post(page(helper), sent(helper, groups=[])).status_code == 302
    assert not helper.groups.exists(), "their own to give and to take"
    helper.groups.set([more])
    # By the group they have what it carries; without it, it is beyond them.
    assert client.post(page(helper), sent(helper, groups=[str(more.pk)])).status_code == 302
    assert set(helper.groups.all()) == {more}


def pages_of_more(root: User) -> list[tuple[str, dict[str, Any]]]:
    chosen = {ACTION_CHECKBOX_NAME: [str(root.pk)], "post": "yes", "confirmed": "yes"}
    password = {"password1": "another horse 1", "password2": "another horse 1"}
    factor = Authenticator.objects.get(user=root)
    return [
        (page(root), sent(root, email="mallory@evil.example")),
        (page(root).replace("/change/", "/password/"), {**password, "usable_password": "true"}),
        (page(root, "delete"), {"post": "yes"}),
        ("/admin/auth/user/", {"action": "delete_selected", **chosen}),
        (page(factor, "delete"), {"post": "yes"}),
        (
            "/admin/mfa/authenticator/",
            {"action": "delete_selected", "post": "yes", ACTION_CHECKBOX_NAME: [str(factor.pk)]},
        ),
    ]


def test_whoever_may_do_more_is_not_changed_reset_or_deleted(browser, root):
    before = User.objects.values().get(pk=root.pk)
    for address, body in pages_of_more(root):
        assert browser.post(address, body).status_code == 403, address
    assert User.objects.values().get(pk=root.pk) == before
    assert Authenticator.objects.filter(user=root).exists()


@pytest.mark.parametrize("active", [True, False])
def test_staff_with_other_permissions_are_as_far_off_as_full_administrators(browser, active):
    other = User.objects.create_user("other", is_staff=True, is_active=active)
    other.user_permissions.set(permissions("upstream"))
    body = {"password1": "another horse 1", "password2": "another horse 1"}
    address = page(other).replace("/change/", "/password/")
    assert browser.post(address, {**body, "usable_password": "true"}).status_code == 403
    other.user_permissions.set(permissions("user"))
    assert browser.post(address, {**body, "usable_password": "true"}).status_code == 302


def test_a_password_that_an_administrator_sets_stands_in_the_audit_trail(browser):
    ada = User.objects.create_user("ada", password="the old one 1")
    address = page(ada).replace("/change/", "/password/")
    wrong = {"password1": "another horse 1", "password2": "another", "usable_password": "true"}
    assert browser.post(address, wrong).status_code == 200
    events = AuditEvent.objects.filter(kind="person.password_changed")
    assert not events.exists()
    assert browser.post(address, {**wrong, "password2": "another horse 1"}).status_code == 302
    assert [(one.actor, one.target) for one in events] == [("helper", "ada")]


def test_an_administrator_is_not_signed_out_by_one_who_may_do_less(browser, root):
    session = Client()
    session.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    ada = User.objects.create_user("ada")
    body = {
        "action": "sign_out_everywhere",
        "confirmed": "yes",
        ACTION_CHECKBOX_NAME: [str(root.pk), str(ada.pk)],
    }
    answer = browser.post("/admin/auth/user/", body, follow=True).content.decode()
    assert "1 people are signed out" in answer and "ask a full administrator" in answer
    assert session.get("/connections/").status_code == 200
    with pytest.raises(PermissionDenied):
        people_actions.end_access(root, actor=User.objects.get(username="helper"))


def test_a_group_gets_no_more_than_its_maker_has(browser):
    mine, beyond = permissions("group")[0], permissions("upstream")[0]
    body = {"name": "new", "permissions": [str(mine.pk), str(beyond.pk)]}
    assert browser.post("/admin/auth/group/add/", body).status_code == 200
    assert not Group.objects.exists()
    body["permissions"] = [str(mine.pk)]
    assert browser.post("/admin/auth/group/add/", body).status_code == 302
    strong = Group.objects.create(name="strong")
    strong.permissions.set([beyond])
    # A name can be what a provider fills the group by.
    assert browser.post(page(strong), {"name": "all staff"}).status_code == 403
    assert browser.post(page(strong, "delete"), {"post": "yes"}).status_code == 403
    assert Group.objects.filter(name="strong").exists()


def test_who_decides_who_people_are_is_a_matter_of_full_administrators(browser, helper):
    app = SocialApp(provider_id="company", name="Company")
    values = {"client_id": "gw", "settings": {"server_url": "https://idp.example.com"}}
    people_actions.save_identity_provider(app, values, actor=None)
    tokens.create("entra", actor=None)
    form = {
        "preset": "generic",
        "server_url": "https://mallory.example",
        "client_id": "gw",
        "administrator_groups": "mallory",
        "group_mappings-TOTAL_FORMS": "0",
        "group_mappings-INITIAL_FORMS": "0",
    }
    assert browser.get(page(app)).status_code == 403
    assert browser.post(page(app), form).status_code == 403
    assert browser.post("/admin/socialaccount/socialapp/add/", form).status_code == 403
    assert browser.post(page(app, "delete"), {"post": "yes"}).status_code == 403
    token = ScimToken.objects.get()
    assert browser.post("/admin/gateway_site/scimtoken/add/", {"name": "m"}).status_code == 403
    assert browser.post(page(token, "delete"), {"post": "yes"}).status_code == 403
    with pytest.raises(PermissionDenied):
        people_actions.set_group_mapping(app, [], actor=helper)
    assert ScimToken.objects.count() == SocialApp.objects.count() == 1


def test_a_full_administrator_gives_everything(root):
    client = Client()
    client.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    ada = User.objects.create_user("ada")
    strong = Group.objects.create(name="strong")
    strong.permissions.set(permissions("upstream"))
    body = sent(ada, is_staff="on", is_superuser="on", groups=[str(strong.pk)])
    assert client.post(page(ada), body).status_code == 302
    ada.refresh_from_db()
    assert ada.is_superuser and ada.is_staff and set(ada.groups.all()) == {strong}
    assert AuditEvent.objects.filter(kind="person.changed", target="ada").exists()


@pytest.mark.parametrize("action", ["refuse", "switch_off", "revoke_all", "renew_secret"])
def test_who_may_only_look_acts_on_no_list(browser, helper, action):
    client, _ = client_actions.preregister_client(
        name="Portal", redirect_uris_allowed=["https://p.example/"], confidential=True, actor=None
    )
    helper.user_permissions.set(Permission.objects.filter(codename="view_oauthclient"))
    before = (client.client_secret, client.enabled)
    body = {"action": action, "confirmed": "yes", ACTION_CHECKBOX_NAME: [str(client.pk)]}
    browser.post("/admin/oauthserver/oauthclient/", body)
    client.refresh_from_db()
    assert (client.client_secret, client.enabled) == before
    assert not AuditEvent.objects.filter(target__contains="Portal", actor="helper").exists()
