"""Upstreams in the admin: set up, tested, and no secret to be read."""

import logging
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from gateway_site.models import AuditEvent
from tests.fakes.mcp_upstream import FakeUpstream
from tests.upstreams.connecting import browser_of, connect, person, upstream_at
from upstreams import actions
from upstreams.models import CredentialKind, Upstream, UpstreamAccount, UpstreamClient

pytestmark = pytest.mark.django_db(transaction=True)
BASE = "/admin/upstreams/upstream/"


@pytest.fixture
def admin() -> Client:
    return browser_of(person("root", is_staff=True, is_superuser=True))


def form(**members: str) -> dict[str, str]:
    return {
        "title": "Fake",
        "key": "fake",
        "url": "https://fake.example/mcp",
        "enabled": "on",
        "description": "",
        "credential_kind": "user_oauth",
        "credential_placement": "header",
        "credential_name": "Authorization",
        "credential_prefix": "Bearer ",
        "oauth_allowed_hosts": "[]",
        "oauth_extra_authorize_parameters": "{}",
        "oauth_send_resource": "on",
        "era": "auto",
        "call_timeout": "50",
        "list_timeout": "5",
        "max_in_flight": "200",
        "max_answer_mib": "10",
        **members,
    }


def test_an_upstream_is_added_with_its_secret_in_one_step(admin) -> None:
    answer = admin.post(
        f"{BASE}add/", form(credential_kind="fixed", new_fixed_credential="canary-1")
    )
    assert answer.status_code == 302, answer.content.decode()
    upstream = Upstream.objects.get()
    assert upstream.credential_prefix == "Bearer "
    assert upstream.sealed_fixed_credential
    page = admin.get(f"{BASE}{upstream.pk}/change/").content.decode()
    assert "canary" not in page and upstream.sealed_fixed_credential not in page
    assert "One is stored." in page


def test_an_upstream_that_waits_for_its_credential_is_saved_with_a_warning(admin) -> None:
    words = "every call fails until you enter it under Shared credential"
    answer = admin.post(f"{BASE}add/", form(credential_kind="fixed"), follow=True)
    assert words in answer.content.decode()
    address = f"{BASE}{Upstream.objects.get().pk}/change/"
    entered = form(credential_kind="fixed", new_fixed_credential="canary-1")
    assert words not in admin.post(address, entered, follow=True).content.decode()


def test_a_new_upstream_has_nothing_to_tell_yet(admin) -> None:
    page = admin.get(f"{BASE}add/").content.decode()
    assert "Health:" not in page
    assert "Redirect URI to register:" in page
    upstream = upstream_at("https://a.example/")
    page = admin.get(f"{BASE}{upstream.pk}/change/").content.decode()
    assert "Health:" in page


def test_saving_again_without_a_secret_keeps_it_and_removing_removes_it(admin) -> None:
    admin.post(f"{BASE}add/", form(oauth_client_id="ours", new_oauth_client_secret="canary-2"))
    upstream = Upstream.objects.get()
    address = f"{BASE}{upstream.pk}/change/"
    admin.post(address, form(oauth_client_id="ours", title="Other"))
    upstream.refresh_from_db()
    assert upstream.title == "Other" and upstream.sealed_oauth_client_secret
    admin.post(address, form(oauth_client_id="ours", remove_oauth_client_secret="on"))
    upstream.refresh_from_db()
    assert upstream.sealed_oauth_client_secret == ""


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"url": "http://plain.example/"}, "url"),
        (
            {"credential_kind": "fixed", "new_fixed_credential": "a\r\nb\x00"},
            "new_fixed_credential",
        ),
        ({"new_fixed_credential": "x"}, "credential_kind"),
        ({"new_oauth_client_secret": "x"}, "oauth_client_id"),
        ({"credential_kind": "fixed", "credential_name": "Host"}, "credential_name"),
        ({"private_network": "nonsense"}, "private_network"),
        ({"oauth_allowed_hosts": "{}"}, "oauth_allowed_hosts"),
    ],
)
def test_a_mistake_stands_at_its_field(admin, settings, members, field: str) -> None:
    settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
    answer = admin.post(f"{BASE}add/", form(**members))
    assert answer.status_code == 200
    assert field in answer.context["adminform"].form.errors
    assert not Upstream.objects.exists()


