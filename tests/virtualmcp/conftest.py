"""People, clients, tokens, Virtual MCPs and a gateway endpoint on a real socket."""

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from channels.routing import URLRouter
from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import cache
from django.urls import re_path
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from oauthserver import bearer_tokens
from oauthserver.models import OAuthClient
from oauthserver.token_values import new_access_token
from tests.fakes.asgi_server import serve
from tests.fakes.mcp_upstream import FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp.wire_client import WireClient
from upstreams import credentials, mcp_client
from upstreams.models import Upstream
from virtualmcp import call_log, definition_pins, rate_limits, route_table, upstream_openings
from virtualmcp.eras import era_in, log_levels
from virtualmcp.models import UpstreamChoice, VirtualMcp
from virtualmcp.routing import call_plans
from virtualmcp.transport.endpoint import McpEndpoint


@pytest.fixture(autouse=True)
def forget_everything() -> Iterator[None]:
    """Nothing that one test has put into this process's memory helps another."""

    def forget() -> None:
        cache.clear()
        bearer_tokens.forget()
        route_table.forget()
        credentials.forget()
        mcp_client.forget()
        upstream_openings.forget()
        definition_pins.forget()
        era_in.forget()
        log_levels.forget()
        call_plans.forget()
        call_log.call_log._queue.clear()
        # Tests of other rooms in this process may have served the whole site, which starts it.
        call_log.call_log.stop()
        rate_limits._in_flight.clear()

    forget()
    yield
    forget()


@pytest.fixture
def oauth_client(transactional_db: None) -> OAuthClient:
    """A registered client."""
    return OAuthClient.objects.create(
        client_id="client-1",
        name="A client",
        client_type="public",
        authorization_grant_type="authorization-code",
        redirect_uris="https://client.example/callback",
    )


@pytest.fixture
def ada(transactional_db: None) -> User:
    """A person."""
    return User.objects.create_user("ada")


@pytest.fixture
def bob(transactional_db: None) -> User:
    """Another person."""
    return User.objects.create_user("bob")


@pytest.fixture
def make_token(oauth_client: OAuthClient) -> Callable[..., str]:
    """Issue an access token: ``make_token(user, slug, seconds=3600, client=None)``."""

    def make(
        user: User, slug: str, *, seconds: float = 3600, client: OAuthClient | None = None
    ) -> str:
        token = new_access_token()
        get_access_token_model().objects.create(
            user=user,
            application=client or oauth_client,
            # The checksum it is found by is made from this when it is saved.
            token=token,
            expires=timezone.now() + datetime.timedelta(seconds=seconds),
            scope="mcp:tools",
            resource=[route_table.resource_of(slug)],
        )
        return token

    return make


@pytest.fixture
def make_virtual_mcp(transactional_db: None) -> Callable[..., VirtualMcp]:
    """Publish upstreams: ``make_virtual_mcp(slug, {key: url}, **fields of VirtualMcp)``."""

    def make(slug: str, urls: dict[str, str] | None = None, **more: Any) -> VirtualMcp:
        row = VirtualMcp.objects.create(
            slug=slug, title=slug.title(), **{"audience": "everyone", **more}
        )
        for position, (key, url) in enumerate((urls or {}).items()):
            upstream, _ = Upstream.objects.get_or_create(
                key=key, defaults={"title": key.title(), "url": url}
            )
            UpstreamChoice.objects.create(virtual_mcp=row, upstream=upstream, position=position)
        return row

    return make


@pytest.fixture
def endpoint() -> Any:
    """The application as the site mounts it."""
    mcp = McpEndpoint()
    return URLRouter(
        [
            re_path(r"^v1/mcp/(?P<slug>[^/]*)/?$", mcp),
            re_path(r"(?s)^v1/mcp(?:/.*)?$", mcp, {"slug": ""}),
        ]
    )


@pytest.fixture
def gateway(endpoint: Any, transactional_db: None) -> Iterator[str]:
    """Base URL of the endpoint, served by uvicorn."""
    with serve(endpoint) as base:
        yield base


@pytest.fixture
def http(gateway: str) -> Iterator[httpx.Client]:
    """A client that names the gateway's public host."""
    headers = {"host": settings.PUBLIC_HOST}
    with httpx.Client(base_url=gateway, headers=headers, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def wire(http: httpx.Client) -> Callable[[str, str], WireClient]:
    """Speak MCP by hand: ``wire(slug, token)``."""
    return lambda slug, token: WireClient(http, slug, token)


@pytest.fixture(params=("modern", "legacy"))
def upstream(request: pytest.FixtureRequest) -> Iterator[FakeUpstream]:
    """Run an upstream of each era."""
    with FakeUpstream(era=request.param).serve() as running:
        yield running


@pytest.fixture
def board(
    ada: User,
    upstream: FakeUpstream,
    make_virtual_mcp: Callable[..., VirtualMcp],
    make_token: Callable[..., str],
    wire: Callable[[str, str], WireClient],
) -> WireClient:
    """Return a client of a Virtual MCP over one upstream, with an open session."""
    make_virtual_mcp("board", {"fake": upstream.url})
    client = wire("board", make_token(ada, "board"))
    client.initialize()
    return client
