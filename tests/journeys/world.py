"""The gateway and the upstreams that the journeys share: started once per test process.

People are handed out one by one, so that no test sees what another connected.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gateway_site.demo.board_authorization import BoardAuthorization
from gateway_site.demo.board_store import BoardStore
from tests.fakes.asgi_server import free_port, serve
from tests.fakes.browser import Browser, walk_consent
from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.journeys.chatgpt_client import STABLE_REDIRECT
from tests.journeys.wire_client import WireClient
from tests.running_gateway import RunningGateway, running_gateway

# The feed tells a change within a second; a node without it would notice after half a minute.
PATIENCE = 20.0
PASSWORD = "correct horse battery 7"
PEOPLE = tuple(f"person{number:02}" for number in range(1, 91))
# Hashing ninety passwords would take longer than the tests.
SAME_PASSWORD_FOR_ALL = (
    "from django.contrib.auth.models import User; "
    f"User.objects.update(password=User.objects.get(username='{PEOPLE[0]}').password)"
)
USER_KEY = "key-of-a-person"
# The addresses at which a person's browser stops: the redirects of every client of the tests.
STOPS = (
    "http://127.0.0.1:33418/",
    "http://127.0.0.1/callback",
    "http://localhost:",
    STABLE_REDIRECT,
    "https://chatgpt.com/connector/oauth/",
)


def within(seconds: float, holds: Callable[[], bool]) -> float:
    """Return after how many seconds ``holds()`` came true; fails when it did not."""
    since = time.monotonic()
    while not holds():
        assert time.monotonic() - since < seconds, f"not after {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - since


@dataclass
class Person:
    """Somebody with an account at the gateway and a browser."""

    username: str
    gateway: RunningGateway
    browser: Browser
    gone: bool = False

    def authorize(self, url: str) -> str:
        """Walk from the authorization address to the redirect; "" once the person has gone."""
        if self.gone:
            return ""
        return walk_consent(self.browser, url, self.username, PASSWORD, key=USER_KEY)

    def open_signed_in(self, url: str) -> None:
        """Open a page of the gateway, signing in on the way."""
        page = self.browser.open(url)
        if any(form.field_of_kind("password") for form in page.forms):
            self.browser.sign_in(self.username, PASSWORD)

    def revoke_client(self) -> None:
        """Take back what was authorized, on the connections page."""
        self.open_signed_in(f"{self.gateway.url}/connections/")
        self.browser.press("Revoke")

    def connect(self, link: str) -> None:
        """Follow a connect link to its end."""
        walk_consent(
            self.browser,
            link,
            self.username,
            PASSWORD,
            key=USER_KEY,
            until="Go back to your assistant",
        )

    def client_of(self, slug: str, *, era: str = "modern") -> WireClient:
        """Return a client of this person with tokens for ``slug``."""
        client = WireClient(self.gateway.endpoint(slug), era=era)
        client.discover()
        client.register()
        client.exchange(self.authorize(client.authorize_url()))
        if era == "legacy":
            client.initialize()
        return client


@dataclass
class World:
    """Everything a journey meets; ``guarded`` asks for OAuth, ``keyed`` for a person's own key."""

    gateway: RunningGateway
    modern: FakeUpstream
    legacy: FakeUpstream
    guarded: FakeUpstream
    keyed: FakeUpstream
    configuration: dict[str, Any]
    free: list[str] = field(default_factory=lambda: list(reversed(PEOPLE)))

    def add_upstream(self, slug: str, key: str) -> None:
        """Have an administrator put one more upstream behind ``slug``."""
        before = next(one for one in self.configuration["virtual_mcps"] if one["slug"] == slug)
        before["upstreams"].append({"upstream": key})
        self.gateway.apply(self.configuration)

    @staticmethod
    def answer_once(upstream: FakeUpstream, body: bytes, content_type: str) -> None:
        """Have the next request upstream answered with exactly this."""
        upstream.script.append(Canned(body=body, headers={"content-type": content_type}))

    def person(self) -> Person:
        """Return somebody whom no test has met, at an address of their own.

        Sign-ins are limited by address, and ninety people are not at one.
        """
        name = self.free.pop()
        address = f"198.51.100.{PEOPLE.index(name) + 1}"
        return Person(name, self.gateway, Browser(STOPS, address=address))


