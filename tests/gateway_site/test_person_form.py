"""The form of a person in the administration, while others change the same person."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

from gateway_site import people_actions
from gateway_site.identity import roles
from gateway_site.models import AuditEvent
from tests.consent.people_and_servers import browser_of
from tests.fakes.openid_provider import OpenIdProvider
from tests.gateway_site.arriving import arrive, browser, configured
from tests.gateway_site.directory import Directory

pytestmark = pytest.mark.django_db
WORDS = "Somebody else changed this account while the page was open"


class _Fields(HTMLParser):
    """What a browser sends of the forms on a page if nothing is touched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sent: dict[str, Any] = {}
        self._select = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        name = said.get("name") or ""
        if tag == "select":
            self._select = name
        elif tag == "option" and "selected" in said:
            self.sent.setdefault(self._select, []).append(said.get("value"))
        elif tag == "input" and said.get("type") in ("checkbox", "radio"):
            if "checked" in said:
                self.sent[name] = said.get("value") or "on"
        elif tag == "input" and name and said.get("type") != "submit":
            self.sent[name] = said.get("value") or ""


@pytest.fixture
def provider(db: None) -> Iterator[OpenIdProvider]:
    claims = {"email": "grace@contoso.com", "email_verified": True, "preferred_username": "grace"}
    with OpenIdProvider(claims=claims).serve() as provider:
        yield provider


@pytest.fixture
def company(provider: OpenIdProvider) -> SocialApp:
    Group.objects.create(name="sales")
    return configured(
        provider, staff_groups=["operators"], administrator_groups=["owners"], groups_by_name=True
    )


@pytest.fixture
def boss(db: None) -> User:
    return User.objects.create_superuser("boss", "boss@contoso.com", "correct horse battery")


def came(provider: OpenIdProvider, *groups: str) -> User:
    provider.claims["groups"] = list(groups)
    arrive(browser(), provider)
    return User.objects.get(username="grace")


def opened(administrator: Client, person: User) -> Callable[..., Any]:
    """Open somebody's page; return what saves it later, as it was shown but for changes."""
    place = f"/admin/auth/user/{person.pk}/change/"
    page = administrator.get(place)
    assert page.status_code == 200
    shown = _Fields(page.content.decode()).sent

    def save(**changes: Any) -> Any:
        sent = {name: value for name, value in {**shown, **changes}.items() if value is not None}
        return administrator.post(place, sent)

    return save


def test_a_role_that_a_provider_gives_meanwhile_is_not_taken_by_saving(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    grace = came(provider)
    save = opened(browser_of(boss), grace)
    came(provider, "operators")
    page = save(first_name="Grace").content.decode()
    assert f"{WORDS}: staff status." in page and "Nothing was saved" in page
    grace.refresh_from_db()
    assert (grace.is_staff, grace.first_name) == (True, "")
    again = opened(browser_of(boss), grace)(first_name="Grace")
    assert again.status_code == 302
    grace.refresh_from_db()
    assert (grace.is_staff, grace.first_name) == (True, "Grace")


def test_a_role_that_a_provider_takes_meanwhile_is_not_given_back_by_saving(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    grace = came(provider, "owners")
    save = opened(browser_of(boss), grace)
    came(provider)
    page = save(last_name="Hopper").content.decode()
    assert f"{WORDS}: staff status, superuser status." in page
    grace.refresh_from_db()
    assert not grace.is_staff and not grace.is_superuser


def test_sending_the_refused_page_again_saves_nothing_either(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    grace = came(provider, "operators")
    save = opened(browser_of(boss), grace)
    came(provider)
    administrator = browser_of(boss)
    sent = _Fields(save().content.decode()).sent
    page = administrator.post(f"/admin/auth/user/{grace.pk}/change/", sent)
    assert WORDS in page.content.decode()
    grace.refresh_from_db()
    assert not grace.is_staff


def test_groups_and_switching_off_that_came_meanwhile_stay(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    grace = came(provider)
    save = opened(browser_of(boss), grace)
    came(provider, "sales")
    assert f"{WORDS}: groups." in save().content.decode()
    assert grace.groups.get().name == "sales"
    save = opened(browser_of(boss), grace)
    directory = Directory()
    off = {"op": "replace", "path": "active", "value": False}
    assert directory.patch(f"Users/{grace.pk}", off).status_code == 200
    assert f"{WORDS}: active." in save().content.decode()
    grace.refresh_from_db()
    assert not grace.is_active


def test_another_administrators_change_is_noticed_and_ones_own_is_not(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    grace = came(provider)
    first, second = opened(browser_of(boss), grace), opened(browser_of(boss), grace)
    assert first(last_name="Hopper").status_code == 302
    assert f"{WORDS}: last name." in second(last_name="Murray").content.decode()
    event = AuditEvent.objects.filter(kind="person.changed", target="grace").first()
    assert event is not None and event.details["fields"] == ["last_name"]


def test_a_sign_in_meanwhile_is_no_change_and_its_time_stays(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    grace = came(provider)
    save = opened(browser_of(boss), grace)
    came(provider)
    later = User.objects.get(pk=grace.pk).last_login
    assert later != grace.last_login
    assert save(first_name="Grace").status_code == 302
    grace.refresh_from_db()
    assert (grace.last_login, grace.first_name) == (later, "Grace")


def test_what_an_administrator_cannot_set_does_not_stand_in_their_way(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    helper = User.objects.create_user("helper", is_staff=True)
    may = Permission.objects.filter(codename__in=["change_user", "view_user"])
    helper.user_permissions.set(may)
    boss.delete()
    grace = came(provider)
    save = opened(browser_of(helper), grace)
    grace.user_permissions.set(may)
    assert save(first_name="Grace").status_code == 302
    grace.refresh_from_db()
    assert grace.first_name == "Grace" and grace.user_permissions.count() == len(may)


def test_who_may_only_look_sees_the_page(provider: OpenIdProvider, company: SocialApp) -> None:
    reader = User.objects.create_user("reader", is_staff=True)
    reader.user_permissions.set(Permission.objects.filter(codename="view_user"))
    grace = came(provider)
    page = browser_of(reader).get(f"/admin/auth/user/{grace.pk}/change/").content.decode()
    assert "grace@contoso.com" in page and "as_shown" not in page


def test_a_page_with_marks_that_are_none_saves_nothing_unnoticed(
    provider: OpenIdProvider, company: SocialApp, boss: User
) -> None:
    grace = came(provider)
    save = opened(browser_of(boss), grace)
    assert WORDS in save(as_shown="{}").content.decode()
    assert save(as_shown="{").status_code == 200
    grace.refresh_from_db()
    assert not grace.first_name


def test_a_change_under_way_waits_for_the_one_before(
    provider: OpenIdProvider,
    company: SocialApp,
    boss: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The row is locked before it is read: what is compared is what will be written over."""
    grace = came(provider)
    save = opened(browser_of(boss), grace)
    locked = roles.locked

    def changed_just_before(person: User) -> User:
        people_actions.save_person(User.objects.get(pk=grace.pk), {"is_staff": True}, actor=None)
        return locked(person)

    monkeypatch.setattr(roles, "locked", changed_just_before)
    assert f"{WORDS}: staff status." in save().content.decode()
    monkeypatch.undo()
    grace.refresh_from_db()
    assert grace.is_staff
