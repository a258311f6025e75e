"""An MCP client written against the wire, so that tests see what official SDKs hide.

It speaks both eras, discovers and registers as the specification says, and keeps every
answer. ``chatgpt_client`` builds on it.
"""

import base64
import hashlib
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
META = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@dataclass
class Answer:
    """One HTTP answer: the JSON-RPC response in it and the notifications before it."""

    status: int
    headers: httpx.Headers
    message: dict[str, Any]
    notifications: list[dict[str, Any]] = field(default_factory=list)
    raw: bytes = b""

    @property
    def result(self) -> dict[str, Any]:
        """The result; fails with the whole answer where there is none."""
        assert "result" in self.message, (self.status, self.message or self.raw[:800])
        return dict(self.message["result"])

    @property
    def error(self) -> dict[str, Any]:
        """The JSON-RPC error; fails with the whole answer where there is none."""
        assert "error" in self.message, (self.status, self.message or self.raw[:800])
        return dict(self.message["error"])


def read_answer(status: int, headers: httpx.Headers, raw: bytes) -> Answer:
    """Read a JSON or event-stream body."""
    kind = headers.get("content-type", "")
    messages: list[Any] = []
    if "text/event-stream" in kind:
        for block in re.split(r"\r?\n\r?\n", raw.decode()):
            lines = [line[5:].strip() for line in block.splitlines() if line.startswith("data:")]
            if "".join(lines):
                messages.append(json.loads("\n".join(lines)))
    elif "json" in kind and raw:
        messages = [json.loads(raw)]
    answers = [m for m in messages if isinstance(m, dict) and ("result" in m or "error" in m)]
    others = [m for m in messages if isinstance(m, dict) and "method" in m]
    message = answers[-1] if answers else {}
    if not message and len(messages) == 1 and isinstance(messages[0], dict) and not others:
        message = messages[0]
    return Answer(status, headers, message, others, raw)


def parse_challenge(value: str) -> dict[str, str]:
    """Split one ``WWW-Authenticate: Bearer`` challenge into its parameters (RFC 9110 11.6.1)."""
    assert value.startswith("Bearer "), value
    return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', value))


@dataclass
class Tokens:
    """What a token endpoint gave."""

    access_token: str
    refresh_token: str
    scope: str
    expires_in: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> "Tokens":
        """Take the members of a token answer."""
        return cls(
            answer["access_token"],
            answer.get("refresh_token", ""),
            answer.get("scope", ""),
            int(answer["expires_in"]),
        )


