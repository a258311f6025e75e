"""The administration in a real browser: nothing is done by one slip."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import LOOKS, NOT_OURS, fits, problems
from tests.browser.stage import Stage


def administration(stage: Stage, chair: Any) -> Page:
    page: Page = chair.page()
    page.goto(f"{stage.url}/accounts/login/?next=/admin/")
    chair.sign_in(page, "maria")
    page.wait_for_url("**/admin/")
    return page


def test_people_are_not_signed_out_by_a_slip(stage: Stage, seat: Any, shoot: Any):
    guest = stage.person()
    theirs = seat()
    tab = theirs.page()
    tab.goto(f"{stage.url}/accounts/login/?next=/connections/")
    theirs.sign_in(tab, guest)
    tab.wait_for_url("**/connections/")
    page = administration(stage, seat())
    for answer in ("No, go back", "Yes, do it for 1 user"):
        page.goto(f"{stage.url}/admin/auth/user/?q={guest}")
        page.locator("input.action-select").check()
        page.get_by_label("Action:").select_option("sign_out_everywhere")
        page.get_by_role("button", name="Go", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Are you sure?")
        assert problems(page) == []
        shoot(page, "admin-are-you-sure", full_page=False)
        page.get_by_text(answer).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Users")
        tab.reload()
        assert ("/accounts/login/" in tab.url) == answer.startswith("Yes")


@pytest.mark.parametrize("look", LOOKS)
def test_a_tool_gets_another_name_and_its_old_one_is_freed(
    stage: Stage, seat: Any, shoot: Any, look: str
):
    tool = f"tides_{look}".replace("-", "_")
    stage.gateway.manage(
        "shell",
        "-v",
        "0",
        "-c",
        "from upstreams.models import Upstream\n"
        "from virtualmcp.models import VirtualMcp\n"
        "from virtualmcp.name_changes import Named, change_name\n"
        "server = VirtualMcp.objects.get(slug='workspace')\n"
        f"thing = Named(server, Upstream.objects.get(key='harbor'), 'tool', {tool!r})\n"
        f"change_name(thing, {tool!r}, actor=None)\n",
    )
    chair = seat(**LOOKS[look])
    page = administration(stage, chair)
    page.goto(f"{stage.url}/admin/virtualmcp/publicname/?q={tool}")
    page.get_by_role("link", name=tool, exact=True).click()
    page.get_by_label("Public name:").fill("no good")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.locator(".errorlist")).to_contain_text("Use 1 to 64 letters of the English")
    page.get_by_label("Public name:").fill(f"water_{tool}")
    page.get_by_role("button", name="Save and continue editing").click()
    page.wait_for_load_state()
    former = page.get_by_label(tool, exact=True)
    expect(former).to_be_visible()
    found = problems(page)
    assert fits(page)
    shoot(page, f"admin-public-name-{look}")
    chair.complaints.clear()
    former.check()
    page.get_by_role("button", name="Save", exact=True).click()
    listed = page.locator("#result_list").get_by_role("link", name=f"water_{tool}", exact=True)
    listed.click()
    expect(page.get_by_text("Former names to free")).to_have_count(0)
    assert [one for one in found if not any(part in one for part in NOT_OURS)] == []
