"""The gateway and the upstreams that the journeys share: started once per test process.

People are handed out one by one, so that no test sees what another connected.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.fakes.browser import Browser, walk_consent
from tests.fakes.mcp_upstream import FakeUpstream
from tests.journeys.chatgpt_client import STABLE_REDIRECT
from tests.journeys.wire_client import WireClient
from tests.running_gateway import RunningGateway

PASSWORD = "correct horse battery 7"
PEOPLE = tuple(f"person{number:02}" for number in range(1, 41))
USER_KEY = "key-of-a-person"
# The addresses at which a person's browser stops: the redirects of every client of the tests.
STOPS = (
    "http://127.0.0.1:33418/",
    "http://127.0.0.1/callback",
    STABLE_REDIRECT,
    "https://chatgpt.com/connector/oauth/",
)


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
    free: list[str] = field(default_factory=lambda: list(reversed(PEOPLE)))

    def person(self) -> Person:
        """Return somebody whom no test has met."""
        return Person(self.free.pop(), self.gateway, Browser(STOPS))


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
    }
    return {
        "upstreams": [
            {
                "key": key,
                "title": key.title(),
                "url": url,
                "era": eras.get(key, "auto"),
                "credential_kind": kinds.get(key, "none"),
            }
            for key, url in addresses.items()
        ],
        "virtual_mcps": [
            {
                "slug": slug,
                "title": slug.replace("-", " ").title(),
                "audience": "everyone",
                "upstreams": [{"key": key, "required": slug != "team"} for key in keys],
            }
            for slug, keys in servers.items()
        ],
        "users": [{"username": name, "password": PASSWORD} for name in PEOPLE],
    }
