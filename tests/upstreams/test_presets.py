"""Presets of well-known servers: each one is whole, sourced, and can be stored as it is."""

import pytest
from django.conf import settings
from django.test import Client

from tests.upstreams.connecting import browser_of, person
from tests.upstreams.test_upstream_admin import form
from upstreams import actions
from upstreams.models import Upstream
from upstreams.preset_catalogue import preset_for, presets

pytestmark = pytest.mark.django_db
ADMIN = "/admin/upstreams/upstream/"
WELL_KNOWN = {
    "linear", "github", "notion", "atlassian", "sentry", "stripe", "asana", "slack", "hubspot",
    "cloudflare", "vercel", "supabase", "intercom", "box", "paypal", "square", "zapier",
    "hugging-face", "canva", "figma",
}  # fmt: skip


@pytest.fixture
def admin() -> Client:
    return browser_of(person("root", is_staff=True, is_superuser=True))


def test_the_well_known_servers_are_there() -> None:
    assert set(presets()) >= WELL_KNOWN


@pytest.mark.parametrize("key", sorted(presets()))
def test_a_preset_is_whole_and_becomes_an_upstream(key: str) -> None:
    preset = presets()[key]
    upstream = actions.create_upstream(preset.fields(), None)
    assert upstream.key == key and upstream.credential_kind == preset.credential
    assert preset_for(upstream.url) is preset
    assert preset.url.startswith("https://") and preset.title and preset.description
    assert preset.facts and all(fact.source.startswith("https://") for fact in preset.facts)
    assert any(fact.says.startswith(("Address", "Hosted", "The path", "Streamable", "OAuth",
                                     "Catalogue")) for fact in preset.facts)  # fmt: skip
    steps = "\n".join(preset.steps())
    assert steps and "{" not in steps
    if preset.by_hand:
        assert f"{settings.PUBLIC_URL}/connect/callback" in steps
    if preset.credential == "user_key":
        assert preset.key_help


def test_an_administrator_adds_a_server_from_its_preset(admin) -> None:
    listed = admin.get(f"{ADMIN}presets/").content.decode()
    assert "?preset=asana" in listed and "?preset=linear" in listed
    page = admin.get(f"{ADMIN}add/?preset=asana")
    initial = page.context["adminform"].form.initial
    assert initial["url"] == "https://mcp.asana.com/v2/mcp"
    shown = page.content.decode()
    assert f"{settings.PUBLIC_URL}/connect/callback" in shown
    assert "developers.asana.com" in shown
    stored = form(title=initial["title"], key=initial["key"], url=initial["url"])
    assert admin.post(f"{ADMIN}add/?preset=asana", stored).status_code == 302
    upstream = Upstream.objects.get()
    assert upstream.key == "asana"
    assert "MCP app" in admin.get(f"{ADMIN}{upstream.pk}/change/").content.decode()
    assert "already added" in admin.get(f"{ADMIN}presets/?q=asana").content.decode()


def test_what_the_vendor_does_not_confirm_is_marked(admin) -> None:
    assert "not confirmed" in admin.get(f"{ADMIN}add/?preset=vercel").content.decode()
    assert "not confirmed" not in admin.get(f"{ADMIN}add/?preset=asana").content.decode()


def test_a_search_without_a_hit_says_what_to_do(admin) -> None:
    page = admin.get(f"{ADMIN}presets/?q=nothing-like-it").content.decode()
    assert "by hand" in page and "?preset=" not in page


def test_a_preset_that_does_not_exist_is_an_empty_form(admin) -> None:
    page = admin.get(f"{ADMIN}add/?preset=../../etc")
    assert page.status_code == 200 and page.context["preset"] is None


def test_who_may_not_add_upstreams_sees_no_presets() -> None:
    browser = browser_of(person("viewer", is_staff=True))
    assert browser.get(f"{ADMIN}presets/").status_code == 403
    assert browser.get(f"{ADMIN}import/").status_code == 403
