"""``/connections/``: people see what they allowed and take it back."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from consent.models import ConsentRecord
from tests.consent.people_and_servers import (
    browser_of,
    connect,
    oauth_client,
    person,
    resource,
    server,
    upstream,
)
from tests.fakes.mcp_upstream import FakeUpstream
from upstreams import health_record
from upstreams.health_record import Finding
from upstreams.models import CredentialKind, Upstream, UpstreamAccount
from virtualmcp.models import CallRecord

pytestmark = pytest.mark.django_db
KEY = CredentialKind.USER_KEY


def consented(user: Any, slug: str = "workspace") -> ConsentRecord:
    return ConsentRecord.objects.create(
        user=user,
        client=oauth_client(),
        resource=resource(slug),
        virtual_mcp_slug=slug,
        scopes="mcp:tools",
        redirect_uri="https://chat.example/callback",
    )


def token_of(record: ConsentRecord) -> Any:
    return get_access_token_model().objects.create(
        user=record.user,
        application=record.client,
        token=f"token-{record.pk}",
        scope="mcp:tools",
        resource=[record.resource],
        expires=timezone.now() + timedelta(hours=1),
    )


def test_page_lists_clients_with_their_server_and_last_use():
    maria = person()
    server("workspace", (upstream("wiki"), True))
    record = consented(maria)
    CallRecord.objects.create(
        at=datetime(2026, 11, 3, 9, 30, tzinfo=UTC),
        virtual_mcp="workspace",
        method="tools/call",
        user_id=maria.pk,
        client_id=record.client.client_id,
        outcome="ok",
        duration_ms=3,
    )
    body = browser_of(maria).get("/connections/").content.decode()
    assert "Chat" in body
    assert "Workspace" in body
    # The page's script shows the reader's own time in the place of this.
    assert '<time datetime="2026-11-03T09:30:00Z">3 Nov 2026, 09:30 UTC</time>' in body


def test_revoking_ends_the_tokens_and_keeps_the_record():
    maria = person()
    server("workspace", (upstream("wiki"), True))
    record = consented(maria)
    token_of(record)
    browser = browser_of(maria)
    done = browser.post(f"/connections/clients/{record.pk}/revoke", follow=True)
    assert "can no longer use" in done.content.decode()
    assert not get_access_token_model().objects.exists()
    record.refresh_from_db()
    assert record.revoked_at is not None
    assert "None yet." in done.content.decode()


def test_revoking_one_server_leaves_the_other():
    maria = person()
    one = consented(maria, "workspace")
    other = consented(maria, "other")
    token_of(one)
    token_of(other)
    browser_of(maria).post(f"/connections/clients/{one.pk}/revoke")
    assert [t.resource for t in get_access_token_model().objects.all()] == [[other.resource]]


def test_nobody_revokes_for_somebody_else():
    record = consented(person("alice"))
    token_of(record)
    refused = browser_of(person("bob")).post(f"/connections/clients/{record.pk}/revoke")
    assert refused.status_code == 404
    assert get_access_token_model().objects.exists()


@pytest.mark.django_db(transaction=True)
def test_own_key_is_saved_sealed_and_never_shown():
    maria, ledger = person(), upstream("ledger", KEY)
    server("workspace", (ledger, True))
    browser = browser_of(maria)
    with FakeUpstream(tokens={"sk-very-private"}).serve() as running:
        Upstream.objects.update(url=running.url)
        refused = browser.post(
            "/connections/upstreams/ledger/key", {"key": "sk-mistyped"}, follow=True
        ).content.decode()
        assert "refuses this key" in refused and "sk-mistyped" not in refused
        assert not UpstreamAccount.objects.exists()
        done = browser.post(
            "/connections/upstreams/ledger/key", {"key": "sk-very-private"}, follow=True
        )
    body = done.content.decode()
    assert "Your key for Ledger is saved." in body
    assert "sk-very-private" not in body
    account = UpstreamAccount.objects.get(user=maria)
    assert "sk-very-private" not in account.sealed_secret


@pytest.mark.parametrize("key", ["", "   ", "line\nbreak", "x" * 9000])
def test_what_is_no_key_is_not_saved(key):
    maria = person()
    server("workspace", (upstream("ledger", KEY), True))
    done = browser_of(maria).post("/connections/upstreams/ledger/key", {"key": key}, follow=True)
    assert "Nothing was saved" in done.content.decode()
    assert not UpstreamAccount.objects.exists()


def test_key_for_an_upstream_out_of_reach_is_not_taken():
    upstream("ledger", KEY)
    done = browser_of(person()).post("/connections/upstreams/ledger/key", {"key": "sk-1"})
    assert done.status_code == 404


def test_disconnecting_deletes_the_account():
    """security.md 86."""
    maria, ledger = person(), upstream("ledger", KEY)
    server("workspace", (ledger, True))
    connect(maria, ledger)
    done = browser_of(maria).post("/connections/upstreams/ledger/disconnect", follow=True)
    assert "Ledger is disconnected" in done.content.decode()
    assert not UpstreamAccount.objects.exists()


def test_account_stays_removable_when_its_server_is_gone():
    maria, ledger = person(), upstream("ledger", KEY)
    connect(maria, ledger)
    body = browser_of(maria).get("/connections/").content.decode()
    assert "/connections/upstreams/ledger/disconnect" in body


@pytest.mark.parametrize(
    "path",
    [
        "/connections/clients/1/revoke",
        "/connections/upstreams/ledger/disconnect",
        "/connections/upstreams/ledger/key",
    ],
)
def test_nothing_changes_by_following_a_link_or_without_the_token(path):
    assert browser_of(person()).get(path).status_code == 405
    forged = browser_of(person("bob"), enforce_csrf_checks=True).post(path)
    assert forged.status_code == 403


def test_signed_out_person_is_asked_to_sign_in():
    assert Client().get("/connections/")["Location"].startswith("/accounts/login/")


def test_every_form_on_the_page_has_a_token():
    maria, ledger = person(), upstream("ledger", KEY)
    server("workspace", (ledger, True))
    connect(maria, ledger)
    consented(maria)
    body = browser_of(maria).get("/connections/").content.decode()
    forms = re.findall(r"<form\b.*?</form>", body, re.S)
    assert len(forms) >= 4
    assert all("csrfmiddlewaretoken" in form for form in forms)


def test_what_needs_reconnecting_is_said_first_and_why():
    maria, ledger = person(), upstream("ledger", KEY)
    server("workspace", (ledger, True))
    connect(maria, ledger)
    assert (
        "needs to be connected again" not in browser_of(maria).get("/connections/").content.decode()
    )
    UpstreamAccount.objects.update(status="needs_reconnect", ended_because="key_refused")
    body = browser_of(maria).get("/connections/").content.decode()
    assert "Ledger needs to be connected again" in body
    assert "Ledger refuses your key" in body


def test_a_server_that_is_down_is_not_the_persons_to_mend():
    maria, ledger = person(), upstream("ledger", KEY)
    server("workspace", (ledger, True))
    connect(maria, ledger)
    health_record.record(ledger.pk, Finding("down"))
    body = browser_of(maria).get("/connections/").content.decode()
    assert "does not answer at the moment" in body and "needs to be connected again" not in body


def test_permissions_are_told_and_many_of_them_are_folded():
    maria, ledger = person(), upstream("ledger", KEY)
    connect(maria, ledger)
    UpstreamAccount.objects.update(scope="a:read b:write")
    assert "<code>b:write</code>" in browser_of(maria).get("/connections/").content.decode()
    UpstreamAccount.objects.update(scope=" ".join(f"s{number}" for number in range(20)))
    assert "20 permissions" in browser_of(maria).get("/connections/").content.decode()


def test_who_disconnects_learns_whether_the_other_side_is_told():
    maria, ledger = person(), upstream("ledger", KEY)
    connect(maria, ledger)
    told = browser_of(maria).post("/connections/upstreams/ledger/disconnect", follow=True)
    assert "also end the access in the settings of Ledger" in told.content.decode()


@pytest.mark.django_db(transaction=True)
def test_who_sets_up_an_upstream_connects_it_before_anybody_is_offered_it():
    upstream("ledger", KEY)
    keeper = person("keeper", is_staff=True)
    keeper.user_permissions.add(Permission.objects.get(codename="change_upstream"))
    answers = [
        browser_of(who).get("/connect/ledger/").status_code
        for who in (keeper, person("staff", is_staff=True), person())
    ]
    assert answers == [200, 404, 404]
