"""Every page that people meet, in each of its states, in narrow light and in wide dark."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import look_at
from tests.browser.stage import CHATGPT_ID, CHATGPT_REDIRECT, Stage
from tests.browser.test_connection_pages import end_account, lab, link_of

BREAK = "from django.db import connection as c\nc.cursor().execute('ALTER TABLE {} RENAME TO {}')"


class Walk:
    """Somebody who goes from page to page and writes down what is wrong."""

    def __init__(self, stage: Stage, chair: Any) -> None:
        self.stage, self.chair = stage, chair
        self.page: Page = chair.page()
        self.found: list[str] = []

    def look(self, name: str, title: str) -> None:
        """Look at the page that is open; ``title`` is its first heading."""
        expect(self.page.get_by_role("heading", level=1)).to_contain_text(title)
        self.found += look_at(self.chair, self.page, f"people-{name}")

    def at(self, address: str, name: str, title: str) -> None:
        """Open a page and look at it."""
        base = "" if address.startswith("http") else self.stage.url
        self.page.goto(base + address)
        self.look(name, title)


@pytest.fixture
def walk(stage: Stage, seat: Any) -> Any:
    """A walk that nobody is signed in for yet; it fails for what it found."""
    going = Walk(stage, seat())
    yield going
    assert not going.found, "\n".join(going.found)


def run(stage: Stage, code: str) -> None:
    stage.gateway.manage("shell", "-v", "0", "-c", code)


def test_pages_before_signing_in(stage: Stage, walk: Walk):
    walk.at("/v1/mcp/workspace", "asked-to-sign-in", "Sign in")
    walk.page.get_by_label("Username or e-mail address").fill("nobody")
    walk.page.get_by_label("Password").fill("wrong")
    walk.page.get_by_role("button", name="Sign in", exact=True).click()
    expect(walk.page.get_by_role("alert")).to_be_visible()
    walk.look("wrong-password", "Sign in")
    walk.at("/accounts/inactive/", "inactive", "This account is switched off")
    walk.at("/accounts/signup/", "no-sign-up", "Accounts are made by your administrator")
    walk.at("/accounts/3rdparty/login/cancelled/", "provider-cancelled", "Sign-in cancelled")
    walk.at("/accounts/3rdparty/login/error/", "provider-failed", "Sign-in did not work")
    walk.at("/nowhere", "not-found", "There is nothing here")
    form = "<form method=post action={}/accounts/login/><button>Send</button></form>"
    walk.page.set_content(form.format(stage.url))
    walk.page.get_by_role("button").click()
    walk.look("stale-form", "This form is no longer valid")


def test_pages_of_a_new_person(stage: Stage, walk: Walk):
    name = stage.person()
    page = walk.page
    page.goto(f"{stage.url}/v1/mcp/workspace")
    walk.chair.sign_in(page, name)
    walk.look("address-opened", "Workspace")
    walk.at("/", "catalogue", "Catalogue")
    walk.at("/connections/", "connections-empty", "Connections")
    walk.at("/connect/board/", "connect-account", "Connect Ticket board")
    page.get_by_role("button", name="Connect").click()
    page.get_by_role("button", name="Deny").click()
    walk.look("connect-declined", "You declined")
    walk.at("/connect/callback?state=unknown&code=x", "connect-lost", "Not connected")
    walk.at("/connect/parcels/", "connect-key", "Connect Parcel service")
    page.get_by_label("Your key for Parcel service").fill("wrong")
    page.get_by_role("button", name="Save key").click()
    expect(page.locator(".notice-error")).to_be_visible()
    walk.look("connect-key-refused", "Connect Parcel service")
    walk.at("/connect/board/?for=1.not-mine", "connect-others-link", "This link is not for you")
    walk.at("/connect/board/connected/", "connect-not-yet", "Ticket board is not connected")
    walk.at("/accounts/sessions/", "sessions", "Where you are signed in")
    walk.at("/accounts/password/change/", "password", "Change")
    walk.at("/accounts/2fa/", "second-factor", "Second factor")
    walk.at("/accounts/logout/", "sign-out", "Sign out?")
    walk.at("/oauth/authorize?client_id=x", "bad-client", "This connection cannot be made")
    walk.at("/admin/", "not-an-administrator", "You do not have access to this")


def test_consent_in_each_of_its_states(stage: Stage, walk: Walk):
    name = stage.person()
    lab(stage, name)
    page = walk.page
    redirect = f"{stage.client_url}/callback"
    chatgpt = stage.authorize_url(CHATGPT_ID, CHATGPT_REDIRECT)
    editor = stage.register("Editor", redirect)
    web = stage.register("A web client", "https://assistant.example/callback")
    page.goto(chatgpt)
    walk.look("sign-in-for-a-client", "Sign in")
    walk.chair.sign_in(page, name)
    wants = "wants to use Workspace as you"
    walk.look("consent-first", wants)
    walk.at(stage.authorize_url(editor, redirect), "consent-loopback", wants)
    walk.at(
        stage.authorize_url(web, "https://assistant.example/callback"), "consent-unverified", wants
    )
    nowhere = stage.authorize_url(editor, redirect).partition("&resource=")[0]
    walk.at(nowhere, "consent-which-server", "Which server should Editor use?")
    page.goto(stage.authorize_url(editor, redirect))
    page.get_by_role("button", name="Connect Ticket board").click()
    page.get_by_label("Your name on the board").fill("Guest")
    page.get_by_role("button", name="Allow").click()
    walk.look("consent-connected", wants)
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url(f"{redirect}?**")
    walk.at(stage.authorize_url(editor, redirect), "consent-again", wants)
    walk.at("/connections/", "connections", "Connections")
    end_account(stage, name)
    walk.at(stage.authorize_url(editor, redirect), "consent-reconnect", wants)
    walk.at("/connections/", "connections-reconnect", "Connections")
    lab_asks = stage.authorize_url(editor, redirect, "lab")
    walk.at(lab_asks, "consent-lab", "wants to use Lab as you")
    page.get_by_role("button", name="Connect Archive").click()
    walk.look("connect-failed", "Archive could not be connected")
    off = "from upstreams.models import Upstream as U\nU.objects.filter(key='archive').update({})"
    run(stage, off.format("enabled=False"))
    try:
        walk.at(lab_asks, "consent-not-available", "wants to use Lab as you")
    finally:
        run(stage, off.format("enabled=True"))


def test_a_client_that_waits_for_an_administrator(stage: Stage, walk: Walk):
    redirect = "https://waiting.example/callback"
    client = stage.register("Waiting client", redirect)
    policy = (
        "from oauthserver.models import ClientPolicy as P\n"
        "p, _ = P.objects.get_or_create(pk=1)\n"
        "p.registration = {!r}\np.save()\n"
        "from oauthserver.models import OAuthClient as C\n"
        "C.objects.filter(client_id={!r}).update(review={!r})"
    )
    walk.page.goto(f"{stage.url}/accounts/login/?next=/connections/")
    walk.chair.sign_in(walk.page, "tom")
    expect(walk.page.get_by_role("heading", level=1)).to_have_text("Connections")
    asked = stage.authorize_url(client, redirect)
    try:
        run(stage, policy.format("approval", client, "waiting"))
        walk.at(asked, "client-waits", "Waiting client has to be approved first")
        run(stage, policy.format("hosts", client, ""))
        walk.at(asked, "client-not-admitted", "Waiting client is not allowed here")
        run(stage, policy.format("open", client, "refused"))
        walk.at(asked, "client-refused", "This connection cannot be made")
    finally:
        run(stage, policy.format("open", client, ""))


def test_pages_of_faults_and_limits(stage: Stage, walk: Walk):
    page = walk.page
    page.goto(f"{stage.url}/accounts/login/?next=/connections/")
    walk.chair.sign_in(page, "sam")
    expect(page.get_by_role("heading", level=1)).to_have_text("Connections")
    tables = ("consent_consentrecord", "consent_consentrecord_away")
    run(stage, BREAK.format(*tables))
    try:
        walk.at("/connections/", "fault", "The gateway ran into a problem")
    finally:
        run(stage, BREAK.format(*reversed(tables)))
    page.goto(f"{stage.url}/connections/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Connections")


def test_a_link_to_connect_ends_with_a_page_that_says_so(stage: Stage, walk: Walk):
    name = stage.person()
    walk.page.goto(link_of(stage, name))
    walk.chair.sign_in(walk.page, name)
    walk.page.get_by_role("button", name="Connect").click()
    walk.page.get_by_label("Your name on the board").fill("Guest")
    walk.page.get_by_role("button", name="Allow").click()
    walk.look("connected-by-link", "Ticket board is connected")
