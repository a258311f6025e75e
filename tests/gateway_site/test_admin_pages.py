"""The administration: every page opens, shows no secret, and needs no inline script."""

import re

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialApp
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from gateway_site import audit_trail, people_actions
from gateway_site.models import AuditEvent, SiteProfile
from oauthserver import actions as client_actions
from upstreams import actions as upstream_actions
from upstreams import health_record
from upstreams.health_record import Finding
from upstreams.models import Upstream
from virtualmcp import actions as virtual_mcp_actions
from virtualmcp.actions import Choice
from virtualmcp.models import CallRecord

SECRETS = {
    "fixed": "canary-fixed-key-0123456789",
    "oauth": "canary-oauth-secret-0123456789",
    "provider": "canary-provider-secret-0123",
    "totp": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXQ",
    "password": "canary horse battery staple",
}


@pytest.fixture
def administrator(db) -> Client:
    user = User.objects.create_superuser("root", "root@example.com", SECRETS["password"])
    TOTP.activate(user, SECRETS["totp"])
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def planted(administrator) -> list[str]:
    """Put a secret into everything that takes one; return them all."""
    data = {"key": "keyed", "title": "Keyed", "url": "https://mcp.example.com/mcp"}
    keyed = upstream_actions.create_upstream({**data, "credential_kind": "fixed"}, None)
    upstream_actions.set_fixed_credential(keyed, SECRETS["fixed"], None)
    data = {**data, "key": "oauthed", "credential_kind": "user_oauth", "oauth_client_id": "gw"}
    oauthed = upstream_actions.create_upstream(data, None)
    upstream_actions.set_oauth_client_secret(oauthed, SECRETS["oauth"], None)
    app = SocialApp(provider_id="company", name="Company")
    values = {"client_id": "gw", "settings": {"server_url": "https://idp.example.com"}}
    people_actions.save_identity_provider(app, values, secret=SECRETS["provider"], actor=None)
    _, client_secret = client_actions.preregister_client(
        name="Portal", redirect_uris_allowed=["https://p.example/"], confidential=True, actor=None
    )
    virtual_mcp_actions.create_virtual_mcp(
        {"slug": "team", "title": "Team"}, choices=[Choice(keyed)], actor=None
    )
    SiteProfile.objects.create()
    return [*SECRETS.values(), client_secret]


def addresses() -> list[str]:
    found = ["/admin/"]
    for model, page in admin.site._registry.items():
        place = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        found += [place, f"{place}?q=canary"]
        for row in model._default_manager.all()[:3]:
            found += [f"{place}{row.pk}/change/", f"{place}{row.pk}/history/"]
            found += [f"{place}{row.pk}/delete/"]
        if page.__class__.__name__ != "AuditEventAdmin":
            found.append(f"{place}add/")
    return found


def test_no_page_shows_a_secret_or_needs_inline_code(administrator, planted):
    seen = 0
    for address in addresses():
        answer = administrator.get(address)
        assert answer.status_code in (200, 302, 403, 405), (address, answer.status_code)
        text = answer.content.decode()
        assert [s for s in planted if s in text] == [], address
        assert "gAAAAA" not in text, address
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)", text), address
        assert not re.search(r"<style|\son[a-z]+=\"|\sstyle=\"", text), address
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        seen += answer.status_code == 200
    assert seen > 25


def test_every_time_names_its_zone(administrator, planted):
    User.objects.update(last_login=timezone.now())
    times = 0
    for address in addresses():
        text = re.sub(r"<[^>]*>", " ", administrator.get(address).content.decode())
        bare = re.search(r"\b\d\d?:\d\d(:\d\d)?(?![\d:]| UTC)|\b[ap]\.m\.", text)
        assert not bare, (address, bare)
        times += len(re.findall(r"\b\d\d?:\d\d:\d\d UTC", text))
    assert times >= 10


def test_tokens_and_codes_have_no_pages(administrator):
    for page in (
        "oauth2_provider/accesstoken",
        "oauth2_provider/grant",
        "socialaccount/socialtoken",
    ):
        assert administrator.get(f"/admin/{page}/").status_code == 404


def test_the_first_page_shows_how_things_are(administrator, planted):
    for outcome in ("ok", "ok", "error -32603"):
        CallRecord.objects.create(
            at=timezone.now(),
            virtual_mcp="team",
            method="tools/call",
            outcome=outcome,
            duration_ms=3,
            user_id=1,
        )
    keyed = Upstream.objects.get(key="keyed")
    health_record.record(keyed.pk, Finding("Protocol: It answered HTML."))
    text = administrator.get("/admin/").content.decode()
    assert "http://localhost:8000/v1/mcp/team" in text
    assert "Protocol: It answered HTML." in text
    assert re.search(r"<dt>Calls</dt><dd>3</dd>", text)
    assert re.search(r"<dt>Failed</dt><dd>1</dd>", text)
    assert "Added an upstream: keyed" in text
    # Only where people have accounts there is something to count.
    assert (text.count("<td>none needed</td>"), text.count("<td>0 connected</td>")) == (1, 1)


