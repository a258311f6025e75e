"""Chromium, and what it looks at."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.browser.stage import PASSWORD, Stage, running_stage

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder needs a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """Run the gateway and the demo's upstreams once for all tests."""
    with running_stage() as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start the Chromium that is installed; none is downloaded."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium: install one (apt-get install chromium) or set CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


class Seat:
    """One person's browser: a context of its own, with what went wrong in it."""

    def __init__(self, stage: Stage, context: BrowserContext) -> None:
        self.stage = stage
        self.context = context
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context.on("page", self._watch)

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.complaints.append(f"script error: {error}"))
        page.on("console", lambda said: self._heard(said.type, said.text))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))

    def _heard(self, kind: str, text: str) -> None:
        if "Content Security Policy" in text:
            self.complaints.append(f"{kind}: {text}")

    def page(self) -> Page:
        """Open a tab."""
        return self.context.new_page()

    def sign_in(self, page: Page, username: str) -> None:
        """Fill in the sign-in form that is shown."""
        page.get_by_label("Username or e-mail address").fill(username)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()


@pytest.fixture
def seat(stage: Stage, chromium: Browser) -> Iterator[Callable[..., Seat]]:
    """Return a function that opens a browser of its own: ``seat(color_scheme="dark")``."""
    opened: list[BrowserContext] = []

    def open_seat(**options: Any) -> Seat:
        context = chromium.new_context(**{"viewport": {"width": 1120, "height": 760}} | options)
        context.set_default_timeout(10_000)
        opened.append(context)
        return Seat(stage, context)

    yield open_seat
    for context in opened:
        context.close()


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[..., Path]:
    """Take a picture: into ``SCREENSHOTS`` if that names a folder, else into the test's own."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)

    def take(page: Page, name: str, *, full_page: bool = True) -> Path:
        target = folder / f"{name}.png"
        page.screenshot(path=target, full_page=full_page, animations="disabled")
        assert target.stat().st_size < 150_000, f"{name} is too large to keep"
        return target

    return take
