"""What attackers try at the consent page, and what every page of the way gives away (4D, 4E)."""

import html
import re
from http.cookies import Morsel
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from django.test import Client
from oauth2_provider.models import get_grant_model

from consent.models import ConsentRecord
from oauthserver.models import OAuthClient
from tests.consent.people_and_servers import (
    REDIRECT,
    authorize_address,
    browser_of,
    connect,
    oauth_client,
    person,
    resource,
    server,
    upstream,
)
from tests.consent.test_consent_page import answer, codes, text_of, ticket_on
from tests.oauthserver import flows
from tests.oauthserver.flows import Pkce
from upstreams.models import CredentialKind, UpstreamAccount
from virtualmcp.models import ToolDefinition

pytestmark = pytest.mark.django_db
KEY = CredentialKind.USER_KEY
ELSEWHERE = "https://chat.example/other"


UNLIKE: list[dict[str, str]] = [
    {},
    {"resource": "other"},
    {"redirect_uri": ELSEWHERE},
    {"scope": "mcp:tools mcp:tools.write"},
]


@pytest.mark.parametrize(
    "demand",
    [
        {"approval_prompt": "auto"},
        {"approval_prompt": "force"},
        {"prompt": "none"},
        {"prompt": "none", "max_age": "99999"},
        {"prompt": "none", "login_hint": "maria@example.com"},
        {"prompt": "none", "id_token_hint": "eyJhbGciOiJub25lIn0.e30."},
        {"prompt": ""},
        {"skip": "1"},
        {"allow": "yes"},
        {"transaction": "x", "allow": "yes"},
        {"login_hint": "maria@example.com"},
        {"id_token_hint": "eyJhbGciOiJub25lIn0.e30."},
        {"max_age": "0"},
        {"max_age": "0", "approval_prompt": "auto"},
        {"prompt": "login", "approval_prompt": "auto"},
    ],
    ids=urlencode,
)
def test_56_an_older_yes_and_no_demand_together_give_a_code(demand: dict[str, str]) -> None:
    server("workspace", (upstream("wiki"), True), step_up=True)
    server("other", (upstream("notes"), True))
    maria, client = person(), oauth_client(redirect=f"{REDIRECT} {ELSEWHERE}")
    assert answer(browser_of(maria), authorize_address(client, "workspace")).status_code == 302
    for unlike in UNLIKE:
        slug = unlike.get("resource", "workspace")
        more = {name: value for name, value in unlike.items() if name != "resource"}
        given = browser_of(maria).get(authorize_address(client, slug, **more, **demand))
        assert codes() == 1
        if given.status_code == 200:
            assert b"Authorize" in given.content
            continue
        there = urlsplit(given["Location"])
        if there.path != "/accounts/login/":
            said = parse_qs(there.query)
            assert "code" not in said
            assert said["error"][0] in ("consent_required", "login_required")


def sign_in(browser: Client, address: str) -> Any:
    form = {"login": "maria", "password": "correct-horse", "next": address}
    return browser.post("/accounts/login/", form)


def test_62_a_session_planted_before_sign_in_opens_nothing_afterwards() -> None:
    person()
    server("workspace", (upstream("wiki"), True))
    client = oauth_client()
    for demand in ({}, {"prompt": "login"}):
        address = authorize_address(client, "workspace", **demand)
        attacker, victim = Client(), Client()
        # The attacker begins the request in a session of theirs and plants it with all cookies.
        assert attacker.get(address).status_code == 302
        attacker.get("/accounts/login/")
        planted = attacker.session
        planted["planted"] = True
        planted.save()
        for name, cookie in attacker.cookies.items():
            victim.cookies[name] = cookie.value
        assert victim.session.session_key == planted.session_key
        assert sign_in(victim, address)["Location"] == address
        assert victim.session.session_key != planted.session_key
        page = victim.get(address)
        # With the planted session nobody is signed in, and the victim's page is of no use.
        assert attacker.get("/connections/").status_code == 302
        assert attacker.get(address).status_code == 302
        stolen = {"transaction": ticket_on(page), "allow": "yes"}
        assert attacker.post(address, stolen)["Location"].startswith("/accounts/login/")
        assert sign_in(attacker, address).status_code == 302
        assert attacker.get(address).status_code == 200
        assert attacker.post(address, stolen).status_code == 400
        assert codes() == 0
        # To the victim it is worth what it says.
        assert "code" in parse_qs(urlsplit(answer(victim, address, page=page)["Location"]).query)
        ConsentRecord.objects.get().delete()
        get_grant_model().objects.all().delete()