def test_the_board_says_when_a_server_offers_nothing_and_a_list_is_full(administrator, monkeypatch):
    virtual_mcp_actions.create_virtual_mcp({"slug": "bare", "title": "Bare"}, actor=None)
    client, _ = client_actions.preregister_client(
        name="Portal", redirect_uris_allowed=["https://p.example/"], confidential=False, actor=None
    )
    client.review = client.Review.WAITING
    client.save()
    monkeypatch.setattr("gateway_site.status_board.MOST_WAITING", 2)
    page = administrator.get("/admin/").content.decode()
    assert "none: nothing is offered" in page
    assert "1 client waits" in page and "the list is full" not in page
    monkeypatch.setattr("gateway_site.status_board.MOST_WAITING", 1)
    assert "the list is full" in administrator.get("/admin/").content.decode()


def test_the_audit_trail_is_filtered_by_what_happened_in_words(administrator):
    audit_trail.record("site.changed", target="the site")
    audit_trail.record("group.changed", target="staff")
    page = administrator.get("/admin/gateway_site/auditevent/")
    (chosen,) = page.context["cl"].filter_specs
    assert chosen.lookup_choices == [
        ("group.changed", "Changed a group"),
        ("site.changed", "Changed the site's settings"),
        ("person.signed_in", "Signed in"),
    ]


def test_an_event_is_told_in_words_with_its_facts_a_line_each(administrator):
    facts = {"redirect_host": "chat.example", "scopes": ["a", "b"], "enabled": True, "n": 1}
    audit_trail.record("consent.given", target="demo", details=facts)
    page = administrator.get(
        reverse("admin:gateway_site_auditevent_change", args=[AuditEvent.objects.latest("pk").pk])
    ).content.decode()
    assert "Let a client use a Virtual MCP: demo" in page
    assert "The gateway, or nobody known" in page
    lines = ("redirect host: chat.example", "scopes: a, b", "enabled: yes", "n: 1")
    # In the database's own order: PostgreSQL sorts the members.
    assert [line for line in lines if f"<div>{line}</div>" not in page] == []


def test_the_audit_trail_is_read_filtered_and_searched_but_not_written(administrator):
    audit_trail.record("site.changed", target="this very site")
    audit_trail.record("group.changed", target="staff")
    place = "/admin/gateway_site/auditevent/"
    found = administrator.get(f"{place}?kind=group.changed&q=staff").content.decode()
    assert "Changed a group: staff" in found
    assert "this very site" not in found
    event = AuditEvent.objects.get(kind="site.changed")
    assert administrator.post(f"{place}add/", {"kind": "x"}).status_code == 403
    assert administrator.post(f"{place}{event.pk}/change/", {"kind": "x"}).status_code == 403
    assert administrator.post(f"{place}{event.pk}/delete/", {"post": "yes"}).status_code == 403


def test_an_identity_provider_is_set_up_with_a_secret_that_is_only_written(administrator):
    form = {
        "name": "Company",
        "provider_id": "company",
        "server_url": "https://idp.example.com/",
        "client_id": "gw",
        "client_secret": SECRETS["provider"],
        "group_mappings-TOTAL_FORMS": "0",
        "group_mappings-INITIAL_FORMS": "0",
    }
    place = "/admin/socialaccount/socialapp/"
    assert administrator.post(f"{place}add/", form).status_code == 302
    app = SocialApp.objects.get()
    assert (app.secret, app.settings["server_url"]) == ("", "https://idp.example.com")
    assert people_actions.provider_secret(app) == SECRETS["provider"]
    page = administrator.get(f"{place}{app.pk}/change/").content.decode()
    assert "http://localhost:8000/accounts/oidc/company/login/callback/" in page
    form |= {"client_secret": "", "name": "Renamed"}
    assert administrator.post(f"{place}{app.pk}/change/", form).status_code == 302
    app.refresh_from_db()
    assert app.name == "Renamed"
    assert people_actions.provider_secret(app) == SECRETS["provider"]
    kinds = list(AuditEvent.objects.values_list("kind", flat=True))
    assert kinds.count("identity_provider.changed") == 2


@pytest.mark.parametrize("url", ["http://idp.example.com", "ftp://x", "idp.example.com"])
def test_an_issuer_must_be_https(administrator, url):
    form = {"name": "C", "provider_id": "c", "server_url": url, "client_id": "gw"}
    answer = administrator.post("/admin/socialaccount/socialapp/add/", form)
    assert "such as https://" in answer.content.decode()
    assert not SocialApp.objects.exists()


def test_changing_a_person_is_kept_in_the_audit_trail(administrator):
    form = {"username": "ada", "usable_password": "true"}
    form |= {"password1": SECRETS["password"], "password2": SECRETS["password"]}
    assert administrator.post("/admin/auth/user/add/", form).status_code == 302
    ada = User.objects.get(username="ada")
    assert AuditEvent.objects.get(kind="person.changed").target == "ada"
    administrator.post(f"/admin/auth/user/{ada.pk}/delete/", {"post": "yes"})
    assert AuditEvent.objects.get(kind="person.deleted").target == "ada"


def test_the_administration_is_for_staff(db, client):
    User.objects.create_user("ada", password=SECRETS["password"])
    client.login(username="ada", password=SECRETS["password"])
    assert client.get("/admin/").status_code == 302
    assert client.get("/api/v1/upstreams/").status_code == 403
