"""Administrators read consents and take them back; they never write one."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from consent import decisions
from consent.models import ConsentRecord
from tests.consent.people_and_servers import browser_of, oauth_client, person, resource

pytestmark = pytest.mark.django_db
LIST = "/admin/consent/consentrecord/"


def record_with_token() -> ConsentRecord:
    record = ConsentRecord.objects.create(
        user=person("sam"),
        client=oauth_client(),
        resource=resource("workspace"),
        virtual_mcp_slug="workspace",
        scopes="mcp:tools",
        redirect_uri="https://chat.example/callback",
    )
    get_access_token_model().objects.create(
        user=record.user,
        application=record.client,
        token="a-token",
        scope="mcp:tools",
        resource=[record.resource],
        expires=timezone.now() + timedelta(hours=1),
    )
    return record


def test_revoking_in_the_admin_ends_the_tokens():
    record = record_with_token()
    browser = browser_of(person(is_staff=True, is_superuser=True))
    form = {"action": "revoke_selected", "_selected_action": [record.pk]}
    assert "Are you sure?" in browser.post(LIST, form).content.decode()
    assert get_access_token_model().objects.exists()
    done = browser.post(LIST, {**form, "confirmed": "yes"}, follow=True)
    assert "1 revoked." in done.content.decode()
    assert not get_access_token_model().objects.exists()
    record.refresh_from_db()
    assert record.revoked_at is not None


def test_nothing_can_be_added_changed_or_deleted():
    record = record_with_token()
    browser = browser_of(person(is_staff=True, is_superuser=True))
    assert browser.get(f"{LIST}add/").status_code == 403
    assert browser.get(f"{LIST}{record.pk}/delete/").status_code == 403
    assert browser.post(f"{LIST}{record.pk}/change/", {"scopes": "all"}).status_code == 403
    shown = browser.get(f"{LIST}{record.pk}/change/").content.decode()
    assert "workspace" in shown
    assert 'name="_save"' not in shown


def test_a_records_own_page_offers_to_revoke_it_while_it_stands():
    record = record_with_token()
    browser = browser_of(person(is_staff=True, is_superuser=True))
    page = f"{LIST}{record.pk}/change/"
    button = f'name="action" value="revoke_selected" formaction="{LIST}"'
    assert button in browser.get(page).content.decode()
    form = {"action": "revoke_selected", "_selected_action": [record.pk], "confirmed": "yes"}
    browser.post(LIST, form)
    assert button not in browser.get(page).content.decode()
    reader = person("reader", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_consentrecord"))
    assert button not in browser_of(reader).get(page).content.decode()


def test_the_list_says_which_consents_stand():
    record = record_with_token()
    browser = browser_of(person(is_staff=True, is_superuser=True))
    rows = {"stands": 1, "outgrown": 0, "over": 0}
    for changes, moved in (({}, "stands"), ({"outgrown_at": timezone.now()}, "outgrown")):
        ConsentRecord.objects.update(**changes)
        for standing in rows:
            shown = browser.get(LIST, {"standing": standing}).content.decode()
            assert ("1 consent record" in shown) is (standing == moved)
    decisions.revoke(record, actor=record.user)
    assert "1 consent record" in browser.get(LIST, {"standing": "over"}).content.decode()
    page = browser.get(f"{LIST}{record.pk}/change/").content.decode()
    assert "Taken back on" in page
