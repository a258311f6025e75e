"""Attacks on connecting, with two browsers and every part on real sockets (security.md 76-79).

The gateway is a process of its own. Each refusal must come without any request to the
authorization server's token endpoint, and leave no account for anybody.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.fakes.authorization_server import FakeAuthorizationServer
from tests.fakes.browser import Browser, Page
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.running_gateway import RunningGateway, running_gateway
from upstreams import connect_links

pytestmark = pytest.mark.timeout(120)
PASSWORD = "correct horse battery 7"
NAMES = ("mallory", "alice", "bob")


@dataclass
class Scene:
    """The gateway, two upstreams behind one authorization server, and people's browsers."""

    gateway: RunningGateway
    server: FakeAuthorizationServer
    upstream: ProtectedUpstream
    opened: list[Browser]

    def browser(self, name: str = "", *, stops: bool = False) -> Browser:
        """Open a browser; with a name that person signs in. ``stops``: it waits at the door of
        the callback, as if the person had closed the tab there."""
        door = (f"{self.gateway.url}/connect/callback",) if stops else ()
        browser = Browser(door)
        self.opened.append(browser)
        if name:
            browser.open(f"{self.gateway.url}/accounts/login/?next=/connections/")
            assert "Connections" in browser.sign_in(name, PASSWORD).text
        return browser

    def begin(self, browser: Browser, key: str = "wiki") -> Page:
        """Press Connect."""
        browser.open(f"{self.gateway.url}/connect/{key}/")
        return browser.press("Connect")

    def exchanges(self) -> int:
        """How many requests the token endpoint has seen."""
        return len(self.server.calls("/token"))

    def accounts(self) -> list[tuple[str, str]]:
        """Who has an account, as the database knows it."""
        return self.query(
            "select auth_user.username, upstreams_upstream.key from upstreams_upstreamaccount a "
            "join auth_user on auth_user.id = a.user_id "
            "join upstreams_upstream on upstreams_upstream.id = a.upstream_id"
        )

    def query(self, statement: str) -> list[tuple[str, str]]:
        """Ask the gateway's database."""
        with closing(sqlite3.connect(self.gateway.folder / "gateway.sqlite3", 20)) as database:
            found = database.execute(statement).fetchall()
            database.commit()
            return found

    def link(self, name: str, key: str = "wiki") -> str:
        """The link that this person's assistant is given."""
        [(number,)] = self.query(f"select id from auth_user where username = '{name}'")
        moment, secret = int(time.time()), self.gateway.environment["SECRET_KEY"]
        seal = connect_links._seal(int(number), key, moment, secret)
        return f"{self.gateway.url}/connect/{key}/?for={moment:x}.{seal}"


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    server = FakeAuthorizationServer()
    upstream = ProtectedUpstream(server)
    with server.serve(), upstream.serve():
        entry = {"url": upstream.url, "credential": "user_oauth"}
        configuration = {
            "upstreams": [
                {"key": "wiki", "title": "Wiki", **entry},
                {"key": "board", "title": "Board", **entry},
            ],
            "virtual_mcps": [
                {"slug": "team", "upstreams": ["wiki", "board"], "audience": "everyone"}
            ],
            "users": [{"username": name, "password": "env:PASSWORD"} for name in NAMES],
        }
        with running_gateway(configuration, environment={"PASSWORD": PASSWORD}) as gateway:
            yield Scene(gateway, server, upstream, [])


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    yield stage
    stage.server.decision = "approve"
    while stage.opened:
        stage.opened.pop().close()
    stage.query("delete from upstreams_upstreamaccount")


@pytest.fixture
def refused(scene: Scene) -> Iterator[Callable[[Page, str], None]]:
    """What every attack must end with."""
    before = scene.exchanges()

    def check(page: Page, words: str) -> None:
        assert page.status in (400, 403) and words in page.text, page.text
        assert scene.exchanges() == before
        assert scene.accounts() == []

    yield check
    assert scene.exchanges() == before


def test_76_a_victim_finishes_what_an_attacker_began(scene, refused) -> None:
    attacker = scene.browser("mallory", stops=True)
    bait = scene.begin(attacker).stopped_at
    victim = scene.browser("alice")
    refused(victim.open(bait), "Not connected")
    # Also a victim who has just begun a connect of their own, and so has a binding cookie.
    other = scene.browser("bob", stops=True)
    scene.begin(other)
    other.stops = ()
    refused(other.open(bait), "do not finish it")


