"""The pages of upstream accounts as people and administrators see them: light, dark, on a phone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.stage import Stage

Shoot = Callable[..., Path]
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
LIGHT: dict[str, Any] = {}
CLIENT_FILE = """{
  "mcpServers": {
    "tracker": {
      "url": "https://tracker.example/mcp",
      "headers": {"Authorization": "Bearer s3cret"}
    },
    "files": {"command": "npx", "args": ["-y", "@example/files"]},
    "linear": {"command": "npx", "args": ["mcp-remote", "https://mcp.linear.app/mcp"]}
  }
}"""


def fits(page: Page) -> None:
    """Fail if the page scrolls sideways."""
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"{page.url} scrolls sideways by {wide}"


def lab(stage: Stage, name: str) -> None:
    """Give one person a service whose sign-in does not work."""
    stage.gateway.apply(
        {
            "groups": ["lab"],
            "upstreams": [
                {
                    "key": "archive",
                    "title": "Archive",
                    "description": "Old documents",
                    "url": f"{stage.elsewhere_url.replace('localhost', '127.0.0.1')}/mcp",
                    "credential": "user_oauth",
                }
            ],
            "virtual_mcps": [
                {"slug": "lab", "title": "Lab", "audience": "groups", "groups": ["lab"],
                 "upstreams": ["archive"]}
            ],
            "users": [{"username": name, "groups": ["lab"]}],
        }
    )  # fmt: skip


def end_account(stage: Stage, name: str) -> None:
    """Have the person's account on the ticket board end, as a refused renewal does."""
    stage.gateway.manage(
        "shell", "-v", "0", "-c",
        "from upstreams.models import UpstreamAccount as A\n"
        f"A.objects.filter(user__username={name!r}).update("
        "status='needs_reconnect', ended_because='refused')",
    )  # fmt: skip


def link_of(stage: Stage, name: str) -> str:
    return stage.gateway.manage(
        "shell", "-v", "0", "-c",
        "from django.contrib.auth.models import User\n"
        "from upstreams.connect_links import link_for\n"
        f"print(link_for(User.objects.get(username={name!r}).pk, 'board'))",
    ).strip()  # fmt: skip


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("look", "suffix"), [(LIGHT, ""), (PHONE, "-phone-dark")])
def test_a_person_connects_fails_and_reconnects(
    stage: Stage, seat: Any, shoot: Shoot, look: dict[str, Any], suffix: str
) -> None:
    name = stage.person()
    lab(stage, name)
    chair = seat(**look)
    page = chair.page()
    page.goto(link_of(stage, name))
    chair.sign_in(page, name)
    expect(page.get_by_role("heading", level=1)).to_have_text("Connect Ticket board")
    fits(page)
    shoot(page, f"connect-account{suffix}")
    page.get_by_role("button", name="Connect").click()
    page.get_by_label("Your name on the board").fill("Guest")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ticket board is connected")
    expect(page.get_by_text("Go back to your assistant")).to_be_visible()
    fits(page)
    shoot(page, f"connected-by-link{suffix}")

    page.goto(f"{stage.url}/connect/archive/")
    page.get_by_role("button", name="Connect").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Archive could not be connected")
    expect(page.get_by_text("Failed here:")).to_have_count(1)
    fits(page)
    shoot(page, f"connect-failed{suffix}")

    end_account(stage, name)
    page.goto(f"{stage.url}/connections/")
    expect(page.get_by_text("Ticket board needs to be connected again")).to_be_visible()
    fits(page)
    shoot(page, f"connections-reconnect{suffix}")
    page.get_by_role("button", name="Reconnect Ticket board").click()
    page.get_by_label("Your name on the board").fill("Guest")
    page.get_by_role("button", name="Allow").click()
    expect(page.get_by_text("Ticket board is connected")).to_be_visible()
    assert chair.complaints == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("look", "suffix"), [(LIGHT, ""), ({"color_scheme": "dark"}, "-dark")])
def test_an_administrator_sets_up_and_looks_after_upstreams(
    stage: Stage, seat: Any, shoot: Shoot, look: dict[str, Any], suffix: str
) -> None:
    chair = seat(**look)
    page = chair.page()
    page.goto(f"{stage.url}/accounts/login/?next=/admin/upstreams/upstream/")
    chair.sign_in(page, "maria")
    page.get_by_role("link", name="Add from preset").click()
    expect(page.get_by_role("link", name="Use Linear")).to_be_visible()
    shoot(page, f"admin-presets{suffix}", full_page=False)
    page.get_by_role("link", name="Use Asana").click()
    expect(page.get_by_label("Title")).to_have_value("Asana")
    expect(page.get_by_text("/connect/callback").first).to_be_visible()
    shoot(page, f"admin-preset-form{suffix}", full_page=False)

    page.goto(f"{stage.url}/admin/upstreams/upstream/import/")
    page.get_by_label("Paste it here").fill(CLIENT_FILE)
    page.get_by_role("button", name="Show what is in it").click()
    expect(page.get_by_text("Holds a key (not shown).")).to_be_visible()
    assert "s3cret" not in page.content()
    shoot(page, f"admin-import{suffix}", full_page=False)

    page.goto(f"{stage.url}/connect/board/")
    page.get_by_role("button", name="Connect").click()
    page.get_by_label("Your name on the board").fill("Maria")
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{stage.url}/connections/")
    page.goto(f"{stage.url}/admin/upstreams/upstream/?q=board")
    page.get_by_role("link", name="Ticket board").click()
    page.get_by_role("button", name="Test connection").click()
    expect(page.get_by_role("heading", name="Requests and answers")).to_be_visible()
    shoot(page, f"admin-test{suffix}", full_page=False)
    page.goto(f"{stage.url}/admin/upstreams/oauthtrace/?purpose__exact=connect&q=maria")
    page.locator("#result_list tbody th a").first.click()
    expect(page.get_by_text("The person came back")).to_be_visible()
    page.locator(".trace summary").last.click()
    shoot(page, f"admin-trace{suffix}", full_page=False)
    page.goto(f"{stage.url}/admin/upstreams/upstreamaccount/")
    page.get_by_label("Select this object for an action").first.check()
    page.get_by_role("combobox", name="Action").select_option("disconnect_selected")
    shoot(page, f"admin-accounts{suffix}", full_page=False)
    page.get_by_role("button", name="Run").or_(page.get_by_role("button", name="Go")).click()
    expect(page.get_by_text("will be disconnected")).to_be_visible()
    shoot(page, f"admin-disconnect{suffix}", full_page=False)
    page.get_by_role("link", name="Cancel").click()
    assert chair.complaints == []
