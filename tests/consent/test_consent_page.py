"""The consent page as a person reads it, and what the server does with the answer."""

import html
import re
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client
from django.utils import timezone
from oauth2_provider.models import get_grant_model

from consent.models import ConsentRecord
from consent.signals import audit
from tests.consent.people_and_servers import (
    LOOPBACK,
    ORIGIN,
    authorize_address,
    browser_of,
    connect,
    oauth_client,
    person,
    resource,
    server,
    upstream,
)
from upstreams.models import CredentialKind

pytestmark = pytest.mark.django_db
KEY = CredentialKind.USER_KEY


def text_of(page: Any) -> str:
    """Return what a person reads: no tags, no hidden inputs."""
    without = re.sub(r"<(script|style|title)\b.*?</\1>|<[^>]+>", " ", page.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without))


def ticket_on(page: Any) -> str:
    found = re.search(r'name="transaction" value="([^"]+)"', page.content.decode())
    assert found
    return html.unescape(found[1])


def answer(browser: Client, address: str, *, page: Any = None, **data: str) -> Any:
    """Open the page, press Authorize (or what ``data`` says) and return the response."""
    page = page or browser.get(address)
    return browser.post(address, {"transaction": ticket_on(page), "allow": "yes"} | data)


def codes() -> int:
    return int(get_grant_model().objects.count())


@pytest.fixture
def told() -> Any:
    heard: list[dict[str, Any]] = []

    def listen(**event: Any) -> None:
        heard.append(event)

    audit.connect(listen)
    yield heard
    audit.disconnect(listen)


def test_page_says_who_asks_for_what_as_whom_and_where_the_answer_goes():
    maria = person(first_name="Maria", last_name="Lindqvist")
    tracker = upstream("tracker", CredentialKind.USER_OAUTH, oauth_scopes="issues:read")
    server("workspace", (tracker, True), (upstream("wiki"), True))
    client = oauth_client("Chat", source="cimd")
    read = text_of(browser_of(maria).get(authorize_address(client, "workspace")))
    for expected in (
        "Chat wants to use Workspace as you",
        "chat.example",
        "Maria Lindqvist",
        "Not you? Sign out",
        "Tracker",
        "tracker.example",
        "issues:read",
        "Not connected",
        "Wiki",
        "wiki.example",
        "Ready",
        "Connect Tracker first.",
    ):
        assert expected in read, expected
    assert "Not verified" not in read


def test_client_that_registered_itself_is_not_verified():
    server("workspace", (upstream("wiki"), True))
    read = text_of(browser_of(person()).get(authorize_address(oauth_client(), "workspace")))
    assert "Not verified" in read
    assert "nobody has checked that" in read
    assert "chat.example is where you came from" in read


def test_where_the_answer_goes_is_named_beside_who_asks():
    """(d7): another host than the client's own is seen to be another."""
    server("workspace", (upstream("wiki"), True))
    client = oauth_client("Chat", "https://elsewhere.example/callback", source="cimd")
    page = browser_of(person()).get(authorize_address(client, "workspace"))
    read = text_of(page)
    assert "verified: chat.example" in read
    assert "elsewhere.example" in read
    assert "A program on this computer" not in read


def test_client_on_this_computer_is_named_as_such():
    server("workspace", (upstream("wiki"), True))
    client = oauth_client("Editor", LOOPBACK)
    read = text_of(browser_of(person()).get(authorize_address(client, "workspace")))
    assert "A program on this computer is asking." in read
    assert "localhost:33418" in read


def test_connected_account_is_named_and_authorize_is_open():
    maria, ledger = person(), upstream("ledger", KEY)
    server("workspace", (ledger, True))
    connect(maria, ledger)
    page = browser_of(maria).get(authorize_address(oauth_client(), "workspace"))
    assert "Connected" in text_of(page)
    assert "disabled" not in page.content.decode()


