"""Clients that people use, each with the habits that were seen in the wild (clients.md 2).

A habit is data; ``NamedClient`` goes through the whole flow with it: what it reads, how it becomes
a client, what it asks in the browser, how it asks for tokens, how it opens MCP.
"""

import base64
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.journeys.wire_client import WireClient
from tests.oauthserver.document_host import DocumentHost
from tests.oauthserver.real_documents import DOCUMENTS, REGISTRATIONS, at

# Where clients look for the authorization server's metadata; {path} is the endpoint's.
OAUTH_ROOT = "/.well-known/oauth-authorization-server"
OAUTH_WITH_PATH = "/.well-known/oauth-authorization-server{path}"
OPENID_ROOT = "/.well-known/openid-configuration"
OPENID_AFTER_PATH = "{path}/.well-known/openid-configuration"
EVERYWHERE = frozenset({"authorize", "token", "refresh"})


@dataclass(frozen=True)
class Habits:
    """How one client behaves.

    Attributes:
        redirect: the redirect URI it names in the browser; loopback ports differ from what it
            registered.
        document: the key of its metadata document, or "" for dynamic registration.
        registration: what it sends to register.
        looks: well-known addresses, all of which have to answer.
        resource: the requests in which it sends ``resource``.
        typed: what it makes of the endpoint's address as a ``resource``.
        scope: what it asks for.
        asks: further parameters of the authorization request.
        revision: the stateful revision it speaks, or "" for the stateless one.
        names_revision: whether it sends ``MCP-Protocol-Version`` once it has opened.
        probes: it asks for an event stream before it has a session.
    """

    name: str
    redirect: str
    document: str = ""
    registration: dict[str, Any] = field(default_factory=dict)
    looks: tuple[str, ...] = (OAUTH_ROOT,)
    resource: frozenset[str] = EVERYWHERE
    typed: str = "{endpoint}"
    scope: str = "mcp:tools"
    asks: dict[str, str] = field(default_factory=dict)
    revision: str = "2025-11-25"
    names_revision: bool = True
    probes: bool = False

    def __str__(self) -> str:
        return self.name


