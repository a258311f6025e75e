"""The code reaches clients of every kind, and so does the person (security.md 72, 74, 88).

Chromium applies ``form-action`` to every redirect that follows a form; these tests hold the
pages to the decision in docs/adr/2026-11-23-no-form-action.md.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.stage import Stage

CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"


def at_consent(stage: Stage, chair: Any, redirect: str, state: str = "s-1") -> Page:
    """Return a tab that shows the consent page of a client that registered ``redirect``."""
    page: Page = chair.page()
    client = stage.register("Editor", redirect)
    page.goto(stage.authorize_url(client, redirect, "harbour", state))
    if "/accounts/login/" in page.url:
        chair.sign_in(page, "lea")
    return page


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_client_gets_its_code(stage: Stage, seat: Any, host: str):
    redirect = f"{stage.client_url}/callback".replace("127.0.0.1", host)
    page = at_consent(stage, seat(), redirect, f"loopback-{host}")
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{redirect}?**")
    assert stage.client.answers[-1]["state"] == f"loopback-{host}"
    assert stage.client.answers[-1]["code"]


def test_client_that_sends_the_browser_on_to_another_site(stage: Stage, seat: Any):
    stage.client.onward = f"{stage.elsewhere_url}/done"
    page = at_consent(stage, seat(), f"{stage.client_url}/hop", "hop")
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{stage.elsewhere_url}/done")
    assert stage.client.answers[-1]["state"] == "hop"


@pytest.mark.parametrize("onward", ["claude://done", ""])
def test_client_with_a_scheme_of_its_own(stage: Stage, seat: Any, onward: str):
    """Straight to the private scheme, and by way of a web page that redirects to one."""
    stage.client.onward = onward
    chair = seat()
    page = at_consent(stage, chair, f"{stage.client_url}/hop" if onward else CURSOR, "private")
    wanted = onward or CURSOR
    with page.expect_event("request", lambda request: request.url.startswith(wanted)) as seen:
        page.get_by_role("button", name="Authorize").click()
    if not onward:
        assert parse_qs(urlsplit(seen.value.url).query)["code"]
    assert chair.complaints == []


def test_popup_keeps_its_opener(stage: Stage, seat: Any):
    """security.md 74: hosts that sign in through a popup hear from it afterwards."""
    stage.client.pages["/host"] = b"<!doctype html><title>Host</title>"
    stage.client.pages["/callback"] = b"<!doctype html><title>Back</title>You are back"
    chair = seat()
    redirect = f"{stage.client_url}/callback"
    client = stage.register("Popup host", redirect)
    host = chair.page()
    host.goto(f"{stage.client_url}/host")
    address = stage.authorize_url(client, redirect, "harbour", "popup")
    with host.expect_popup() as opened:
        host.evaluate("address => { window.open(address, 'signin', 'popup'); }", address)
    popup = opened.value
    chair.sign_in(popup, "tom")
    popup.get_by_role("button", name="Authorize").click()
    popup.wait_for_url(f"{redirect}?**")
    assert popup.evaluate("window.opener !== null")


def test_two_clients_in_two_tabs_both_finish(stage: Stage, seat: Any):
    """security.md 88."""
    chair = seat()
    redirect = f"{stage.client_url}/callback"
    first = at_consent(stage, chair, redirect, "tab-1")
    second = at_consent(stage, chair, redirect, "tab-2")
    for page, state in ((first, "tab-1"), (second, "tab-2")):
        page.get_by_role("button", name="Authorize").click()
        page.wait_for_url(f"{redirect}?**")
        assert stage.client.answers[-1]["state"] == state


def test_second_click_does_not_overtake_the_first(stage: Stage, seat: Any):
    redirect = f"{stage.client_url}/callback"
    page = at_consent(stage, seat(), redirect, "double")
    page.get_by_role("button", name="Authorize").dblclick()
    page.wait_for_url(f"{redirect}?**")
    expect(page.get_by_text("You are back")).to_be_visible()