def test_approval_before_required_upstreams_are_connected_is_refused_by_the_server():
    """security.md 83."""
    server("workspace", (upstream("ledger", KEY), True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    page = browser.get(address)
    assert "disabled" in page.content.decode()
    refused = answer(browser, address, page=page)
    assert refused.status_code == 409
    assert "Connect Ledger first." in text_of(refused)
    assert codes() == 0
    assert not ConsentRecord.objects.exists()


def test_optional_upstream_holds_up_nobody():
    server("workspace", (upstream("wiki"), True), (upstream("ledger", KEY), False))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    read = text_of(browser.get(address))
    assert "Optional" in read
    assert "You can skip this one" in read
    assert answer(browser, address).status_code == 302
    assert ConsentRecord.objects.get().upstreams == ["wiki"]


def test_switched_off_upstream_is_not_available_and_holds_up_nobody():
    off = upstream("ledger", KEY, enabled=False)
    server("workspace", (upstream("wiki"), True), (off, True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    read = text_of(browser.get(address))
    assert "Not available" in read
    assert "switched this off" in read
    assert answer(browser, address).status_code == 302


def test_upstream_that_only_an_administrator_can_repair_says_so():
    server("workspace", (upstream("mail", CredentialKind.FIXED), True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    read = text_of(browser.get(address))
    assert "Mail is required here but not available" in read
    assert answer(browser, address).status_code == 409


def test_yes_gives_a_code_and_leaves_a_record(told):
    maria, ledger = person(), upstream("ledger", KEY)
    server("workspace", (ledger, True))
    connect(maria, ledger)
    client = oauth_client()
    done = answer(browser_of(maria), authorize_address(client, "workspace"))
    assert done.status_code == 302
    target = urlsplit(done["Location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == client.redirect_uris
    given = parse_qs(target.query)
    assert given["state"] == ["state-of-the-client"]
    assert given["iss"] == [ORIGIN]
    assert given["code"]
    record = ConsentRecord.objects.get()
    assert (record.user, record.client, record.resource) == (maria, client, resource("workspace"))
    assert record.upstreams == ["ledger"]
    assert record.revoked_at is None
    event = next(e for e in told if e["kind"] == "consent.given")
    assert event["user"] == maria
    assert event["target"] == "workspace"
    assert event["details"]["redirect_host"] == "chat.example"


def test_no_tells_the_client_and_the_audit_trail(told):
    server("workspace", (upstream("wiki"), True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    page = browser.get(address)
    done = browser.post(address, {"transaction": ticket_on(page), "deny": "yes"})
    assert parse_qs(urlsplit(done["Location"]).query)["error"] == ["access_denied"]
    assert [e["kind"] for e in told] == ["consent.declined"]
    assert codes() == 0
    assert not ConsentRecord.objects.exists()


def test_earlier_yes_never_skips_the_page():
    """security.md 56 and 90: without a click there is no code."""
    server("workspace", (upstream("wiki"), True))
    browser, client = browser_of(person()), oauth_client()
    address = authorize_address(client, "workspace")
    assert answer(browser, address).status_code == 302
    for trick in ({}, {"approval_prompt": "auto"}, {"skip": "1"}, {"login_hint": "maria"}):
        assert browser.get(authorize_address(client, "workspace", **trick)).status_code == 200
    assert codes() == 1


def test_approval_needs_the_csrf_token():
    """security.md 68."""
    server("workspace", (upstream("wiki"), True))
    browser = browser_of(person(), enforce_csrf_checks=True)
    address = authorize_address(oauth_client(), "workspace")
    refused = answer(browser, address)
    assert refused.status_code == 403
    assert "This form is no longer valid" in text_of(refused)
    assert codes() == 0


def test_ticket_of_another_person_is_refused():
    """security.md 63 and 77: opened as Alice, sent as Bob in the same browser."""
    server("workspace", (upstream("wiki"), True))
    address = authorize_address(oauth_client(), "workspace")
    browser, bob = browser_of(person("alice")), person("bob")
    page = browser.get(address)
    browser.force_login(bob, backend="django.contrib.auth.backends.ModelBackend")
    assert answer(browser, address, page=page).status_code == 400
    assert codes() == 0


def test_ticket_from_another_browser_is_refused():
    """security.md 64."""
    server("workspace", (upstream("wiki"), True))
    maria, address = person(), authorize_address(oauth_client(), "workspace")
    page = browser_of(maria).get(address)
    assert answer(browser_of(maria), address, page=page).status_code == 400
    assert codes() == 0


def test_ticket_for_another_request_is_refused():
    server("workspace", (upstream("wiki"), True))
    server("other", (upstream("notes"), True))
    browser, client = browser_of(person()), oauth_client()
    page = browser.get(authorize_address(client, "workspace"))
    assert answer(browser, authorize_address(client, "other"), page=page).status_code == 400
    assert codes() == 0


@pytest.mark.parametrize("ticket", ["", "guess", "eyJhIjoxfQ:1:forged"])
def test_guessed_ticket_is_refused(ticket):
    server("workspace", (upstream("wiki"), True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    assert browser.post(address, {"transaction": ticket, "allow": "yes"}).status_code == 400
    assert codes() == 0


def test_ticket_ends_after_ten_minutes(monkeypatch):
    server("workspace", (upstream("wiki"), True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    page = browser.get(address)
    later = (timezone.now() + timedelta(minutes=11)).timestamp()
    monkeypatch.setattr("django.core.signing.time.time", lambda: later)
    assert answer(browser, address, page=page).status_code == 400
    assert codes() == 0


def test_ticket_counts_once():
    server("workspace", (upstream("wiki"), True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    page = browser.get(address)
    assert answer(browser, address, page=page).status_code == 302
    again = answer(browser, address, page=page)
    assert again.status_code == 400
    assert "used already" in text_of(again)
    assert codes() == 1


def test_session_that_existed_before_sign_in_is_not_kept():
    """security.md 62."""
    person()
    browser = Client()
    browser.get("/accounts/login/")
    session = browser.session
    session["planted"] = True
    session.save()
    planted = session.session_key
    browser.post("/accounts/login/", {"login": "maria", "password": "correct-horse"})
    assert browser.session.session_key != planted


@pytest.mark.parametrize("method", ["put", "delete", "patch", "head"])
def test_only_the_button_approves(method):
    server("workspace", (upstream("wiki"), True))
    browser, address = browser_of(person()), authorize_address(oauth_client(), "workspace")
    getattr(browser, method)(address + "&allow=yes")
    browser.get(address + "&allow=yes")
    assert codes() == 0


@pytest.mark.parametrize(
    "hostile",
    ["<svg/onload=alert(1)>", '"><script>alert(1)</script>', "{{7*7}}", "</title><b>x"],
)
def test_hostile_names_are_shown_as_they_are(hostile):
    """security.md 73."""
    bad = upstream("ledger", KEY, title=hostile, description=hostile, oauth_scopes=hostile)
    server("workspace", (bad, True), title=hostile, description=hostile)
    client = oauth_client(hostile)
    browser = browser_of(person(first_name=hostile))
    for address in (
        authorize_address(client, "workspace", state=hostile),
        "/",
        "/servers/workspace/",
        "/connections/",
    ):
        page = browser.get(address)
        assert page.status_code == 200
        body = page.content.decode()
        assert hostile in html.unescape(body)
        if "<" in hostile:
            assert hostile not in body
        assert "49" not in text_of(page)


def test_page_is_not_stored_framed_or_told_to_others():
    """security.md 65 and 67."""
    server("workspace", (upstream("wiki"), True))
    page = browser_of(person()).get(authorize_address(oauth_client(), "workspace"))
    assert "no-store" in page["Cache-Control"]
    assert page["X-Frame-Options"] == "DENY"
    # "no-referrer" would make browsers send "Origin: null", which the CSRF check refuses.
    assert page["Referrer-Policy"] == "same-origin"
    policy = page["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.get("Cross-Origin-Opener-Policy") != "same-origin"


def test_client_that_names_no_server_lets_the_person_choose():
    """protocol.md d13."""
    server("workspace", (upstream("wiki"), True))
    server("other", (upstream("notes"), True))
    browser, client = browser_of(person()), oauth_client()
    picker = browser.get(authorize_address(client))
    read = text_of(picker)
    assert "Which server should Chat use?" in read
    links = [
        html.unescape(a)
        for a in re.findall(r'href="(/oauth/authorize[^"]+)"', picker.content.decode())
    ]
    assert len(links) == 2
    chosen = next(link for link in links if "workspace" in link)
    assert "Chat wants to use Workspace as you" in text_of(browser.get(chosen))
    assert answer(browser, chosen).status_code == 302
    assert ConsentRecord.objects.get().virtual_mcp_slug == "workspace"


def test_choosing_can_be_declined(told):
    server("workspace", (upstream("wiki"), True))
    server("other", (upstream("notes"), True))
    browser, address = browser_of(person()), authorize_address(oauth_client())
    page = browser.get(address)
    done = browser.post(address, {"transaction": ticket_on(page), "deny": "yes"})
    assert parse_qs(urlsplit(done["Location"]).query)["error"] == ["access_denied"]
    assert [e["kind"] for e in told] == ["consent.declined"]


def test_server_this_person_may_not_use_is_refused_without_a_page():
    server("secret", (upstream("wiki"), True), audience="groups")
    done = browser_of(person()).get(authorize_address(oauth_client(), "secret"))
    assert parse_qs(urlsplit(done["Location"]).query)["error"] == ["access_denied"]


def test_connect_buttons_bring_the_person_back_to_this_very_request():
    tracker = upstream("tracker", CredentialKind.USER_OAUTH)
    server("workspace", (tracker, True))
    address = authorize_address(oauth_client(), "workspace")
    body = browser_of(person()).get(address).content.decode()
    form = re.search(r'<form method="post" action="/connect/tracker/">(.*?)</form>', body, re.S)
    assert form
    back = re.search(r'name="next" value="([^"]+)"', form[1])
    assert back
    assert html.unescape(back[1]) == address
    assert "csrfmiddlewaretoken" in form[1]


def test_signed_out_person_comes_back_after_signing_in():
    person()
    server("workspace", (upstream("wiki"), True))
    browser, address = Client(), authorize_address(oauth_client(), "workspace")
    asked = browser.get(address)
    assert asked.status_code == 302
    signed_in = browser.post(
        asked["Location"], {"login": "maria", "password": "correct-horse", "next": address}
    )
    assert signed_in["Location"] == address
    assert browser.get(address).status_code == 200