class WireClient:
    """One client at one endpoint.

    Args:
        endpoint: the address a person pasted.
        era: "modern" or "legacy": how ``rpc`` speaks.

    ``node`` may be set to the origin of one process of the gateway, to which ``rpc`` then goes
    with the public host, as a load balancer would send it.
    """

    def __init__(self, endpoint: str, *, era: str = "modern", verify: Any = True) -> None:
        self.endpoint = endpoint
        self.era = era
        self.http = httpx.Client(verify=verify, timeout=30, trust_env=False)
        self.capabilities: dict[str, Any] = {}
        self.tokens: Tokens | None = None
        self.session_id = ""
        self.client_id = ""
        self.node = ""
        self.redirect_uri = "http://127.0.0.1/callback"
        self.resource_metadata: dict[str, Any] = {}
        self.server_metadata: dict[str, Any] = {}
        self._verifier = ""
        self._state = ""
        self._ids = 0

    # Authorization -----------------------------------------------------------------
    def discover(self) -> dict[str, str]:
        """Be refused, and find the authorization server by the refusal; returns the challenge."""
        refused = self.http.post(self.endpoint, json=self.body("server/discover"))
        assert refused.status_code == 401, (refused.status_code, refused.text[:500])
        challenge = parse_challenge(refused.headers["www-authenticate"])
        self.resource_metadata = self.http.get(challenge["resource_metadata"]).json()
        issuer = self.resource_metadata["authorization_servers"][0]
        where = f"{issuer}/.well-known/oauth-authorization-server"
        self.server_metadata = self.http.get(where).json()
        return challenge

    def register(self, **changes: Any) -> dict[str, Any]:
        """Register dynamically as a public client (RFC 7591)."""
        asked = {
            "client_name": "Wire client",
            "redirect_uris": [self.redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            **changes,
        }
        answer = self.http.post(self.server_metadata["registration_endpoint"], json=asked)
        assert answer.status_code == 201, (answer.status_code, answer.text[:500])
        registered: dict[str, Any] = answer.json()
        self.client_id = registered["client_id"]
        return registered

    def authorize_url(self, **changes: str) -> str:
        """Return the address to open in the browser, with fresh PKCE and state."""
        self._verifier, self._state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        digest = hashlib.sha256(self._verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": self._state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "resource": self.resource_metadata["resource"],
            "scope": " ".join(self.resource_metadata.get("scopes_supported", [])),
            **changes,
        }
        wanted = {name: value for name, value in query.items() if value}
        return f"{self.server_metadata['authorization_endpoint']}?{urlencode(wanted)}"

    def redirected(self, url: str) -> str:
        """Check the redirect a browser stopped at; returns the code (RFC 9207, RFC 6749 4.1.2)."""
        answer = dict(parse_qsl(urlsplit(url).query))
        assert answer.get("state") == self._state, url
        assert answer.get("iss") == self.server_metadata["issuer"], url
        assert "code" in answer, url
        return answer["code"]

    def authenticate(self, form: dict[str, str]) -> dict[str, str]:
        """Add the client's credential to a token request; a public client has none."""
        return form

    def token_request(self, form: dict[str, str]) -> httpx.Response:
        """Send a token request with the resource and the client's own credential."""
        full = {"client_id": self.client_id, "resource": self.resource_metadata["resource"], **form}
        return self.http.post(self.server_metadata["token_endpoint"], data=self.authenticate(full))

    def exchange(self, redirect: str) -> Tokens:
        """Turn the redirect's code into tokens."""
        answer = self.token_request(
            {
                "grant_type": "authorization_code",
                "code": self.redirected(redirect),
                "redirect_uri": self.redirect_uri,
                "code_verifier": self._verifier,
            }
        )
        assert answer.status_code == 200, (answer.status_code, answer.text[:500])
        self.tokens = Tokens.of(answer.json())
        return self.tokens

    def refresh(self, refresh_token: str = "") -> httpx.Response:
        """Ask for new tokens; keeps them when given."""
        assert self.tokens is not None
        token = refresh_token or self.tokens.refresh_token
        answer = self.token_request({"grant_type": "refresh_token", "refresh_token": token})
        if answer.status_code == 200:
            self.tokens = Tokens.of(answer.json())
        return answer

    # Messages ----------------------------------------------------------------------
    def body(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make a request of this client's era."""
        self._ids += 1
        given = dict(params or {})
        if self.era == "modern":
            given["_meta"] = {
                f"{META}protocolVersion": MODERN,
                f"{META}clientInfo": {"name": "wire", "version": "1"},
                f"{META}clientCapabilities": self.capabilities,
                **given.get("_meta", {}),
            }
        return {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": given}

    def headers(self, body: dict[str, Any]) -> dict[str, str]:
        """Return the headers that belong to a request's body."""
        method = body["method"]
        headers = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": MODERN if self.era == "modern" else LEGACY,
        }
        if self.tokens is not None:
            headers["Authorization"] = f"Bearer {self.tokens.access_token}"
        if self.era == "modern":
            headers["Mcp-Method"] = method
            if method in NAMED:
                headers["Mcp-Name"] = str(body["params"].get(NAMED[method], ""))
        elif method == "initialize":
            del headers["MCP-Protocol-Version"]
        elif self.session_id:
            headers["Mcp-Session-Id"] = self.session_id
        return headers

    def rpc(self, method: str, params: dict[str, Any] | None = None, **headers: str) -> Answer:
        """Send one request and read its whole answer; ``headers`` override (``_`` for ``-``)."""
        body = self.body(method, params)
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = httpx.Headers(self.headers(body))
        sent.update(changed)
        got = self.http.post(self.address(), json=body, headers=sent)
        return read_answer(got.status_code, got.headers, got.content)

    def address(self) -> str:
        """Return where requests go."""
        public = urlsplit(self.endpoint)
        if not self.node:
            return self.endpoint
        self.http.headers["Host"] = public.netloc
        return f"{self.node}{public.path}"

    def initialize(self, **changes: Any) -> dict[str, Any]:
        """Open a stateful session (2025-11-25)."""
        opened = self.rpc(
            "initialize",
            {
                "protocolVersion": LEGACY,
                "capabilities": self.capabilities,
                "clientInfo": {"name": "wire", "version": "1"},
                **changes,
            },
        )
        result = opened.result
        self.session_id = opened.headers.get("mcp-session-id", "")
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        headers = self.headers({"method": "notifications/initialized"})
        noted = self.http.post(self.endpoint, json=note, headers=headers)
        assert noted.status_code == 202, (noted.status_code, noted.text[:300])
        return result

    def call(self, name: str, arguments: dict[str, Any] | None = None, **meta: Any) -> Answer:
        """Call a tool; ``meta`` goes into ``_meta``."""
        params: dict[str, Any] = {"name": name, "arguments": arguments or {}}
        if meta:
            params["_meta"] = meta
        return self.rpc("tools/call", params)

    def names(self) -> list[str]:
        """Return the names of every tool, over all pages."""
        names, cursor = [], None
        while True:
            result = self.rpc("tools/list", {"cursor": cursor} if cursor else {}).result
            names += [tool["name"] for tool in result["tools"]]
            cursor = result.get("nextCursor")
            if cursor is None:
                return names

    def close(self) -> None:
        """Close every connection."""
        self.http.close()