def test_77_another_person_signs_in_before_the_answer_comes(scene, refused) -> None:
    browser = scene.browser("alice", stops=True)
    answer = scene.begin(browser).stopped_at
    browser.stops = ()
    browser.open(f"{scene.gateway.url}/connections/")
    browser.press("Sign out")
    browser.open(f"{scene.gateway.url}/accounts/login/?next=/connections/")
    browser.sign_in("bob", PASSWORD)
    refused(browser.open(answer), "begun by somebody else")


def test_78_an_attackers_own_account_is_forced_on_a_victim(scene, refused) -> None:
    """The victim would then write their notes into the attacker's wiki."""
    attacker = scene.browser("mallory", stops=True)
    code = scene.begin(attacker).stopped_at.partition("?")[2]
    victim = scene.browser("alice", stops=True)
    scene.begin(victim)
    victim.stops = ()
    refused(victim.open(f"{scene.gateway.url}/connect/callback?{code}"), "Not connected")


def test_78_an_attackers_code_with_the_victims_own_state_gives_no_account(scene) -> None:
    attacker = scene.browser("mallory", stops=True)
    stolen = scene.begin(attacker).stopped_at
    victim = scene.browser("alice", stops=True)
    own = scene.begin(victim).stopped_at
    victim.stops = ()
    code = stolen.partition("code=")[2].partition("&")[0]
    mine = own.partition("code=")[2].partition("&")[0]
    page = victim.open(own.replace(mine, code))
    assert "could not be connected" in page.text, page.text
    assert scene.accounts() == []


def test_79_an_answer_is_taken_once_and_only_by_its_own_upstream(scene) -> None:
    browser = scene.browser("alice", stops=True)
    answer = scene.begin(browser).stopped_at
    browser.stops = ()
    before = scene.exchanges()
    elsewhere = browser.open(answer.replace("/callback", "/callback/board"))
    assert elsewhere.status == 400 and scene.exchanges() == before
    assert "Wiki is connected" in browser.open(answer).text
    again = browser.open(answer)
    assert again.status == 400 and "already used" in again.text
    assert scene.exchanges() == before + 1
    assert scene.accounts() == [("alice", "wiki")]


def test_the_answer_comes_to_a_person_who_signed_out(scene, refused) -> None:
    browser = scene.browser("alice", stops=True)
    answer = scene.begin(browser).stopped_at
    browser.stops = ()
    browser.open(f"{scene.gateway.url}/connections/")
    browser.press("Sign out")
    refused(browser.open(answer), "not signed in")


def test_a_link_opened_by_somebody_else_asks_nobody_anything(scene, refused) -> None:
    link = scene.link("alice")
    seen = len(scene.server.requests), len(scene.upstream.fetched)
    page = scene.browser("mallory").open(link)
    refused(page, "This link is not for you")
    assert "mallory" in page.text and "Wiki" not in page.text
    assert (len(scene.server.requests), len(scene.upstream.fetched)) == seen


def test_a_link_that_is_cut_or_for_another_upstream_asks_nobody_anything(scene, refused) -> None:
    alice, link = scene.browser("alice"), scene.link("alice")
    seen = len(scene.server.requests), len(scene.upstream.fetched)
    for wrong in (link[:-1], link.replace("/wiki/", "/board/"), link.rpartition(".")[0]):
        refused(alice.open(wrong), "This link is not for you")
    assert (len(scene.server.requests), len(scene.upstream.fetched)) == seen


def test_a_person_follows_their_assistants_link_and_is_sent_back_to_it(scene) -> None:
    browser = scene.browser()
    browser.open(scene.link("alice"))
    page = browser.sign_in("alice", PASSWORD)
    assert "Connect Wiki" in page.text, page.text
    done = browser.press("Connect")
    assert "Go back to your assistant" in done.text and "Wiki is connected" in done.text
    assert "popup" not in done.html and "window.open" not in done.html
    assert scene.accounts() == [("alice", "wiki")]


def test_who_declines_can_begin_again_at_once(scene, refused) -> None:
    scene.server.decision = "deny"
    browser = scene.browser("alice")
    page = scene.begin(browser)
    refused(page, "You declined")
    assert page.find_link("Connect again") and page.find_link("Back")
