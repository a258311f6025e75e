"""A person's way from pressing "connect" in a client to being sent back to it."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.stage import CHATGPT_ID, CHATGPT_REDIRECT, Stage

Shoot = Callable[..., Any]


def connect_board(page: Page, person: str) -> None:
    """Press Connect, agree at the upstream's own page, come back."""
    page.get_by_role("button", name="Connect Ticket board").click()
    page.get_by_label("Your name on the board").fill(person)
    page.get_by_role("button", name="Allow").click()


def test_person_signs_in_connects_authorizes_and_is_sent_back(
    stage: Stage, seat: Any, shoot: Shoot
):
    stage.without_accounts("maria")
    chair = seat()
    chair.context.route("https://chatgpt.com/**", lambda r: r.fulfill(body="back in ChatGPT"))
    page = chair.page()
    page.goto(stage.authorize_url(CHATGPT_ID, CHATGPT_REDIRECT))
    shoot(page, "sign-in")
    chair.sign_in(page, "maria")

    expect(page.get_by_role("heading", level=1)).to_have_text(
        "ChatGPT wants to use Workspace as you"
    )
    expect(page.get_by_role("button", name="Authorize")).to_be_disabled()
    expect(page.get_by_text("Connect Ticket board first.")).to_be_visible()
    expect(page.get_by_text("Maria Lindqvist")).to_be_visible()
    shoot(page, "consent-before-connect")

    connect_board(page, "Maria L")
    expect(page.get_by_text("Ticket board is connected")).to_be_visible()
    expect(page.get_by_role("button", name="Authorize")).to_be_enabled()
    assert page.url.startswith(f"{stage.url}/oauth/authorize?")

    page.get_by_role("link", name="Connect Parcel service").click()
    page.get_by_label("Your key for Parcel service").fill(stage.api_key)
    shoot(page, "connect-own-key")
    page.get_by_role("button", name="Save key").click()
    expect(page.get_by_text("Your key for Parcel service is stored.")).to_be_visible()
    expect(page.get_by_text("Connected", exact=False).first).to_be_visible()
    shoot(page, "consent-after-connect")

    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{CHATGPT_REDIRECT}?**")
    answer = parse_qs(urlsplit(page.url).query)
    assert answer["code"]
    assert answer["state"] == ["s-1"]
    assert answer["iss"] == [stage.url]
    assert chair.complaints == []

    page.goto(f"{stage.url}/connections/")
    expect(page.get_by_role("heading", name="ChatGPT")).to_be_visible()
    shoot(page, "connections")
    page.get_by_role("button", name="Revoke ChatGPT").click()
    expect(page.get_by_text("can no longer use")).to_be_visible()
    page.get_by_role("button", name="Disconnect Ticket board").click()
    expect(page.get_by_text("Ticket board is disconnected")).to_be_visible()
    assert chair.complaints == []


def test_whole_journey_works_without_javascript(stage: Stage, seat: Any):
    person = stage.person()
    redirect = f"{stage.client_url}/callback"
    client = stage.register("Plain client", redirect)
    page = seat(java_script_enabled=False).page()
    page.goto(stage.authorize_url(client, redirect, state="no-js"))
    page.get_by_label("Username or e-mail address").fill(person)
    page.get_by_label("Password").fill("correct horse battery 7")
    page.get_by_role("button", name="Sign in", exact=True).click()
    connect_board(page, person)
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{redirect}?**")
    assert stage.client.answers[-1]["state"] == "no-js"
    assert stage.client.answers[-1]["code"]


def test_journey_on_a_phone_in_the_dark(stage: Stage, seat: Any, shoot: Shoot):
    chair = seat(viewport={"width": 375, "height": 740}, color_scheme="dark", is_mobile=True)
    redirect = f"{stage.client_url}/callback"
    client = stage.register("Claude Code", redirect)
    page = chair.page()
    page.goto(stage.authorize_url(client, redirect))
    chair.sign_in(page, "sam")
    expect(page.get_by_text("A program on this computer is asking.")).to_be_visible()
    shoot(page, "consent-phone-dark")
    for path, name in (("/", "catalogue-phone-dark"), ("/servers/workspace/", ""),
                       ("/connections/", "connections-phone-dark")):  # fmt: skip
        page.goto(stage.url + path)
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{path} scrolls sideways by {wide}"
        if name:
            shoot(page, name)


