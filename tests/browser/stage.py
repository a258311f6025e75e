"""What the browser tests walk through: a gateway, the demo's upstreams, a client's web server."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx

from gateway_site.demo import board, harbor, parcels
from gateway_site.demo.running import Options, parcels_key
from tests.fakes.asgi_server import free_port, serve
from tests.running_gateway import RunningGateway, running_gateway

PASSWORD = "correct horse battery 7"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHATGPT_ID = "https://chatgpt.com/oauth/client.json"
CHATGPT_REDIRECT = "https://chatgpt.com/connector_platform_oauth_redirect"
PEOPLE = ("Maria Lindqvist", "Sam Okafor", "Ada Novak", "Jun Mori", "Lea Brandt", "Tom Reyes")
# A client that the gateway already knows by its metadata document; tests reach no internet.
KNOWN_CLIENT = f"""
from datetime import timedelta
from django.utils import timezone
from oauthserver.models import OAuthClient
OAuthClient.objects.create(
    client_id="{CHATGPT_ID}", name="ChatGPT", redirect_uris="{CHATGPT_REDIRECT}",
    registration_source="cimd", client_type="public",
    authorization_grant_type="authorization-code",
    cimd_expires_at=timezone.now() + timedelta(days=1),
    metadata={{"auth_methods": ["none"], "grant_types": ["authorization_code"]}},
)
"""


class Counted:
    """Any ASGI application, with the paths it was asked for.

    Made at the first request, in the thread that serves it: the demo's databases ask for that.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._application: Any = None
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.asked.append(f"{scope['method']} {scope['path']}")
        if self._application is None:
            self._application = self._make()
        await self._application(scope, receive, send)


class ClientSite:
    """A client's own web server: its callback, and a callback that sends the browser on."""

    def __init__(self) -> None:
        self.answers: list[dict[str, str]] = []
        self.onward = ""
        self.pages: dict[str, bytes] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        status, body = 200, self.pages.get(path, b"<!doctype html><title>Back</title>You are back")
        if path in ("/callback", "/hop"):
            query = parse_qs(scope["query_string"].decode())
            self.answers.append({name: values[0] for name, values in query.items()})
        if path == "/hop":
            status, headers = 302, [(b"location", self.onward.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Stage:
    """Everything a browser test needs to know."""

    gateway: RunningGateway
    board: Counted
    board_url: str
    client: ClientSite
    client_url: str
    elsewhere: ClientSite
    elsewhere_url: str
    api_key: str
    free: list[str] = field(default_factory=lambda: [n.split()[0].lower() for n in PEOPLE])

    @property
    def url(self) -> str:
        """The gateway's public address."""
        return self.gateway.url

    def person(self) -> str:
        """Return the user name of somebody who has connected nothing yet."""
        name = f"guest-{secrets.token_hex(4)}"
        self.gateway.manage("shell", "-v", "0", "-c", _add_person(name, "Guest"))
        return name

    def without_accounts(self, name: str) -> None:
        """Take from a person what other tests have connected for them."""
        self.gateway.manage(
            "shell",
            "-v",
            "0",
            "-c",
            "from upstreams.models import UpstreamAccount\n"
            f"UpstreamAccount.objects.filter(user__username={name!r}).delete()",
        )

    def register(self, name: str, *redirect_uris: str, **more: str) -> str:
        """Register a client as any program can; returns its client id."""
        answer = httpx.post(
            f"{self.url}/oauth/register",
            json={
                "client_name": name,
                "redirect_uris": list(redirect_uris),
                "token_endpoint_auth_method": "none",
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                **more,
            },
            trust_env=False,
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["client_id"])

    def token(self, client_id: str, redirect_uri: str, code: str, slug: str) -> str:
        """Exchange a code; returns the access token."""
        answer = httpx.post(
            f"{self.url}/oauth/token",
            data={
                "grant_type": "authorization_code",
                "client_id": client_id,
                "redirect_uri": redirect_uri,
                "code": code,
                "code_verifier": VERIFIER,
                "resource": self.gateway.endpoint(slug),
            },
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def call_status(self, token: str, slug: str) -> int:
        """Return the HTTP status of one MCP request with ``token``."""
        opening = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        }
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
        }
        url = self.gateway.endpoint(slug)
        return httpx.post(url, json=opening, headers=headers, trust_env=False).status_code

    def authorize_url(
        self, client_id: str, redirect_uri: str, slug: str = "workspace", state: str = "s-1"
    ) -> str:
        """Return the address a client opens in the browser."""
        asked = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": "mcp:tools",
            "state": state,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": self.gateway.endpoint(slug),
        }
        return f"{self.url}/oauth/authorize?{urlencode(asked)}"


