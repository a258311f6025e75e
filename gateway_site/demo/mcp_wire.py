"""Streamable HTTP for the demo's servers, in both eras, as one plain ASGI application.

The stateless revision 2026-07-28 (``server/discover``, everything in ``_meta``) and the
stateful revisions up to 2025-11-25 (``initialize``, session id) share one address.
"""

import asyncio
import base64
import contextlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway_site.demo.method_answers import Asked, answer, find_tool
from gateway_site.demo.server_features import LEVELS, ProtocolRefusal, Result, ServerFeatures

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
META = "io.modelcontextprotocol/"
CACHED = (
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
MOST_SESSIONS = 1000
MOST_BODY = 1024 * 1024

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class HttpRefusal(Exception):
    """Ends the exchange with a status other than 200, and a JSON-RPC error if there is one."""

    def __init__(
        self, status: int, code: int = 0, message: str = "", data: Result | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: Result = {"code": code, "message": message} if code else {}
        if data is not None:
            self.error["data"] = data


@dataclass
class Session:
    """One stateful client."""

    revision: str
    person: str
    log_level: str = ""
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)


@dataclass
class Exchange:
    """One HTTP request: what came, and how to answer it."""

    receive: Receive
    send: Send
    headers: dict[str, str]
    person: str
    message: dict[str, Any] = field(default_factory=dict)
    streaming: bool = False

    @property
    def params(self) -> dict[str, Any]:
        """The request's parameters."""
        given = self.message.get("params")
        return given if isinstance(given, dict) else {}

    async def give(
        self, status: int, payload: Result | None = None, headers: dict[str, str] | None = None
    ) -> None:
        """Send a whole answer."""
        body = b"" if payload is None else json.dumps(payload, ensure_ascii=False).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        start = [(name.encode(), value.encode()) for name, value in sent.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": start})
        await self.send({"type": "http.response.body", "body": body})

    async def stream(self, payload: Result, *, last: bool = False) -> None:
        """Send one event, opening the stream with the first."""
        if not self.streaming:
            self.streaming = True
            names = [
                (b"content-type", b"text/event-stream"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ]
            await self.send({"type": "http.response.start", "status": 200, "headers": names})
        data = json.dumps(payload, ensure_ascii=False).encode()
        body = b"event: message\ndata: " + data + b"\n\n"
        await self.send({"type": "http.response.body", "body": body, "more_body": not last})

    async def emit(self, method: str, params: Result) -> None:
        """Send a notification that belongs to this request."""
        await self.stream({"jsonrpc": "2.0", "method": method, "params": params})

    async def finish(self, payload: Result, status: int = 200) -> None:
        """Send the response: on the stream if one is open, else as JSON."""
        message = {"jsonrpc": "2.0", "id": self.message.get("id"), **payload}
        if self.streaming:
            await self.stream(message, last=True)
        else:
            await self.give(status, message)


class McpWire:
    """The endpoint of one server; the caller has been authenticated before."""

    def __init__(self, features: ServerFeatures) -> None:
        self.features = features
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; ``scope["person"]`` says who is asking."""
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        exchange = Exchange(receive, send, headers, scope.get("person", ""))
        try:
            if scope["method"] == "POST":
                exchange.message = await read_message(receive)
                await self._post(exchange)
            elif scope["method"] == "DELETE":
                self._find_session(exchange)
                self._sessions.pop(headers["mcp-session-id"], None)
                await exchange.give(200)
            else:
                raise HttpRefusal(405)
        except HttpRefusal as refusal:
            payload = {"jsonrpc": "2.0", "id": exchange.message.get("id"), "error": refusal.error}
            await exchange.give(refusal.status, payload if refusal.error else None)

    async def _post(self, exchange: Exchange) -> None:
        meta = exchange.params.get("_meta") or {}
        if META + "protocolVersion" in meta:
            check_modern(exchange, meta)
            await self._answer(exchange, None, str(meta.get(META + "logLevel", "")))
            return
        if exchange.message.get("method") == "initialize":
            await self._initialize(exchange)
            return
        session = self._find_session(exchange)
        method = exchange.message.get("method")
        if "id" not in exchange.message or method is None:
            if method == "notifications/cancelled":
                running = session.running.get(str(exchange.params.get("requestId")))
                if running is not None:
                    running.cancel()
            await exchange.give(202)
        elif method == "logging/setLevel":
            level = exchange.params.get("level")
            if level not in LEVELS:
                raise HttpRefusal(200, -32602, "Unknown level")
            session.log_level = str(level)
            await exchange.finish({"result": {}})
        else:
            await self._answer(exchange, session, session.log_level)

    async def _initialize(self, exchange: Exchange) -> None:
        asked = exchange.params.get("protocolVersion")
        revision = asked if asked in LEGACY else LEGACY[0]
        session_id = secrets.token_urlsafe(24)
        self._sessions[session_id] = Session(revision, exchange.person)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        result = {
            "protocolVersion": revision,
            "capabilities": self.features.capabilities(),
            "serverInfo": self._server_info(),
            "instructions": self.features.instructions,
        }
        message = {"jsonrpc": "2.0", "id": exchange.message.get("id"), "result": result}
        await exchange.give(200, message, {"mcp-session-id": session_id})

    def _find_session(self, exchange: Exchange) -> Session:
        session_id = exchange.headers.get("mcp-session-id")
        if not session_id:
            raise HttpRefusal(400, -32600, "A session id or the revision in _meta is needed")
        session = self._sessions.get(session_id)
        if session is None or session.person != exchange.person:
            raise HttpRefusal(404, -32600, "Session not found")
        self._sessions.move_to_end(session_id)
        return session

    async def _answer(self, exchange: Exchange, session: Session | None, level: str) -> None:
        """Run the request; stop it when the client leaves or cancels."""
        work = asyncio.create_task(self._work(exchange, session is None, level))
        gone = asyncio.create_task(wait_for_disconnect(exchange.receive))
        key = str(exchange.message.get("id"))
        if session is not None:
            session.running[key] = work
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel() if not work.done() else None
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            gone.cancel()
            work.cancel()
            if session is not None:
                session.running.pop(key, None)

    async def _work(self, exchange: Exchange, modern: bool, level: str) -> None:
        method = str(exchange.message.get("method"))
        tool = find_tool(self.features, exchange.params) if method == "tools/call" else None
        emit = exchange.emit if tool is not None and tool.streams else drop
        asked = Asked(exchange.params, exchange.person, emit, level if level in LEVELS else "")
        try:
            if modern and method == "server/discover":
                result = self._discovered()
            elif modern and method == "ping":
                raise ProtocolRefusal(-32601, "ping is not part of this revision")
            else:
                result = await answer(self.features, method, asked)
        except ProtocolRefusal as refusal:
            status = 404 if modern and refusal.code == -32601 else 200
            code = refusal.code
            if not modern and method == "resources/read" and code == -32602:
                code = -32002
            error = {"error": {"code": code, "message": refusal.message}}
            await exchange.finish(error, status)
            return
        await exchange.finish({"result": self._dressed(method, result) if modern else result})

    def _dressed(self, method: str, result: Result) -> Result:
        dressed = {"resultType": "complete", **result}
        dressed["_meta"] = {**result.get("_meta", {}), META + "serverInfo": self._server_info()}
        if method in CACHED:
            dressed |= {"ttlMs": 60_000, "cacheScope": "private"}
        return dressed

    def _discovered(self) -> Result:
        return {
            "supportedVersions": [MODERN, *LEGACY],
            "capabilities": self.features.capabilities(),
            "instructions": self.features.instructions,
        }

    def _server_info(self) -> Result:
        features = self.features
        return {"name": features.name, "title": features.title, "version": features.version}


async def drop(method: str, params: Result) -> None:
    """Interim messages of a tool that does not stream."""


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_message(receive: Receive) -> dict[str, Any]:
    """Read one JSON-RPC message.

    Raises:
        HttpRefusal: too large, not JSON, or not one message.
    """
    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if len(body) > MOST_BODY:
            raise HttpRefusal(413)
        if not part.get("more_body"):
            break
    try:
        message = json.loads(body)
    except ValueError as failure:
        raise HttpRefusal(400, -32700, "The body is not JSON") from failure
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise HttpRefusal(400, -32600, "The body is not one JSON-RPC message")
    return message


def check_modern(exchange: Exchange, meta: dict[str, Any]) -> None:
    """Hold the headers against the body (Streamable HTTP, Server Validation)."""
    version, method = meta[META + "protocolVersion"], exchange.message.get("method")
    if version != MODERN:
        data = {"supported": [MODERN, *LEGACY], "requested": version}
        raise HttpRefusal(400, -32022, "Unsupported protocol version", data)
    if META + "clientCapabilities" not in meta:
        raise HttpRefusal(400, -32602, "_meta lacks clientCapabilities")
    wanted = {"mcp-protocol-version": version, "mcp-method": method}
    if method in NAMED:
        wanted["mcp-name"] = exchange.params.get(NAMED[method])
    for name, value in wanted.items():
        if decoded(exchange.headers.get(name, "")) != value:
            raise HttpRefusal(400, -32020, f"The header {name} does not match the body")


def decoded(value: str) -> str:
    """Undo the Base64 form of a header value (Streamable HTTP, Value Encoding)."""
    if value.startswith("=?base64?") and value.endswith("?="):
        with contextlib.suppress(ValueError):
            return base64.b64decode(value[9:-2], validate=True).decode()
    return value