def csrf_on(page: Any) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.content.decode())
    assert found
    return found[1]


def test_68_a_token_of_another_session_approves_nothing() -> None:
    server("workspace", (upstream("wiki"), True))
    address = authorize_address(oauth_client(), "workspace")
    victim = browser_of(person(), enforce_csrf_checks=True)
    attacker = browser_of(person("mallory"), enforce_csrf_checks=True)
    page, theirs = victim.get(address), attacker.get(address)
    form = {"transaction": ticket_on(page), "allow": "yes"}
    for wrong in (csrf_on(theirs), csrf_on(page)[:-1], "", "x" * 64):
        assert victim.post(address, form | {"csrfmiddlewaretoken": wrong}).status_code == 403
    own = form | {"csrfmiddlewaretoken": csrf_on(page)}
    for foreign in ("https://evil.example", "null", "http://localhost:8001"):
        assert victim.post(address, own, headers={"origin": foreign}).status_code == 403
    assert codes() == 0
    other = form | {"transaction": ticket_on(theirs), "csrfmiddlewaretoken": csrf_on(page)}
    assert victim.post(address, other).status_code == 400
    assert codes() == 0
    assert victim.post(address, own).status_code == 302


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-purpose": "prefetch;prerender", "purpose": "prefetch"},
        {"accept": "image/avif,image/webp", "sec-fetch-dest": "image"},
        {"x-http-method-override": "POST", "x-method-override": "POST"},
    ],
    ids=["a link", "a prefetch", "an image", "an override"],
)
def test_68_only_a_post_of_the_pages_own_form_approves(headers: dict[str, str]) -> None:
    server("workspace", (upstream("wiki"), True))
    address = authorize_address(oauth_client(), "workspace")
    browser = browser_of(person(), enforce_csrf_checks=True)
    page = browser.get(address)
    form = {"transaction": ticket_on(page), "allow": "yes", "csrfmiddlewaretoken": csrf_on(page)}
    stolen = f"{address}&{urlencode(form)}&_method=POST"
    assert browser.get(stolen, headers=headers).status_code == 200
    for method in ("head", "put", "patch", "delete", "options", "trace"):
        for where in (address, stolen):
            sent = browser.generic(method.upper(), where, urlencode(form), headers=headers)
            assert sent.status_code in (403, 405), method
    assert codes() == 0
    assert not ConsentRecord.objects.exists()
    assert browser.post(address, form).status_code == 302


def test_70_the_page_names_every_host_account_and_permission() -> None:
    maria, ledger = person(first_name="Maria"), upstream("ledger", KEY)
    board = upstream("board", CredentialKind.USER_OAUTH, oauth_scopes="tickets:read tickets:write")
    wiki = upstream("wiki", url="https://wiki.example:8443/mcp")
    server("workspace", (ledger, True), (board, False), (wiki, True))
    connect(maria, ledger)
    UpstreamAccount.objects.update(account_label="maria@ledger.example", scope="books:read")
    client = oauth_client("Chat", redirect="https://back.example:444/cb", source="cimd")
    read = text_of(browser_of(maria).get(authorize_address(client, "workspace")))
    for expected in (
        "Chat wants to use Workspace as you",
        "verified: chat.example",
        "Sends you back to back.example:444",
        "Signed in as Maria maria@example.com",
        "ledger.example",
        "Connected as maria@ledger.example",
        "Permissions given: books:read",
        "board.example",
        "Asks for: tickets:read tickets:write",
        "Not connected Optional",
        "wiki.example:8443",
        "Ready",
    ):
        assert expected in read, (expected, read)
    claims = oauth_client("Chat", redirect="https://back.example/cb")
    type(claims).objects.filter(pk=claims.pk).update(client_uri="https://bank.example/")
    read = text_of(browser_of(maria).get(authorize_address(claims, "workspace")))
    assert "Not verified" in read
    assert "says it belongs to bank.example; nobody has checked that" in read
    assert "back.example is where you came from" in read