@pytest.mark.parametrize("url", ["mcp.example.com/mcp", "ftp://mcp.example.com/", "https:///mcp"])
def test_an_address_that_is_not_whole_is_told_how_it_begins(admin, url: str) -> None:
    page = admin.post(f"{BASE}add/", form(url=url)).content.decode()
    assert "The address must begin with https:// and the server&#x27;s name." in page


def test_the_address_changed_in_the_admin_ends_the_accounts(admin, server, protected) -> None:
    upstream = upstream_at(protected.url)
    connect(browser_of(person()), upstream)
    admin.post(f"{BASE}{upstream.pk}/change/", form(url="https://moved.example/mcp"))
    assert Upstream.objects.get().url == "https://moved.example/mcp"
    assert not UpstreamAccount.objects.exists()


def test_221_no_admin_page_shows_a_secret(admin, server, protected, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    alice = person()
    upstream = upstream_at(protected.url)
    connect(browser_of(alice), upstream)
    fixed = upstream_at("https://a.example/", key="b", credential_kind=CredentialKind.FIXED)
    actions.set_fixed_credential(fixed, "canary-fixed", None)
    account, client = UpstreamAccount.objects.get(), UpstreamClient.objects.get()
    secrets = [
        "canary-fixed",
        account.sealed_secret,
        client.sealed_client_secret,
        *server.tokens,
        *server.refresh_tokens,
        server.clients[client.client_id]["client_secret"],
    ]
    pages = [
        BASE,
        f"{BASE}{upstream.pk}/change/",
        f"{BASE}{upstream.pk}/history/",
        f"{BASE}{fixed.pk}/change/",
        "/admin/upstreams/upstreamaccount/",
        f"/admin/upstreams/upstreamaccount/{account.pk}/change/",
        "/admin/upstreams/upstreamclient/",
        f"/admin/upstreams/upstreamclient/{client.pk}/change/",
        "/connections/",
    ]
    for page in pages:
        answer = admin.get(page)
        assert answer.status_code == 200, page
        for secret in secrets:
            assert secret not in answer.content.decode(), page
    logged = "\n".join(record.getMessage() for record in caplog.records)
    for secret in secrets:
        assert secret not in logged


def test_accounts_are_disconnected_in_bulk_and_changed_by_nobody(admin, server, protected) -> None:
    upstream = upstream_at(protected.url)
    for name in ("alice", "bob"):
        connect(browser_of(person(name)), upstream)
    address = "/admin/upstreams/upstreamaccount/"
    chosen = list(UpstreamAccount.objects.values_list("pk", flat=True))
    assert admin.get(f"{address}add/").status_code == 403
    assert admin.post(f"{address}{chosen[0]}/change/", {"scope": "x"}).status_code == 403
    assert admin.post(f"{address}{chosen[0]}/delete/", {"post": "yes"}).status_code == 403
    sent = {"action": "disconnect_selected", "_selected_action": chosen}
    asked = admin.post(address, sent).content.decode()
    assert "2 accounts will be disconnected" in asked and "alice" in asked
    assert "never used" in asked and UpstreamAccount.objects.count() == 2
    admin.post(address, {**sent, "confirmed": "yes"})
    assert not UpstreamAccount.objects.exists()
    kinds = AuditEvent.objects.filter(kind="account.disconnected")
    assert sorted(event.actor for event in kinds) == ["root", "root"]


def test_accounts_are_found_by_how_long_nobody_used_them(admin, server, protected) -> None:
    upstream = upstream_at(protected.url)
    long_ago = timezone.now() - timedelta(days=100)
    for name, used in (("alice", timezone.now()), ("bob", long_ago), ("carol", None)):
        connect(browser_of(person(name)), upstream)
        UpstreamAccount.objects.filter(user__username=name).update(
            last_used_at=used, connected_at=long_ago
        )

    def found(query: str) -> list[str]:
        page = admin.get(f"/admin/upstreams/upstreamaccount/?{query}")
        return sorted(account.user.username for account in page.context["cl"].result_list)

    assert found("") == ["alice", "bob", "carol"]
    assert found("unused=90") == ["bob", "carol"]
    assert found("unused=never") == ["carol"]
    assert found("unused=365") == []
    account = UpstreamAccount.objects.get(user__username="bob")
    page = admin.get(f"/admin/upstreams/upstreamaccount/{account.pk}/change/").content.decode()
    assert f"user__id__exact={account.user_id}" in page
    assert account.sealed_secret not in page


def test_bulk_actions_switch_and_disconnect(admin, server, protected) -> None:
    upstream = upstream_at(protected.url)
    connect(browser_of(person()), upstream)
    for action in ("switch_off", "disconnect_everybody"):
        form = {"action": action, "_selected_action": [upstream.pk], "confirmed": "yes"}
        admin.post(BASE, form)
    assert not Upstream.objects.get().enabled
    assert not UpstreamAccount.objects.exists()
    admin.post(BASE, {"action": "delete_selected", "_selected_action": [upstream.pk], "post": "y"})
    assert not Upstream.objects.exists()


# Test connection.


def test_226_only_administrators_test_and_only_by_post(protected) -> None:
    upstream = upstream_at(protected.url)
    address = f"{BASE}{upstream.pk}/test/"
    assert browser_of(person()).post(address).status_code == 302
    staff = browser_of(person("staff", is_staff=True))
    staff.post(address)
    assert Upstream.objects.get().last_checked_at is None
    assert browser_of(person("r", is_staff=True, is_superuser=True)).get(address).status_code == 405


def steps(upstream: Upstream) -> dict[str, str]:
    upstream.refresh_from_db()
    return {step["name"]: step["state"] for step in upstream.last_check["steps"]}


def test_each_step_of_an_oauth_upstream_is_shown(admin, server, protected) -> None:
    upstream = upstream_at(protected.url)
    page = admin.post(f"{BASE}{upstream.pk}/test/").content.decode()
    assert "registers itself" in page and "Connect your own account" in page
    assert "Nothing failed so far; not everything could be tried." in page
    assert steps(upstream) == {
        "address": "ok",
        "protected_resource_metadata": "ok",
        "authorization_server_metadata": "ok",
        "registration": "ok",
        "credential": "skipped",
    }
    assert not server.calls("/register")
    connect(admin, upstream)
    page = admin.post(f"{BASE}{upstream.pk}/test/").content.decode()
    assert steps(upstream).get("tools") == "ok", upstream.last_check
    assert "Nothing failed." in page
    assert "2026-07-28" in page
    assert upstream.last_check["tools"] == len(protected.mcp.tools)
    assert upstream.detected_era == "modern"
    assert "Works (" in admin.get(BASE).content.decode()


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_an_open_upstream_of_either_era_is_counted(admin, era: str) -> None:
    with FakeUpstream(era=era, page_size=3).serve() as fake:
        upstream = upstream_at(fake.url, credential_kind=CredentialKind.NONE)
        page = admin.post(f"{BASE}{upstream.pk}/test/").content.decode()
        assert steps(upstream).get("tools") == "ok", page
        assert upstream.last_check["tools"] == len(fake.tools)
        assert upstream.detected_era == era


def test_the_step_that_fails_says_why_and_the_rest_is_not_tried(admin, server, protected) -> None:
    server.changes["token_endpoint"] = "https://elsewhere.example/token"
    upstream = upstream_at(protected.url)
    page = admin.post(f"{BASE}{upstream.pk}/test/").content.decode()
    assert "elsewhere.example" in page
    assert steps(upstream)["authorization_server_metadata"] == "failed"
    assert "credential" not in steps(upstream)
    assert "Fails (" in admin.get(BASE).content.decode()


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254/", "http://127.0.0.1:1/mcp", "https://nothing.invalid/"]
)
def test_the_test_keeps_to_the_same_addresses_as_everything_else(admin, url: str) -> None:
    upstream = upstream_at(url)
    admin.post(f"{BASE}{upstream.pk}/test/")
    assert steps(upstream) == {"address": "failed"}


def test_nothing_an_upstream_says_becomes_markup(admin, server, protected) -> None:
    server.changes["issuer"] = "<script>alert(1)</script>"
    upstream = upstream_at(protected.url)
    page = admin.post(f"{BASE}{upstream.pk}/test/").content.decode()
    assert "<script>alert" not in page
