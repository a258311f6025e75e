"""Times on pages name their zone: the reader's own, or UTC where no script runs."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.stage import Stage

SHAPE = r"^\d+ \w+ \d{4}, \d\d:\d\d "


def sessions(stage: Stage, chair: Any) -> Page:
    page: Page = chair.page()
    page.goto(f"{stage.url}/accounts/login/?next=/accounts/sessions/")
    chair.sign_in(page, "lea")
    expect(page.get_by_role("heading", level=1)).to_have_text("Where you are signed in")
    return page


def minutes(words: str) -> int:
    found = re.search(r"(\d\d):(\d\d)", words)
    assert found
    return 60 * int(found[1]) + int(found[2])


def test_a_time_is_told_in_the_zone_of_who_reads(stage: Stage, seat: Any):
    chair = seat(timezone_id="Asia/Kolkata")
    page = sessions(stage, chair)
    for time in page.locator("time").all():
        expect(time).to_have_text(re.compile(SHAPE + r"GMT\+5:30$"))
        expect(time).to_have_attribute("title", re.compile(SHAPE + "UTC$"))
        ahead = minutes(time.inner_text()) - minutes(time.get_attribute("title") or "")
        assert ahead % (24 * 60) == 5 * 60 + 30
    assert page.locator("time").count() >= 2
    assert chair.complaints == []


def test_without_a_script_a_time_is_told_in_utc(stage: Stage, seat: Any):
    page = sessions(stage, seat(java_script_enabled=False, timezone_id="Asia/Kolkata"))
    for time in page.locator("time").all():
        expect(time).to_have_text(re.compile(SHAPE + "UTC$"))
    assert page.locator("time").count() >= 2