HOSTILE = ("<svg/onload=alert(1)>", '"><script>alert(1)</script>', "{{7*7}}", "</title><b>x")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_73_tools_accounts_and_answers_are_shown_as_they_are(hostile: str) -> None:
    maria, ledger = person(), upstream("ledger", KEY)
    made = server("workspace", (ledger, True), step_up=True)
    connect(maria, ledger)
    UpstreamAccount.objects.update(account_label=hostile, scope=hostile.replace(" ", ""))
    for number, read_only in enumerate((True, False)):
        ToolDefinition.objects.create(
            virtual_mcp=made,
            upstream=ledger,
            subject="tool",
            name=f"{hostile}{number}",
            digest=str(number),
            state="approved",
            read_only=read_only,
        )
    browser, client = browser_of(maria), oauth_client()
    shown = 0
    for address in (
        authorize_address(client, "workspace", scope="mcp:tools.write"),
        "/servers/workspace/",
        "/connections/",
        "/connect/ledger/",
        f"/connect/callback?state=x&error={quote(hostile)}&error_description={quote(hostile)}",
        f"/oauth/authorize?client_id={quote(hostile)}&state={quote(hostile)}",
        f"/connect/{quote(hostile, safe='')}/",
        f"/servers/{quote(hostile, safe='')}/",
        f"/accounts/login/?next=/{quote(hostile)}&login_hint={quote(hostile)}",
    ):
        body = browser.get(address).content.decode()
        shown += hostile in html.unescape(body)
        if "<" in hostile:
            assert hostile not in body, address
        assert "alert(1)</script>" not in body
        assert ">49<" not in body
    assert shown >= 3


def cookies_of(*browsers: Client) -> dict[str, Morsel[str]]:
    return {name: cookie for browser in browsers for name, cookie in browser.cookies.items()}


@pytest.fixture
def over_tls(settings: Any) -> None:
    settings.SERVED_OVER_TLS = True
    settings.SESSION_COOKIE_NAME = "__Host-gateway-session"
    settings.CSRF_COOKIE_NAME = "__Host-gateway-csrf"
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True


def test_89_every_cookie_of_the_whole_way_is_bound_to_the_host(over_tls: None) -> None:
    maria = person()
    server("workspace", (upstream("ledger", KEY), False))
    client = oauth_client()
    browser = Client(enforce_csrf_checks=True)
    address = authorize_address(client, "workspace", prompt="login")
    browser.get(address)
    login = browser.get("/accounts/login/")
    form = {"login": "maria", "password": "correct-horse", "next": address}
    browser.post("/accounts/login/", form | {"csrfmiddlewaretoken": csrf_on(login)})
    page = browser.get(address)
    assert page.status_code == 200, page
    connect(maria, UpstreamAccount._meta.get_field("upstream").related_model.objects.get())
    token = {"csrfmiddlewaretoken": csrf_on(page)}
    # Something that is told on the next page.
    gone = browser.post("/connections/upstreams/ledger/disconnect", token)
    assert gone.status_code == 302
    kept = cookies_of(browser)
    assert len(kept) >= 4
    for name, cookie in kept.items():
        assert name.startswith("__Host-"), name
        assert cookie["secure"] and cookie["httponly"], name
        assert (cookie["samesite"], cookie["path"], cookie["domain"]) == ("Lax", "/", ""), name


