"""People, clients and two resources, without any Virtual MCP."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from oauthserver import audience, bearer_tokens, consent_check, request_limits
from oauthserver.audience import Resource
from oauthserver.models import OAuthClient
from oauthserver.signals import audit
from tests.fakes.asgi_server import authority
from tests.oauthserver import addresses, flows
from tests.oauthserver.document_host import DocumentHost, document_host
from tests.oauthserver.flows import OTHER_RESOURCE, RESOURCE, Pkce

CALLBACK = "https://client.example/callback"


@dataclass
class Resources:
    """What exists and who may use it; tests change it."""

    known: dict[str, Resource] = field(default_factory=dict)
    barred: set[tuple[str, str]] = field(default_factory=set)

    def may_use(self, user: Any, resource: Resource) -> bool:
        return (user.get_username(), resource.uri) not in self.barred

    def all_for(self, user: Any) -> list[Resource]:
        return [known for known in self.known.values() if self.may_use(user, known)]


@pytest.fixture(autouse=True)
def resources(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    made = Resources(
        {
            RESOURCE: Resource(RESOURCE, "tools", "Tools"),
            OTHER_RESOURCE: Resource(OTHER_RESOURCE, "other", "Other"),
        }
    )
    monkeypatch.setattr(audience, "_lookup", None)
    monkeypatch.setattr(consent_check, "_rule", None)
    # Counting starts anew every five minutes; no test may fall across that moment.
    monkeypatch.setattr(request_limits, "WINDOW_SECONDS", 1_000_000_000)
    audience.register_resource_lookup(
        made.known.get, made.may_use, made.all_for, lambda: list(made.known.values())
    )
    cache.clear()
    bearer_tokens.forget()
    addresses.BarePage.not_yet = ""
    addresses.BarePage.said_yes = []
    yield made
    cache.clear()
    bearer_tokens.forget()


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """Collect what is said to the audit trail."""
    events: list[dict[str, Any]] = []

    def hear(sender: Any, **facts: Any) -> None:
        events.append(facts)

    audit.connect(hear)
    yield events
    audit.disconnect(hear)


@pytest.fixture
def alice(db: None) -> User:
    return User.objects.create_user("alice", "alice@example.com", "pw-of-alice")


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", "bob@example.com", "pw-of-bob")


@pytest.fixture
def browser(alice: User) -> Client:
    """Alice's browser, signed in."""
    made = Client()
    made.force_login(alice, "django.contrib.auth.backends.ModelBackend")
    return made


@pytest.fixture
def api() -> Client:
    """A program without cookies."""
    return Client()


def register(api: Client, **more: Any) -> dict[str, Any]:
    """Register a public client and return the answer."""
    document = {
        "client_name": "Test client",
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        **more,
    }
    answer = api.post("/oauth/register", document, content_type="application/json")
    assert answer.status_code == 201, answer.content
    return answer.json()


@pytest.fixture
def public(db: None, api: Client) -> OAuthClient:
    """A self-registered client without a secret."""
    return OAuthClient.objects.get(client_id=register(api)["client_id"])


@dataclass
class Session:
    """A signed-in client with its first tokens."""

    client_id: str
    tokens: dict[str, Any]
    code: str
    pkce: Pkce


@pytest.fixture
def session(browser: Client, api: Client, public: OAuthClient) -> Session:
    pkce = Pkce()
    code = flows.code_for(browser, public.client_id, CALLBACK, pkce)
    answer = flows.redeem(api, public.client_id, CALLBACK, code, pkce)
    assert answer.status_code == 200, answer.content
    return Session(public.client_id, answer.json(), code, pkce)


@pytest.fixture
def session_async(transactional_db: None, session: Session) -> Session:
    """A session whose rows other threads see."""
    return session


@pytest.fixture(scope="session")
def running_host() -> Iterator[DocumentHost]:
    with document_host() as made:
        yield made


@pytest.fixture
def host(running_host: DocumentHost, settings: Any) -> DocumentHost:
    """A host of client documents whose certificate the gateway trusts; nothing published."""
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)
    settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA = True
    running_host.pages.clear()
    running_host.asked.clear()
    return running_host
