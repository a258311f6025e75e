"""Consent and its redirects in Firefox as well, which reads policies in its own way (#72)."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.firefox import Firefox, Refused, firefox
from tests.browser.stage import CHATGPT_ID, CHATGPT_REDIRECT, PASSWORD, Stage

CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
AUTHORIZE = "button[name=allow]"


@pytest.fixture(scope="module")
def fox() -> Iterator[Firefox]:
    """Start the Firefox that is installed; none is downloaded."""
    found = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
    if not found:
        pytest.skip("no Firefox: install one (apt-get install firefox-esr) or set FIREFOX")
    with firefox(found) as running:
        yield running


def at_consent(stage: Stage, fox: Firefox, redirect: str, state: str) -> None:
    client = stage.register("Editor", redirect)
    fox.open(stage.authorize_url(client, redirect, "harbour", state))
    if "/accounts/login/" in fox.url:
        fox.fill("input[name=login]", "lea")
        fox.fill("input[name=password]", PASSWORD)
        fox.click("form button[type=submit]")
        fox.wait_for(f"{stage.url}/oauth/authorize")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_firefox_takes_the_code_to_a_loopback_client(stage: Stage, fox: Firefox, host: str):
    redirect = f"{stage.client_url}/callback".replace("127.0.0.1", host)
    at_consent(stage, fox, redirect, f"fox-{host}")
    fox.click(AUTHORIZE)
    fox.wait_for(f"{redirect}?")
    assert stage.client.answers[-1]["state"] == f"fox-{host}"
    assert stage.client.answers[-1]["code"]


def test_firefox_follows_a_client_that_sends_the_browser_on(stage: Stage, fox: Firefox):
    stage.client.onward = f"{stage.elsewhere_url}/done"
    at_consent(stage, fox, f"{stage.client_url}/hop", "fox-hop")
    fox.click(AUTHORIZE)
    fox.wait_for(f"{stage.elsewhere_url}/done")
    assert stage.client.answers[-1]["state"] == "fox-hop"


def test_firefox_reaches_a_client_that_goes_on_to_a_private_scheme(stage: Stage, fox: Firefox):
    """Nothing here takes the scheme, but the code has arrived by then."""
    stage.client.onward = "claude://done"
    at_consent(stage, fox, f"{stage.client_url}/hop", "fox-onward")
    fox.click(AUTHORIZE)
    deadline = time.monotonic() + 20
    while stage.client.answers[-1]["state"] != "fox-onward":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert stage.client.answers[-1]["code"]


def test_firefox_hands_the_code_to_a_client_with_a_scheme_of_its_own(stage: Stage, fox: Firefox):
    at_consent(stage, fox, CURSOR, "fox-scheme")
    fox.click(AUTHORIZE)
    address = fox.handed_over()
    assert address.startswith(f"{CURSOR}?")
    answer = parse_qs(urlsplit(address).query)
    assert (answer["state"], answer["iss"]) == (["fox-scheme"], [stage.url])
    assert answer["code"]


def test_firefox_loads_nothing_from_elsewhere_and_runs_the_pages_scripts(
    stage: Stage, fox: Firefox
):
    at_consent(stage, fox, f"{stage.client_url}/callback", "fox-policy")
    loaded = fox.script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded
    assert all(address.startswith(stage.url) for address in loaded), loaded


def attempted(fox: Firefox) -> str:
    """Return where Firefox wanted to go when it shows its own page about not getting there."""
    address = urlsplit(fox.wait_for("about:neterror"))
    return parse_qs(address.query)["u"][0]


def test_firefox_takes_the_code_to_a_web_client(stage: Stage, fox: Firefox):
    """There is no network here: the browser says where it could not go."""
    fox.open(stage.authorize_url(CHATGPT_ID, CHATGPT_REDIRECT, "harbour", "fox-web"))
    if "/accounts/login/" in fox.url:
        fox.fill("input[name=login]", "lea")
        fox.fill("input[name=password]", PASSWORD)
        fox.click("form button[type=submit]")
        fox.wait_for(f"{stage.url}/oauth/authorize")
    with contextlib.suppress(Refused):
        fox.click(AUTHORIZE)
    wanted = attempted(fox)
    assert wanted.startswith(f"{CHATGPT_REDIRECT}?")
    assert parse_qs(urlsplit(wanted).query)["state"] == ["fox-web"]
    assert parse_qs(urlsplit(wanted).query)["code"]


def test_firefox_tells_a_client_that_the_person_said_no(stage: Stage, fox: Firefox):
    redirect = f"{stage.client_url}/callback"
    at_consent(stage, fox, redirect, "fox-no")
    fox.click("button[name=deny]")
    fox.wait_for(f"{redirect}?")
    assert stage.client.answers[-1]["error"] == "access_denied"


@pytest.fixture(scope="module")
def administrator(stage: Stage, fox: Firefox) -> Firefox:
    """Sign an administrator in, on a narrow screen."""
    fox.command("WebDriver:SetWindowRect", {"width": 500, "height": 900})
    fox.open(f"{stage.url}/accounts/login/")
    fox.command("WebDriver:DeleteAllCookies")
    fox.open(f"{stage.url}/accounts/login/?next=/connections/")
    fox.fill("input[name=login]", "maria")
    fox.fill("input[name=password]", PASSWORD)
    fox.click("form button[type=submit]")
    fox.wait_for(f"{stage.url}/connections/")
    return fox


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/servers/workspace/",
        "/connections/",
        "/connect/board/",
        "/accounts/sessions/",
        "/accounts/2fa/",
        "/admin/",
        "/admin/upstreams/upstream/add/",
        "/admin/virtualmcp/virtualmcp/add/",
        "/admin/socialaccount/socialapp/add/",
    ],
)
def test_firefox_shows_every_kind_of_page_on_a_narrow_screen(
    stage: Stage, administrator: Firefox, place: str
):
    fox = administrator
    fox.open(f"{stage.url}{place}")
    assert fox.url == f"{stage.url}{place}"
    assert fox.script("return document.querySelectorAll('h1').length") == 1
    wide, room = fox.script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    assert wide <= room