def test_89_a_cookie_that_a_sibling_host_could_set_is_not_taken(over_tls: None) -> None:
    maria = browser_of(person())
    key = maria.cookies["__Host-gateway-session"].value
    assert maria.get("/connections/").status_code == 200
    for name in (
        "gateway-session",
        "sessionid",
        "__Secure-gateway-session",
        "Host-gateway-session",
    ):
        planted = Client()
        planted.cookies[name] = key
        assert planted.get("/connections/").status_code == 302, name
    server("workspace", (upstream("wiki"), True))
    address = authorize_address(oauth_client(), "workspace")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies["__Host-gateway-session"] = key
    page = strict.get(address)
    del strict.cookies["__Host-gateway-csrf"]
    form = {"transaction": ticket_on(page), "allow": "yes", "csrfmiddlewaretoken": "a" * 32}
    for name in ("gateway-csrf", "csrftoken", "__Secure-gateway-csrf"):
        strict.cookies[name] = "a" * 32
        assert strict.post(address, form).status_code == 403, name
    assert codes() == 0


def loaded_by(body: str) -> set[str]:
    """Return every address that a browser fetches or a link leads to."""
    found = re.findall(r'(?:src|href|action|srcset|poster|data|content)="([^"]+)"', body)
    found += re.findall(r"url\(([^)]+)\)", body)
    return {html.unescape(one) for one in found if "//" in html.unescape(one)}


@pytest.mark.django_db(transaction=True)
def test_65_every_page_of_the_way_keeps_to_itself() -> None:
    maria = person()
    board = upstream("board", CredentialKind.USER_OAUTH)
    server("workspace", (board, True))
    server("other", (upstream("notes"), True))
    client = oauth_client()
    type(client).objects.update(
        logo_uri="https://evil.example/logo.svg", client_uri="https://evil.example/"
    )
    browser, stranger = browser_of(maria), Client(headers={"accept": "text/html"})
    address = authorize_address(client, "workspace")
    pages = {
        "signed out": stranger.get(address),
        "sign-in": stranger.get("/accounts/login/?next=/connections/"),
        "consent": browser.get(address),
        "picker": browser.get(authorize_address(client)),
        "unknown client": browser.get(address.replace("client_id=", "client_id=x")),
        "wrong ticket": browser.post(address, {"transaction": "x", "allow": "yes"}),
        "connect": browser.get("/connect/board/"),
        "callback": browser.get("/connect/callback?state=x&code=y"),
        "callback, signed out": stranger.get("/connect/callback?state=x&code=y"),
        "link refused": browser.get("/connect/board/?for=1.x"),
        "connections": browser.get("/connections/"),
        "code": answer(browser, authorize_address(client, "other")),
    }
    assert pages["code"].status_code == 302
    for name, page in pages.items():
        assert "no-store" in page["Cache-Control"], name
        assert page["Referrer-Policy"] in ("no-referrer", "same-origin"), name
        assert page["X-Frame-Options"] == "DENY", name
        policy = page["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy, name
        assert "unsafe" not in policy and "http" not in policy, name
        inside = loaded_by(page.content.decode())
        assert not any(one.startswith(("http", "//")) for one in inside), (name, inside)


def test_22_a_client_that_changes_where_it_sends_people_asks_again() -> None:
    server("workspace", (upstream("wiki"), True))
    api, browser, pkce = Client(), browser_of(person()), Pkce()
    registered = {
        "redirect_uris": [REDIRECT],
        "client_name": "Chat",
        "token_endpoint_auth_method": "none",
    }
    made = api.post("/oauth/register", registered, content_type="application/json").json()
    client = OAuthClient.objects.get(client_id=made["client_id"])
    address = authorize_address(client, "workspace", code_challenge=pkce.challenge)
    code = flows.answer_of(answer(browser, address))["code"]
    target = resource("workspace")
    tokens = flows.redeem(api, client.client_id, REDIRECT, code, pkce, resource=target).json()
    evil = "https://evil.example/cb"
    changed = api.put(
        urlsplit(made["registration_client_uri"]).path,
        registered | {"client_id": client.client_id, "redirect_uris": [evil]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {made['registration_access_token']}"},
    )
    assert changed.status_code == 200
    refused = flows.refresh(api, client.client_id, tokens["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert "evil.example" in refused.json()["error_description"]
    assert browser.get(address).status_code == 400
    page = browser.get(address.replace(quote(REDIRECT, safe=""), quote(evil, safe="")))
    assert page.status_code == 200
    assert "may send you to other places now: evil.example" in text_of(page)
    assert codes() == 0
