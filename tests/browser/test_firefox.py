"""Consent and its redirects in Firefox as well, which reads policies in its own way (#72)."""

import os
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.browser.firefox import Firefox, firefox
from tests.browser.stage import PASSWORD, Stage

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


def test_firefox_loads_nothing_from_elsewhere_and_runs_the_pages_scripts(
    stage: Stage, fox: Firefox
):
    at_consent(stage, fox, f"{stage.client_url}/callback", "fox-policy")
    loaded = fox.script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded
    assert all(address.startswith(stage.url) for address in loaded), loaded
