"""Attacks that need real browsers (security.md 67, 68, 73, 76, 90)."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.stage import Stage


def test_connect_begun_by_an_attacker_cannot_be_finished_by_a_victim(stage: Stage, seat: Any):
    """security.md 76: nothing is exchanged, nothing is stored for anyone."""
    attacker, victim = seat(), seat()
    page = attacker.page()
    page.goto(f"{stage.url}/connections/")
    attacker.sign_in(page, stage.person())
    page.get_by_role("button", name="Connect Ticket board").click()
    page.wait_for_url(f"{stage.board_url}/authorize?**")
    bait = page.url

    trap = victim.page()
    trap.goto(f"{stage.url}/connections/")
    victim_name = stage.person()
    victim.sign_in(trap, victim_name)
    exchanged = stage.board.asked.count("POST /token")
    trap.goto(bait)
    trap.get_by_label("Your name on the board").fill("victim")
    trap.get_by_role("button", name="Allow").click()
    expect(trap.get_by_role("heading", level=1)).to_have_text("Not connected")
    expect(trap.get_by_text("If somebody sent you a link")).to_be_visible()
    assert stage.board.asked.count("POST /token") == exchanged

    for tab in (page, trap):
        tab.goto(f"{stage.url}/connections/")
        expect(tab.get_by_role("button", name="Connect Ticket board")).to_be_visible()
        expect(tab.get_by_role("button", name="Disconnect Ticket board")).to_have_count(0)


@pytest.mark.parametrize("same_site", [True, False])
def test_consent_page_cannot_be_framed(stage: Stage, seat: Any, same_site: bool):
    """security.md 67."""
    chair = seat()
    page = chair.page()
    redirect = f"{stage.client_url}/callback"
    address = stage.authorize_url(stage.register("Editor", redirect), redirect, "harbour")
    page.goto(address)
    chair.sign_in(page, stage.person())
    site, home = (
        (stage.client, stage.client_url) if same_site else (stage.elsewhere, stage.elsewhere_url)
    )
    frame = f'<!doctype html><title>x</title><iframe name="it" src="{address}"></iframe>'
    site.pages["/frame"] = frame.replace("&", "&amp;").encode()
    page.goto(f"{home}/frame")
    page.wait_for_load_state("networkidle")
    framed = page.frame("it")
    assert framed is not None
    assert framed.get_by_role("button", name="Authorize").count() == 0
    assert any("frame" in complaint for complaint in chair.complaints) or framed.url.startswith(
        "chrome-error:"
    )


def test_form_on_another_site_approves_nothing(stage: Stage, seat: Any):
    """security.md 68 and 90: the victim is signed in; one click on the attacker's page."""
    chair = seat()
    page = chair.page()
    redirect = f"{stage.client_url}/callback"
    address = stage.authorize_url(stage.register("Evil", redirect), redirect, "harbour", "forged")
    page.goto(address)
    chair.sign_in(page, stage.person())
    stage.elsewhere.pages["/evil"] = (
        (
            f'<!doctype html><title>x</title><form method="post" action="{address}">'
            '<input name="allow" value="yes"><button>Win a prize</button></form>'
        )
        .replace("&", "&amp;")
        .encode()
    )
    page.goto(f"{stage.elsewhere_url}/evil")
    page.get_by_role("button", name="Win a prize").click()
    page.wait_for_load_state()
    assert page.url.startswith(stage.url)
    assert all(answer.get("state") != "forged" for answer in stage.client.answers)


def test_one_click_on_a_link_gives_an_attackers_client_nothing(stage: Stage, seat: Any):
    """security.md 90: everything is connected and every other consent is fresh."""
    chair = seat()
    page = chair.page()
    page.goto(f"{stage.url}/connections/")
    chair.sign_in(page, stage.person())
    page.get_by_role("button", name="Connect Ticket board").click()
    page.get_by_label("Your name on the board").fill("victim")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("button", name="Disconnect Ticket board")).to_be_visible()
    good = f"{stage.client_url}/callback"
    page.goto(stage.authorize_url(stage.register("Good", good), good, "workspace", "good"))
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{good}?**")

    evil = stage.elsewhere_url.replace("localhost", "127.0.0.1") + "/callback"
    client = stage.register("Good", evil)
    tricks = ("", "&approval_prompt=auto", "&prompt=none", "&skip=1&allow=yes", "&max_age=99999")
    address = stage.authorize_url(client, evil, "workspace", "stolen")
    for number, trick in enumerate(tricks):
        link = (address + trick).replace("&", "&amp;")
        bait = f'<!doctype html><title>x</title><a href="{link}">Free tickets</a>'
        stage.elsewhere.pages[f"/bait{number}"] = bait.encode()
        page.goto(f"{stage.elsewhere_url}/bait{number}")
        page.get_by_role("link", name="Free tickets").click()
        page.wait_for_load_state("networkidle")
        stolen = [one for one in stage.elsewhere.answers if one.get("state") == "stolen"]
        assert not any("code" in one for one in stolen)
        if not stolen:
            expect(page.get_by_text("Not verified")).to_be_visible()
            expect(page.get_by_role("button", name="Authorize")).to_be_enabled()


@pytest.mark.parametrize(
    "name", ["<svg/onload=alert(1)>", '"><script>alert(1)</script>', "{{7*7}}", "</title><b>x"]
)
def test_hostile_client_name_is_only_text(stage: Stage, seat: Any, name: str):
    """security.md 73."""
    chair = seat()
    page = chair.page()
    redirect = f"{stage.client_url}/callback"
    client = stage.register(name, redirect)
    page.goto(stage.authorize_url(client, redirect, "harbour", state=name))
    chair.sign_in(page, "lea")
    expect(page.get_by_role("heading", level=1)).to_contain_text("wants to use Harbour as you")
    assert chair.complaints == []
    assert "49" not in page.inner_text("h1")


def test_pages_ask_no_other_site_for_anything(stage: Stage, seat: Any):
    """security.md 16 and 65: a client's logo neither."""
    chair = seat()
    page = chair.page()
    page.goto(f"{stage.url}/")
    chair.sign_in(page, "maria")
    redirect = f"{stage.client_url}/callback"
    pages = {name: f"https://pictures.example/{name}" for name in ("logo_uri", "client_uri")}
    client = stage.register("Pictured", redirect, **pages)
    consent = stage.authorize_url(client, redirect, "workspace").removeprefix(stage.url)
    answer = "/connect/callback?state=x&code=y"
    for path in ("/", "/servers/workspace/", "/connections/", "/admin/", "/accounts/2fa/"):
        page.goto(stage.url + path)
    for path in (consent, "/connect/board/", answer, "/oauth/authorize?client_id=x"):
        page.goto(stage.url + path)
        page.wait_for_load_state("networkidle")
    elsewhere = [url for url in chair.requests if not url.startswith((stage.url, "data:"))]
    assert elsewhere == []
    assert chair.complaints == []