def _add_person(username: str, first: str, last: str = "", *, administrator: bool = False) -> str:
    return (
        "from django.contrib.auth.models import User\n"
        "from django.contrib.auth.hashers import make_password\n"
        f"User.objects.create(username={username!r}, first_name={first!r}, last_name={last!r}, "
        f"email={username + '@example.com'!r}, is_staff={administrator}, "
        f"is_superuser={administrator}, password=make_password({PASSWORD!r}))\n"
    )


def _configuration(harbor_url: str, board_url: str, parcels_url: str) -> dict[str, Any]:
    return {
        "site": {"name": "Contoso Gateway", "support_contact": "it-help@example.com"},
        "upstreams": [
            {
                "key": "board",
                "title": "Ticket board",
                "description": "Small tickets, everybody their own",
                "url": f"{board_url}/mcp",
                "credential": "user_oauth",
                "oauth": {"scopes": ["tickets"]},
            },
            {
                "key": "harbor",
                "title": "Harbour office",
                "description": "Tides, berths and notices",
                "url": f"{harbor_url}/mcp",
                "credential": "none",
            },
            {
                "key": "parcels",
                "title": "Parcel service",
                "description": "Where a parcel is and what one costs",
                "url": f"{parcels_url}/mcp",
                "credential": "user_key",
                "name": "X-Api-Key",
                "prefix": "",
                "key_help": "Parcel service → Profile → API keys.",
            },
        ],
        "virtual_mcps": [
            {
                "slug": "workspace",
                "title": "Workspace",
                "description": "Tickets, the harbour and parcels behind one address.",
                "audience": "everyone",
                "upstreams": [
                    {"upstream": "board", "required": True},
                    {"upstream": "harbor", "required": True},
                    {"upstream": "parcels", "required": False},
                ],
            },
            {
                "slug": "harbour",
                "title": "Harbour",
                "description": "Tides, berths and notices to mariners.",
                "audience": "everyone",
                "upstreams": [{"upstream": "harbor", "required": True}],
            },
        ],
    }


@contextmanager
def running_stage() -> Iterator[Stage]:
    """Run everything until the block ends."""
    with ExitStack() as stack:
        data = Path(stack.enter_context(TemporaryDirectory(prefix="stage-")))
        ports = free_port(), free_port()
        counted = Counted(lambda: board.make(Options(ports[0], data)))
        board_url = stack.enter_context(serve(counted, port=ports[0]))
        parcels_app = Counted(lambda: parcels.make(Options(ports[1], data)))
        parcels_url = stack.enter_context(serve(parcels_app, port=ports[1]))
        harbor_url = stack.enter_context(serve(harbor.application))
        client, elsewhere = ClientSite(), ClientSite()
        client_url = stack.enter_context(serve(client))
        elsewhere_url = stack.enter_context(serve(elsewhere))
        configuration = _configuration(harbor_url, board_url, parcels_url)
        gateway = stack.enter_context(running_gateway(configuration))
        lines = [KNOWN_CLIENT]
        for number, full in enumerate(PEOPLE):
            first, last = full.split()
            lines.append(_add_person(first.lower(), first, last, administrator=number == 0))
        gateway.manage("shell", "-v", "0", "-c", "\n".join(lines))
        yield Stage(
            gateway,
            counted,
            board_url,
            client,
            client_url,
            elsewhere,
            elsewhere_url.replace("127.0.0.1", "localhost"),
            parcels_key(data),
        )