def _configuration(addresses: dict[str, str]) -> dict[str, Any]:
    kinds = {"guarded": "user_oauth", "keyed": "user_key"}
    eras = {"modern": "modern", "legacy": "legacy"}
    servers = {
        "modern-alone": ["modern"],
        "legacy-alone": ["legacy"],
        "guarded-alone": ["guarded"],
        "keyed-alone": ["keyed"],
        "team": ["modern", "legacy", "guarded"],
        "partly": ["modern", "dead", "legacy"],
        "growing": ["modern"],
        "asking": ["modern", "legacy"],
        "stepping": ["modern"],
    }
    return {
        "upstreams": [
            {
                "key": key,
                "title": key.title(),
                "url": url,
                "era": eras.get(key, "auto"),
                "credential": kinds.get(key, "none"),
            }
            for key, url in addresses.items()
        ],
        "virtual_mcps": [
            {
                "slug": slug,
                "title": slug.replace("-", " ").title(),
                "audience": "everyone",
                "step_up": slug == "stepping",
                "upstreams": [_choice(slug, key) for key in keys],
            }
            for slug, keys in servers.items()
        ],
        "users": [
            {"username": PEOPLE[0], "password": "env:PASSWORD_OF_THE_FIRST"},
            *({"username": name} for name in PEOPLE[1:]),
        ],
    }


def _choice(slug: str, key: str) -> dict[str, Any]:
    may_ask = slug == "asking"
    return {"upstream": key, "required": slug != "team", "sampling": may_ask, "roots": may_ask}


class Guarded:
    """A fake upstream behind the demo's authorization server."""

    def __init__(self, upstream: FakeUpstream, folder: Path) -> None:
        self._upstream = upstream
        self._folder = folder
        self._store: BoardStore | None = None
        self._authorization: BoardAuthorization | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._store is None:
            origin = f"http://{scope['server'][0]}:{scope['server'][1]}"
            self._store = BoardStore(self._folder / "accounts.sqlite3")
            self._authorization = BoardAuthorization(self._store, origin)
        assert self._authorization is not None
        route = self._authorization.routes.get((scope["method"], scope["path"]))
        if route is not None:
            await route(scope, receive, send)
            return
        headers = dict(scope["headers"])
        token = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        if scope["path"] == "/mcp" and token and self._store.person_of(token):
            await self._upstream(scope, receive, send)
            return
        challenge = self._authorization.challenge("invalid_token" if token else "").encode()
        start = {"type": "http.response.start", "headers": [(b"www-authenticate", challenge)]}
        await send({**start, "status": 401})
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def running_world() -> Iterator[World]:
    """Run the gateway and every upstream until the block ends."""
    keyed = FakeUpstream(era="dual", name="keyed", tokens={USER_KEY})
    guarded = FakeUpstream(era="dual", name="guarded")
    with (
        FakeUpstream(era="modern", name="modern").serve() as modern,
        FakeUpstream(era="legacy", name="legacy").serve() as legacy,
        keyed.serve(),
        TemporaryDirectory(prefix="guarded-") as folder,
        serve(Guarded(guarded, Path(folder))) as guarded_url,
    ):
        guarded.base_url = guarded_url
        configuration = _configuration(
            {
                "modern": modern.url,
                "legacy": legacy.url,
                "guarded": guarded.url,
                "keyed": keyed.url,
                "dead": f"http://127.0.0.1:{free_port()}/mcp",
            }
        )
        environment = {"PASSWORD_OF_THE_FIRST": PASSWORD, "TRUSTED_PROXY": "127.0.0.1/32"}
        with running_gateway(configuration, environment=environment) as gateway:
            gateway.manage("shell", "-v", "0", "-c", SAME_PASSWORD_FOR_ALL)
            yield World(gateway, modern, legacy, guarded, keyed, configuration)