HABITS = [
    # Appends offline_access where it is listed; refreshes early; wants the new refresh token.
    Habits(
        "claude",
        "https://claude.ai/api/mcp/auth_callback",
        document="claude",
        looks=(OAUTH_WITH_PATH, OAUTH_ROOT),
        scope="mcp:tools offline_access",
    ),
    # Without documents it registers on each fresh connection (anthropics/claude-ai-mcp#1043); was
    # seen without the header that names the revision (anthropics/claude-ai-mcp#70).
    Habits(
        "claude-registered",
        "https://claude.ai/api/mcp/auth_callback",
        registration=REGISTRATIONS["claude"],
        scope="mcp:tools offline_access",
        names_revision=False,
    ),
    # Any port, localhost too; the document lists the redirect without one.
    Habits(
        "claude-code",
        "http://localhost:54545/callback",
        document="claude-code",
        looks=(OAUTH_WITH_PATH, OPENID_AFTER_PATH),
    ),
    Habits("claude-code-by-address", "http://127.0.0.1:54546/callback", document="claude-code"),
    # Its own scheme; three redirect URIs at once; no documents.
    Habits(
        "cursor",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        registration=REGISTRATIONS["cursor"],
        scope="",
    ),
    # The same registration, used by its agents on the web and by its command line.
    Habits(
        "cursor-agents",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        registration=REGISTRATIONS["cursor"],
        scope="",
    ),
    Habits(
        "cursor-command-line",
        "http://localhost:8787/callback",
        registration=REGISTRATIONS["cursor"],
        scope="",
    ),
    # Another port when 33418 is taken (microsoft/vscode#278512).
    Habits(
        "vs-code",
        "http://127.0.0.1:51999/",
        document="vs-code",
        looks=(OAUTH_WITH_PATH, OPENID_ROOT),
        revision="",
        probes=True,
    ),
    # The slash of an empty path came and went (microsoft/vscode#260446).
    Habits(
        "vs-code-registered",
        "http://127.0.0.1:51998",
        registration=REGISTRATIONS["vs-code"],
        probes=True,
    ),
    # What opens in the browser brings the answer back to the editor.
    Habits(
        "vs-code-by-redirect",
        "https://vscode.dev/redirect",
        registration=REGISTRATIONS["vs-code"],
    ),
    # Some versions name no resource (openai/codex#13891); checks iss.
    Habits(
        "codex",
        "http://127.0.0.1:38211/callback",
        document="codex",
        resource=frozenset(),
        scope="",
        revision="",
    ),
    # Where documents are switched off.
    Habits(
        "codex-registered",
        "http://localhost:38212/callback",
        registration={
            "client_name": "Codex",
            "redirect_uris": DOCUMENTS["codex"]["redirect_uris"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        },
        revision="",
    ),
    # Its document names a grant that is not offered here.
    Habits("kiro", "http://localhost:48001/oauth/callback", document="kiro"),
    # 2025-06-18; the resource is made from the server's address.
    Habits(
        "gemini-cli",
        "http://localhost:7777/oauth/callback",
        registration=REGISTRATIONS["gemini-cli"],
        scope="",
        revision="2025-06-18",
    ),
    # Reuses the client it cached with another port (mcp-remote #72).
    Habits(
        "mcp-remote",
        "http://localhost:49152/oauth/callback",
        registration=REGISTRATIONS["mcp-remote"],
        looks=(OAUTH_ROOT, OPENID_ROOT),
        scope="openid email profile",
        revision="2025-06-18",
    ),
    # Registers with scopes of OpenID, which other servers refused (supabase/mcp#183). Where it
    # listens is not published.
    Habits(
        "windsurf",
        "http://localhost:51997/callback",
        registration={
            "client_name": "Windsurf",
            "redirect_uris": ["http://localhost:51997/callback"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "scope": "openid email profile",
        },
        scope="openid email profile",
        revision="2025-06-18",
    ),
    # A random port each time (aaif-goose/goose#5107).
    Habits(
        "goose",
        "http://localhost:60123/oauth_callback",
        registration={
            "client_name": "goose",
            "redirect_uris": ["http://localhost:60001/oauth_callback"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        },
        revision="2025-06-18",
    ),
    # Names the resource everywhere, with the slash that a URL library adds.
    Habits(
        "zed",
        "http://127.0.0.1:47001/callback",
        registration={
            "client_name": "Zed",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        },
        typed="{endpoint}/",
    ),
    # The reference client; asks for the page each time.
    Habits(
        "inspector",
        "http://localhost:6274/oauth/callback",
        registration=REGISTRATIONS["inspector"],
        looks=(OAUTH_WITH_PATH, OPENID_AFTER_PATH, OAUTH_ROOT, OPENID_ROOT),
        asks={"prompt": "consent"},
        revision="",
    ),
    # Asks for a revision nobody speaks any more; has a secret; keeps no refresh token without
    # offline_access (supabase/auth#2628).
    Habits(
        "copilot-studio",
        "https://global.consent.azure-apim.net/redirect/tools",
        registration={
            "client_name": "Copilot Studio",
            "redirect_uris": ["https://global.consent.azure-apim.net/redirect/tools"],
            "token_endpoint_auth_method": "client_secret_basic",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        },
        scope="offline_access",
        revision="2024-11-05",
        names_revision=False,
    ),
    # 2025-03-26: knows no protected resources and looks at the origin.
    Habits(
        "first-generation",
        "http://localhost:3030/callback",
        registration=REGISTRATIONS["python-sdk"],
        resource=frozenset(),
        revision="2025-03-26",
        names_revision=False,
    ),
]


class NamedClient(WireClient):
    """A client with habits."""

    def __init__(self, endpoint: str, habits: Habits) -> None:
        super().__init__(endpoint, era="legacy" if habits.revision else "modern")
        self.habits = habits
        self.redirect_uri = habits.redirect
        self.registered: dict[str, Any] = {}
        self.spoken = ""

    def become_known(self, host: DocumentHost) -> None:
        """Discover, then publish a document or register."""
        self.discover()
        origin = self.endpoint.removesuffix(urlsplit(self.endpoint).path)
        for place in self.habits.looks:
            where = origin + place.format(path=urlsplit(self.endpoint).path)
            answer = self.http.get(where)
            assert answer.status_code == 200, (where, answer.status_code)
            assert answer.json() == self.server_metadata
        if self.habits.document:
            document = at(f"{host.base}/{uuid.uuid4().hex}", DOCUMENTS[self.habits.document])
            self.client_id = document["client_id"]
            host.publish(self.client_id.removeprefix(host.base), document)
            return
        asked = {k: v for k, v in self.habits.registration.items() if v is not None}
        answer = self.http.post(self.server_metadata["registration_endpoint"], json=asked)
        assert answer.status_code == 201, (answer.status_code, answer.text[:500])
        self.registered = answer.json()
        self.client_id = self.registered["client_id"]
        # Rewritten redirect URIs crash clients (mcp-remote #292).
        assert self.registered["redirect_uris"] == asked["redirect_uris"]

    def address_to_open(self) -> str:
        """Return the authorization request."""
        named = self._resource() if "authorize" in self.habits.resource else ""
        return self.authorize_url(resource=named, scope=self.habits.scope, **self.habits.asks)

    def token_request(self, form: dict[str, str]) -> Any:
        """Send a token request as this client does."""
        step = "refresh" if form["grant_type"] == "refresh_token" else "token"
        sent = {"client_id": self.client_id, **form}
        if step in self.habits.resource:
            sent["resource"] = self._resource()
        method, headers = self.registered.get("token_endpoint_auth_method", "none"), {}
        if method == "client_secret_post":
            sent["client_secret"] = self.registered["client_secret"]
        elif method == "client_secret_basic":
            pair = f"{self.client_id}:{self.registered['client_secret']}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return self.http.post(self.server_metadata["token_endpoint"], data=sent, headers=headers)

    def open_tools(self) -> list[str]:
        """Open MCP and list the tools."""
        if self.habits.probes:
            assert self.tokens is not None
            bearer = {"Authorization": f"Bearer {self.tokens.access_token}"}
            events = {"Accept": "text/event-stream", **bearer}
            # A 404 here ended the connection (openai/tunnel-client#35).
            assert self.http.get(self.endpoint, headers=events).status_code == 405
        if self.habits.revision:
            self.spoken = self.initialize(protocolVersion=self.habits.revision)["protocolVersion"]
        return self.names()

    def headers(self, body: dict[str, Any]) -> dict[str, str]:
        """Return the headers of a request; what was agreed on is named, or nothing is."""
        headers = super().headers(body)
        if self.habits.revision and "MCP-Protocol-Version" in headers:
            headers["MCP-Protocol-Version"] = self.spoken or self.habits.revision
            if not self.habits.names_revision:
                del headers["MCP-Protocol-Version"]
        return headers

    def _resource(self) -> str:
        return self.habits.typed.format(endpoint=self.endpoint)
