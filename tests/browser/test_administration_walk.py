"""Every page of the administration, found by its own links, in narrow light and in wide dark."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Seat
from tests.browser.looks import look_at
from tests.browser.one_of_each import PLANT
from tests.browser.stage import Stage, running_stage

CLIENT_FILE = '{"mcpServers": {"tracker": {"url": "https://tracker.example/mcp"}}}'
# Pages that no list leads to, and the form that has to be sent to see them.
FURTHER = (
    "auth/user/1/password/",
    "password_change/",
    "upstreams/upstream/presets/",
    "upstreams/upstream/presets/?q=nothing-of-this-name",
    "upstreams/upstream/add/?preset=linear",
    "upstreams/upstream/import/",
    "upstreams/",
)


# Kinds whose secret is shown once, when one is added, and what has to be filled in.
SHOWN_ONCE: dict[str, dict[str, str | bool]] = {
    "oauthserver/oauthclient/": {
        "Name:": "Desk",
        "Redirect URIs:": "https://desk.example/callback",
        "Give it a secret": True,
    },
    "gateway_site/scimtoken/": {"Name:": "Second directory"},
}


@pytest.fixture(scope="module")
def furnished() -> Iterator[Stage]:
    """A gateway of this walk's own: what is planted would be in the way of other tests."""
    with running_stage() as running:
        yield running


@pytest.fixture
def chair(furnished: Stage, chromium: Browser) -> Iterator[Seat]:
    """An administrator's tab, on a gateway that has something to show on every page."""
    context = chromium.new_context()
    context.set_default_timeout(10_000)
    administrator = Seat(furnished, context)
    tab = administrator.page()
    tab.goto(f"{furnished.url}/accounts/login/?next=/admin/")
    administrator.sign_in(tab, "maria")
    tab.wait_for_url("**/admin/")
    furnished.gateway.manage("shell", "-v", "0", "-c", PLANT)
    yield administrator
    context.close()


def links(page: Page, selector: str) -> list[str]:
    found = page.locator(selector).evaluate_all("all => all.map(one => one.href)")
    return list(dict.fromkeys(str(address) for address in found))


@pytest.mark.timeout(600)
def test_every_page_of_the_administration_is_accessible_and_fits(furnished: Stage, chair: Seat):
    page = chair.context.pages[0]
    found: list[str] = []
    shown: set[str] = set()
    seen: set[str] = set()

    def look(address: str, name: str = "") -> None:
        if address:
            page.goto(address)
        place = urlsplit(page.url).path.removeprefix("/admin/").strip("/").replace("/", "-")
        found.extend(look_at(chair, page, f"admin-{name or place or 'first'}"))

    look(f"{furnished.url}/admin/")
    for address in links(page, "#content-main th a[href$='/']"):
        look(address)
        kind = ".".join(urlsplit(address).path.split("/")[2:4])
        rows = links(page, "#result_list tbody th a")
        adding = links(page, ".object-tools a.addlink")
        for form in rows[:1]:
            look(form, f"{kind}-form")
        # Of what there is only one, the list is its form.
        if rows or page.locator("#content form fieldset").count():
            shown.add(kind)
        # These two are the same page for every kind.
        for selector in (".historylink", "a.deletelink"):
            if selector not in seen and (more := links(page, selector)):
                seen.add(selector)
                look(more[0], f"{kind}-{selector.split('.')[1]}")
                page.go_back()
        for form in adding[:1]:
            look(form, f"{kind}-add")
    for number, place in enumerate(FURTHER):
        look(f"{furnished.url}/admin/{place}", f"further-{number}")
    page.goto(f"{furnished.url}/admin/upstreams/upstream/import/")
    page.get_by_label("Paste it here").fill(CLIENT_FILE)
    page.get_by_role("button", name="Show what is in it").click()
    look("", "import-preview")
    page.goto(f"{furnished.url}/admin/upstreams/upstream/?q=harbor")
    page.locator("#result_list tbody th a").first.click()
    page.get_by_role("button", name="Test connection").click()
    look("", "upstream-test")
    page.goto(f"{furnished.url}/admin/oauthserver/oauthclient/")
    page.get_by_role("link", name="Waits for a decision").click()
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    look("", "client-to-approve")
    for place, fields in SHOWN_ONCE.items():
        page.goto(f"{furnished.url}/admin/{place}add/")
        for label, value in fields.items():
            field = page.get_by_label(label, exact=True)
            field.check() if value is True else field.fill(str(value))
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("cannot show it again")).to_be_visible()
        look("", f"shown-once-{place.split('/')[1]}")
    page.goto(f"{furnished.url}/admin/socialaccount/socialapp/")
    page.get_by_role("link", name="Walked").click()
    page.get_by_role("button", name="Check", exact=True).click()
    look("", "provider-check")
    # Somebody whom the company let in, and who also administers.
    page.goto(f"{furnished.url}/connections/")
    expect(page.get_by_role("heading", name="Let in by your company")).to_be_visible()
    look("", "let-in-by-the-company")
    assert not found, "\n".join(found)
    kinds = {model._meta.label_lower for model in admin.site._registry}
    assert shown == kinds
