"""Every page passes axe (WCAG 2.2 A and AA), light and dark, wide and narrow, and by keyboard."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.looks import LOOKS, problems
from tests.browser.stage import CHATGPT_ID, CHATGPT_REDIRECT, Stage


@pytest.mark.parametrize("look", LOOKS)
def test_pages_are_accessible(stage: Stage, seat: Any, look: str):
    chair = seat(**LOOKS[look])
    page = chair.page()
    page.goto(f"{stage.url}/accounts/login/")
    found = problems(page)
    chair.sign_in(page, "ada")
    redirect = f"{stage.client_url}/callback"
    loopback = stage.authorize_url(stage.register("Editor", redirect), redirect)
    for address in (
        "/",
        "/servers/workspace/",
        "/connections/",
        "/connect/board/",
        "/connect/parcels/",
        "/connect/board/connected/",
        "/connect/board/?for=1.not-mine",
        "/accounts/password/change/",
        "/accounts/2fa/",
        "/accounts/2fa/totp/activate/",
        "/accounts/password/reset/",
        "/accounts/logout/",
        "/nowhere",
        stage.authorize_url(CHATGPT_ID, CHATGPT_REDIRECT).removeprefix(stage.url),
        loopback.removeprefix(stage.url),
        loopback.removeprefix(stage.url).partition("&resource=")[0],
    ):
        page.goto(stage.url + address)
        found += problems(page)
    assert found == []


def test_dialog_is_accessible(stage: Stage, seat: Any):
    chair = seat()
    page = chair.page()
    page.goto(f"{stage.url}/")
    chair.sign_in(page, "ada")
    page.get_by_role("link", name="Configuring the MCP Workspace").click()
    expect(page.get_by_role("dialog", name="Workspace")).to_be_visible()
    assert problems(page) == []


def test_consent_page_works_by_keyboard_alone(stage: Stage, seat: Any):
    chair = seat()
    redirect = f"{stage.client_url}/callback"
    client = stage.register("Keyboard", redirect)
    page = chair.page()
    page.goto(stage.authorize_url(client, redirect, "harbour", "keys"))
    page.get_by_label("Username or e-mail address").focus()
    page.keyboard.type("jun")
    page.keyboard.press("Tab")
    page.keyboard.type("correct horse battery 7")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Keyboard wants to use Harbour")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Tab")
        where = page.evaluate("document.activeElement.textContent.trim()")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"no visible focus on {where}"
        if where == "Authorize":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"{redirect}?**")
    assert stage.client.answers[-1]["state"] == "keys"
