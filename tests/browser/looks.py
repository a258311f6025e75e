"""What no page may be: closed to anybody, too wide, or unreadable in one of its looks."""

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}
NARROW = {"width": 320, "height": 720}
WIDE = {"width": 1120, "height": 760}
# Django's own: the help of the two lists of groups, the first column of inline tables, and the
# field to search, whose label is a picture with the text "Search".
NOT_OURS = ("help-tooltip", '<th class="original">', 'label-title-only: <input type="text"')


def problems(page: Page, *, colours_only: bool = False) -> list[str]:
    """Return what axe finds, as lines a person can act on."""
    if not AXE.exists():
        pytest.skip("no axe-core: run npm ci in tests/browser")
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE.read_text())
    kind, values = ("rule", ["color-contrast"]) if colours_only else ("tag", RULES)
    options = {"runOnly": {"type": kind, "values": values}, "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{page.url}: {violation['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def fits(page: Page) -> bool:
    """Tell whether nothing has to be scrolled sideways."""
    return bool(
        page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
    )


def look_at(chair: Any, page: Page, name: str) -> list[str]:
    """Look at the page that is open, narrow and light, then wide and dark.

    What does not depend on colours or width is looked for once. ``WALK_PICTURES`` may name a
    folder for pictures.

    Returns:
        What is wrong with it, a line each.
    """
    found = list(chair.complaints)
    for look, width, scheme in (("narrow", NARROW, "light"), ("wide", WIDE, "dark")):
        page.set_viewport_size(width)
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        # Colours fade into each other.
        page.evaluate("Promise.allSettled(document.getAnimations().map(one => one.finished))")
        lines = problems(page, colours_only=look == "wide")
        lines = [one for one in lines if not any(part in one for part in NOT_OURS)]
        found += [f"{name}, {look}: {one}" for one in lines]
        if not fits(page):
            found.append(f"{name}, {look}: {page.url} has to be scrolled sideways")
        if folder := os.environ.get("WALK_PICTURES"):
            page.screenshot(path=Path(folder) / f"{name}-{look}.png", full_page=True)
    # What axe and the camera write into the page is no doing of the page.
    chair.complaints.clear()
    return found