def test_denying_sends_the_person_back_with_the_reason(stage: Stage, seat: Any):
    chair = seat()
    redirect = f"{stage.client_url}/callback"
    page = chair.page()
    page.goto(stage.authorize_url(stage.register("Editor", redirect), redirect, "harbour"))
    chair.sign_in(page, stage.person())
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url(f"{redirect}?**")
    assert stage.client.answers[-1]["error"] == "access_denied"


def test_revoked_client_is_refused_within_a_second(stage: Stage, seat: Any):
    chair = seat()
    redirect = f"{stage.client_url}/callback"
    client = stage.register("Short lived", redirect)
    page = chair.page()
    page.goto(stage.authorize_url(client, redirect, "harbour"))
    chair.sign_in(page, stage.person())
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{redirect}?**")
    token = stage.token(client, redirect, stage.client.answers[-1]["code"], "harbour")
    assert stage.call_status(token, "harbour") == 200
    page.goto(f"{stage.url}/connections/")
    page.get_by_role("button", name="Revoke Short lived").click()
    expect(page.get_by_text("Short lived can no longer use")).to_be_visible()
    deadline = time.monotonic() + 1
    while stage.call_status(token, "harbour") != 401:
        assert time.monotonic() < deadline


def test_not_you_leads_through_sign_in_back_to_the_same_question(stage: Stage, seat: Any):
    chair = seat()
    redirect = f"{stage.client_url}/callback"
    page = chair.page()
    page.goto(stage.authorize_url(stage.register("Editor", redirect), redirect, "harbour"))
    chair.sign_in(page, "ada")
    expect(page.get_by_text("Ada Novak")).to_be_visible()
    page.get_by_role("button", name="Not you? Sign out").click()
    chair.sign_in(page, "jun")
    expect(page.get_by_text("Jun Mori")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("Editor wants to use Harbour as you")


def test_catalogue_opens_the_instructions_in_a_dialog(stage: Stage, seat: Any, shoot: Shoot):
    chair = seat(permissions=["clipboard-read", "clipboard-write"])
    page = chair.page()
    page.goto(f"{stage.url}/")
    chair.sign_in(page, "maria")
    shoot(page, "catalogue")
    page.get_by_role("link", name="Configuring the MCP Workspace").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("tab", name="ChatGPT")).to_have_attribute("aria-selected", "true")
    shoot(page, "connect-dialog", full_page=False)
    dialog.get_by_role("button", name="Copy URL").click()
    assert page.evaluate("navigator.clipboard.readText()") == stage.gateway.endpoint("workspace")
    dialog.get_by_role("tab", name="ChatGPT").press("ArrowRight")
    expect(dialog.get_by_role("tab", name="Claude", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("link", name="Configuring the MCP Workspace")).to_be_focused()
    page.goto(f"{stage.url}/servers/workspace/#cursor")
    expect(page.get_by_role("tab", name="Cursor")).to_have_attribute("aria-selected", "true")
    shoot(page, "connect-page")
    assert chair.complaints == []


@pytest.mark.parametrize("path", ["/admin/", "/admin/consent/consentrecord/"])
def test_administration_has_the_same_face(stage: Stage, seat: Any, shoot: Shoot, path: str):
    chair = seat(viewport={"width": 1120, "height": 900})
    page = chair.page()
    page.goto(f"{stage.url}/accounts/login/?next={path}")
    chair.sign_in(page, "maria")
    expect(page.get_by_text("Contoso Gateway").first).to_be_visible()
    if path == "/admin/":
        shoot(page, "admin", full_page=False)
    assert chair.complaints == []
