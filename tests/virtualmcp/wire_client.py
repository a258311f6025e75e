"""A hand-written MCP client: every header and byte is the test's to choose."""

import itertools
import json
import socket
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.patience import PATIENCE

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
BOTH = "application/json, text/event-stream"
BOTH_FORMS = ("application/json", "text/event-stream")
OF_THE_REVISION = (-32020, -32021, -32022)


def modern_meta(**more: Any) -> dict[str, Any]:
    """Return the ``_meta`` every stateless request carries."""
    return {
        META + "protocolVersion": MODERN,
        META + "clientInfo": {"name": "wire", "version": "1"},
        META + "clientCapabilities": {},
        **more,
    }


def modern_headers(method: str, params: dict[str, Any]) -> dict[str, str]:
    """Return the headers that mirror a stateless request."""
    headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
    if method in NAMED and NAMED[method] in params:
        headers["mcp-name"] = params[NAMED[method]]
    return headers


def messages(response: httpx.Response) -> list[Any]:
    """Return what an answer holds, in either form."""
    if response.headers["content-type"].startswith("text/event-stream"):
        return [
            json.loads(line.removeprefix("data: "))
            for line in response.text.splitlines()
            if line.startswith("data: ") and len(line) > 6
        ]
    return [response.json()]


def check_stateless_answer(sent: bytes, response: httpx.Response) -> None:
    """Assert what every answer to a stateless client keeps to (protocol.md a3, a4, a7, a21)."""
    if not response.headers.get("content-type", "").startswith(BOTH_FORMS):
        return
    for message in messages(response):
        if not isinstance(message, dict) or "jsonrpc" not in message:
            continue
        assert "method" not in message or "id" not in message, message
        if "error" in message:
            code = message["error"]["code"]
            assert code not in (-32002, -32042) and not -32019 <= code <= -32000, message
            if -32099 <= code <= -32020:
                assert code in OF_THE_REVISION, message
                assert response.status_code == 400, message
        elif "result" in message:
            kind = message["result"]["resultType"]
            tasks = kind == "task" and META.encode() + b"tasks" in sent
            assert kind in ("complete", "input_required") or tasks, message
            assert message["result"]["_meta"][META + "serverInfo"]["name"], message


@dataclass
class WireClient:
    """One client of one Virtual MCP."""

    http: httpx.Client
    slug: str
    token: str
    session: str = ""
    revision: str = ""
    ids: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def path(self) -> str:
        """Path of the endpoint."""
        return f"/v1/mcp/{self.slug}"

    def headers(self, **more: str) -> dict[str, str]:
        """Return the headers of every POST; a value of "" leaves one out."""
        headers = {
            "authorization": f"Bearer {self.token}",
            "content-type": "application/json",
            "accept": BOTH,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return {name: value for name, value in headers.items() if value}

    def post(self, body: Any, **headers: str) -> httpx.Response:
        """Send a body (bytes as they are, anything else as JSON)."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = self.http.post(self.path, content=content, headers=self.headers(**headers))
        if headers.get("mcp_protocol_version") == MODERN:
            check_stateless_answer(content, response)
        return response

    def modern(
        self, method: str, params: dict[str, Any] | None = None, *, meta: Any = None, **headers: str
    ) -> httpx.Response:
        """Send a stateless request."""
        params = dict(params or {})
        params["_meta"] = modern_meta() if meta is None else meta
        message = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}
        mirrored = {k.replace("-", "_"): v for k, v in modern_headers(method, params).items()}
        return self.post(message, **{**mirrored, **headers})

    def initialize(self, revision: str = "2025-11-25", **params: Any) -> httpx.Response:
        """Open a session and keep its id."""
        message = {
            "jsonrpc": "2.0",
            "id": next(self.ids),
            "method": "initialize",
            "params": {
                "protocolVersion": revision,
                "capabilities": {},
                "clientInfo": {"name": "wire", "version": "1"},
                **params,
            },
        }
        response = self.post(message)
        if response.status_code == 200:
            self.session = response.headers["mcp-session-id"]
            self.revision = messages(response)[0]["result"]["protocolVersion"]
        return response

    def legacy(
        self, method: str, params: dict[str, Any] | None = None, *, id: Any = None, **headers: str
    ) -> httpx.Response:
        """Send a request of the open session."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        message["id"] = next(self.ids) if id is None else id
        if params is not None:
            message["params"] = params
        return self.post(message, **{**self.session_headers(), **headers})

    def tell(self, method: str, params: dict[str, Any] | None = None) -> httpx.Response:
        """Send a notification of the open session."""
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        return self.post(message, **self.session_headers())

    def session_headers(self) -> dict[str, str]:
        """Return what names the session."""
        return {"mcp_session_id": self.session, "mcp_protocol_version": self.revision}


class RawConnection:
    """One HTTP/1.1 connection on which a test writes the bytes itself."""

    def __init__(self, base: str) -> None:
        host, port = base.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.stream = self.socket.makefile("rb")

    def request(self, head: list[str], body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Send a request line with headers, and a body; return what comes back."""
        self.send(head, body)
        return self.answer()

    def send(self, head: list[str], body: bytes = b"") -> None:
        """Send without waiting."""
        self.socket.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer with a Content-Length; status 0 if the connection was closed."""
        line = self.stream.readline()
        if not line:
            return 0, {}, b""
        headers = {}
        while (header := self.stream.readline().strip()) != b"":
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        return int(line.split()[1]), headers, self.stream.read(length)

    def close(self) -> None:
        """Hang up."""
        self.stream.close()
        self.socket.close()
