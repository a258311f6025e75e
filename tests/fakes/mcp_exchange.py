"""How the fake MCP server answers one HTTP request; its knobs are in ``mcp_upstream``."""

import asyncio
import base64
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import mcp_catalogue, task_tools
from tests.fakes.mcp_catalogue import ToolCall, WireFault
from tests.fakes.resumable_streams import StreamLog

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
META = "io.modelcontextprotocol/"
NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


@dataclass(frozen=True)
class Canned:
    """An answer to give instead of the right one."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    delay: float = 0.0


@dataclass
class Session:
    """A stateful client's session."""

    id: str
    revision: str
    capabilities: dict[str, Any]
    questions: dict[str, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    running: dict[Any, asyncio.Task[Any]] = field(default_factory=dict)
    vanishing: dict[str, str] = field(default_factory=dict)
    log_level: str = ""
    counted: int = 0
    listening: int = 0


def event(message: dict[str, Any] | bytes, number: int | None = None) -> bytes:
    """Frame a message as one server-sent event."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    head = b"id: %d\n" % number if number is not None else b""
    return head + b"event: message\ndata: " + data + b"\n\n"


class Refused(Exception):
    """End the exchange with this HTTP answer."""

    def __init__(self, status: int, error: dict[str, Any] | None = None, **headers: str) -> None:
        super().__init__(status)
        self.status, self.error, self.headers = status, error, headers


class Exchange:
    """One HTTP request and its answer."""

    def __init__(
        self,
        upstream: Any,
        scope: Any,
        receive: Any,
        send: Any,
        headers: dict[str, str],
        message: Any,
    ) -> None:
        self.upstream, self.scope, self.receive, self.send = upstream, scope, receive, send
        self.headers, self.message = headers, message
        self.streaming = False
        self.session: Session | None = None
        self.log: StreamLog | None = None
        self.id = message.get("id") if isinstance(message, dict) else None
        self._write = asyncio.Lock()

    async def run(self) -> None:
        """Answer, turning refusals into HTTP."""
        up = self.upstream
        try:
            if self.scope["method"] == "POST" and up.script:
                await self.give(up.script.pop(0))
                return
            if not isinstance(self.message, dict):
                code = -32700 if self.message is None else -32600
                raise Refused(400, {"code": code, "message": "not a JSON-RPC message"})
            self.authenticate()
            canned = up.canned.get(str(self.message.get("method", "")))
            if canned is not None:
                await self.give(canned)
            elif self.scope["method"] == "GET":
                await self.listen_legacy()
            elif self.scope["method"] == "DELETE":
                await self.end_session()
            elif self.scope["method"] == "POST":
                await self.post()
            else:
                raise Refused(405)
        except Refused as refused:
            body = b""
            if refused.error is not None:
                body = json.dumps(
                    {"jsonrpc": "2.0", "id": self.id, "error": refused.error}
                ).encode()
            headers = {"content-type": "application/json", **refused.headers}
            headers = {k.replace("_", "-"): v for k, v in headers.items()}
            await self.give(Canned(refused.status, body, headers))

    async def give(self, canned: Canned) -> None:
        """Send a whole answer."""
        if canned.delay:
            await asyncio.sleep(canned.delay)
        headers = [(k.encode(), v.encode()) for k, v in canned.headers.items()]
        await self.send(
            {"type": "http.response.start", "status": canned.status, "headers": headers}
        )
        await self.send({"type": "http.response.body", "body": canned.body})

    def authenticate(self) -> None:
        """Refuse unknown tokens and calls beyond a token's scope."""
        up = self.upstream
        if up.tokens:
            given = self.headers.get("authorization", "").removeprefix("Bearer ")
            if given not in up.tokens:
                raise Refused(401, www_authenticate=up.challenge)
        if self.message.get("method") == "tools/call":
            scope = up.need_scope.get(self.message.get("params", {}).get("name", ""))
            if scope:
                challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
                raise Refused(403, www_authenticate=challenge)

    # One POST -----------------------------------------------------------------------------
    async def post(self) -> None:
        """Sort the message by era, check what that era demands, and answer it."""
        message, up = self.message, self.upstream
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            raise Refused(400, {"code": -32600, "message": "not a JSON-RPC message"})
        meta = message.get("params", {}).get("_meta", {})
        modern = META + "protocolVersion" in meta
        if modern and up.era == "legacy":
            raise Refused(400, {"code": -32600, "message": "Bad Request: no valid session ID"})
        if modern:
            self.check_modern(meta)
            await (self.answer() if "id" in message else self.give(Canned(202, b"", {})))
        elif up.era == "modern" and self.headers.get("mcp-protocol-version") == MODERN:
            raise Refused(400, {"code": -32602, "message": "_meta is incomplete"})
        elif up.era == "modern":
            error = {"code": -32022, "message": "unsupported protocol version"}
            error["data"] = {"supported": [MODERN], "requested": "unknown"}
            raise Refused(400, error)
        elif message.get("method") == "initialize":
            await self.initialize()
        else:
            self.find_session()
            await self.legacy_message()

    def check_modern(self, meta: dict[str, Any]) -> None:
        """Headers must equal the body (Streamable HTTP, Server Validation)."""
        version, method = meta[META + "protocolVersion"], self.message.get("method")
        if version != MODERN:
            error = {"code": -32022, "message": "unsupported protocol version"}
            error["data"] = {"supported": [MODERN], "requested": version}
            raise Refused(400, error)
        if META + "clientCapabilities" not in meta:
            raise Refused(400, {"code": -32602, "message": "clientCapabilities is missing"})
        wanted = {"mcp-protocol-version": version, "mcp-method": method}
        params = self.message.get("params", {})
        if method in NAMED:
            wanted["mcp-name"] = params.get(NAMED[method])
        if params.get("name") == "regional" and "region" in params.get("arguments", {}):
            wanted["mcp-param-region"] = params["arguments"]["region"]
        for name, value in wanted.items():
            if decoded(self.headers.get(name, "")) != value:
                raise Refused(400, {"code": -32020, "message": f"Header mismatch: {name}"})

    async def initialize(self) -> None:
        """Open a session in the newest revision both sides know."""
        up, params = self.upstream, self.message["params"]
        known = LEGACY[LEGACY.index(up.revision) :] if up.revision in LEGACY else (up.revision,)
        asked = params["protocolVersion"]
        revision = asked if asked in known else known[0]
        session = Session(uuid.uuid4().hex, revision, params.get("capabilities", {}))
        up._sessions[session.id if up.sessions else ""] = session
        with up._changed:
            up.initialized.append(session.id)
            up._changed.notify_all()
        result = {
            "protocolVersion": revision,
            "capabilities": up.capabilities,
            "serverInfo": {"name": up.name, "version": "1.0"},
            "instructions": up.instructions,
        }
        headers = {"content-type": "application/json"}
        if up.sessions:
            headers["mcp-session-id"] = session.id
        body = json.dumps({"jsonrpc": "2.0", "id": self.id, "result": result}).encode()
        await self.give(Canned(200, body, headers))

    def find_session(self) -> None:
        """Demand a living session and the version header that goes with it."""
        up = self.upstream
        key = self.headers.get("mcp-session-id", "") if up.sessions else ""
        if up.sessions and not key:
            raise Refused(400, {"code": -32600, "message": "Bad Request: missing session id"})
        self.session = up._sessions.get(key)
        if self.session is None:
            raise Refused(404, {"code": -32600, "message": "Session not found"})
        version = self.headers.get("mcp-protocol-version", "2025-03-26")
        if version != self.session.revision:
            raise Refused(400, {"code": -32600, "message": f"wrong version header {version}"})

    async def legacy_message(self) -> None:
        """A notification, an answer to one of our questions, or a request."""
        session, message = self.session, self.message
        assert session is not None
        method = message.get("method")
        if method is None:
            await self.answered(session, message)
        elif "id" not in message:
            if method == "notifications/cancelled":
                task = session.running.get(message["params"]["requestId"])
                if task is not None:
                    task.cancel()
            await self.give(Canned(202, b"", {}))
        else:
            await self.answer()

    async def answered(self, session: Session, message: dict[str, Any]) -> None:
        """Take an answer to one of our questions; another one to the same means nothing."""
        vanishes = session.vanishing.pop(str(message.get("id")), "")
        if vanishes != "before":
            question = session.questions.pop(str(message.get("id")), None)
            if question is not None and not question.done():
                question.set_result(message)
        if vanishes:
            self.upstream.note("vanished")
            await self.receive()
        await self.give(Canned(202, b"", {}))

    async def end_session(self) -> None:
        """DELETE ends a session."""
        if self.upstream.era == "modern":
            raise Refused(405)
        self.find_session()
        assert self.session is not None
        self.upstream._sessions.pop(self.session.id if self.upstream.sessions else "", None)
        with self.upstream._changed:
            self.upstream.deleted.append(self.session.id)
            self.upstream._changed.notify_all()
        await self.give(Canned(200, b"", {}))

    # Answers ------------------------------------------------------------------------------
    async def answer(self) -> None:
        """Run the method and send its result, as JSON or after interim messages as SSE."""
        if self.message["method"] == "subscriptions/listen":
            await self.listen_modern()
            return
        work = asyncio.create_task(self.work())
        gone = asyncio.create_task(self.receive())
        if self.session is not None:
            self.session.running[self.id] = work
        watched = {work, gone} if self.session is None else {work}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not work.done():
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        if self.session is not None:
            self.session.running.pop(self.id, None)
        if work.cancelled() and self.streaming:
            await self.send({"type": "http.response.body", "body": b""})

    async def work(self) -> None:
        """Find the result and send it."""
        try:
            if self.upstream.primes and self.session and self.message["method"] == "tools/call":
                await self.stream(b"data: \n\n")
            result = await mcp_catalogue.answer(self.tool_call())
        except WireFault as fault:
            payload = b'"error":' + json.dumps(fault.error).encode()
            await self.finish(payload, fault.status)
            return
        raw = result if isinstance(result, bytes) else json.dumps(result).encode()
        await self.finish(b'"result":' + raw, 200)

    def tool_call(self) -> ToolCall:
        """What a method of the catalogue needs to know."""
        return ToolCall(
            upstream=self.upstream,
            method=self.message["method"],
            params=self.message.get("params", {}),
            headers=self.headers,
            modern=self.session is None,
            emit=self.emit,
            ask=self.ask,
            session=self.session,
        )

    async def finish(self, payload: bytes, status: int) -> None:
        """Send the final response."""
        message = b'{"jsonrpc":"2.0","id":%s,%s}' % (json.dumps(self.id).encode(), payload)
        if self.streaming or (self.upstream.answers == "sse" and status == 200):
            await self.stream(event(message))
            if self.log is not None:
                self.log.end()
            await self.send({"type": "http.response.body", "body": b""})
        else:
            await self.give(Canned(status, message))

    async def stream(self, data: bytes) -> None:
        """Send one event, opening the stream with the first."""
        async with self._write:
            if self.upstream.resumable and self.session is not None:
                self.log = self.log or self.upstream.streams.begin()
                data = self.log.add(self.upstream.streams.number(), data)
            if not self.streaming:
                self.streaming = True
                headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
                await self.send({"type": "http.response.start", "status": 200, "headers": headers})
            await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def emit(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification on this request's stream."""
        await self.stream(event({"jsonrpc": "2.0", "method": method, "params": params}))

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Ask a stateful client something on this request's stream and wait for its answer."""
        assert self.session is not None
        question_id = uuid.uuid4().hex
        answer = asyncio.get_running_loop().create_future()
        self.session.questions[question_id] = answer
        vanishes = self.upstream.vanishing.get(params.get("message", ""))
        if vanishes:
            self.session.vanishing[question_id] = vanishes
        message = {"jsonrpc": "2.0", "id": question_id, "method": method, "params": params}
        if self.upstream.asks_apart:
            self.upstream.announce_raw(message)
        else:
            await self.stream(event(message))
        return await answer

    # Streams of announcements -------------------------------------------------------------
    async def listen_legacy(self) -> None:
        """GET: one stream per session for messages outside calls."""
        if self.upstream.era == "modern" or not self.upstream.get_stream:
            raise Refused(405)
        self.find_session()
        last = self.headers.get("last-event-id")
        if last is not None:
            await self.resume(last)
            return
        assert self.session is not None
        if self.upstream.one_stream and self.session.listening:
            self.upstream.note("second stream")
            raise Refused(409, {"code": -32600, "message": "Only one stream per session"})
        self.session.listening += 1
        try:
            await self.pump(f"get:{uuid.uuid4().hex}", None)
        finally:
            self.session.listening -= 1

    async def resume(self, last: str) -> None:
        """Go on with a stream after one of its events."""
        log = self.upstream.streams.find(int(last)) if self.upstream.resumable else None
        if log is None:
            raise Refused(405)
        self.upstream.note("resumed")
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send({"type": "http.response.body", "body": b": resumed\n\n", "more_body": True})
        async for data in log.after(int(last)):
            await self.send({"type": "http.response.body", "body": data, "more_body": True})
        await self.send({"type": "http.response.body", "body": b""})

    async def listen_modern(self) -> None:
        """subscriptions/listen: acknowledge the filter, then announce."""
        wanted = dict(self.message.get("params", {}).get("notifications", {}))
        uris = wanted.pop("resourceSubscriptions", [])
        agreed = [uri for uri in uris if uri not in self.upstream.refused_uris]
        if agreed:
            wanted["resourceSubscriptions"] = agreed
        tasks = [task for task in wanted.pop("taskIds", []) if task_tools.knows(task)]
        if tasks:
            wanted["taskIds"] = tasks
        params = {"_meta": {META + "subscriptionId": self.id}, "notifications": wanted}
        method = "notifications/subscriptions/acknowledged"
        await self.pump(
            json.dumps(self.id), event({"jsonrpc": "2.0", "method": method, "params": params})
        )

    async def pump(self, key: str, first: bytes | None) -> None:
        """Send announcements until the client leaves."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.upstream._listeners[key] = (asyncio.get_running_loop(), queue)
        gone = asyncio.create_task(self.receive())
        try:
            await self.stream(first or b": open\n\n")
            self.upstream.note("listening")
            while not gone.done():
                waiting = asyncio.create_task(queue.get())
                await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    continue
                said = waiting.result()
                if said is None:
                    await self.end_of_stream(first is not None)
                    return
                await self.stream(said)
        finally:
            gone.cancel()
            self.upstream._listeners.pop(key, None)
            self.upstream.note("stopped listening")

    async def end_of_stream(self, modern: bool) -> None:
        """End a stream of announcements; the stateless revision does it with a result."""
        if modern:
            result = {"resultType": "complete", "_meta": {META + "subscriptionId": self.id}}
            await self.stream(event({"jsonrpc": "2.0", "id": self.id, "result": result}))
        await self.send({"type": "http.response.body", "body": b""})


def decoded(value: str) -> str:
    """Undo the Base64 form of a header value (Streamable HTTP, Value Encoding)."""
    if value.startswith("=?base64?") and value.endswith("?="):
        return base64.b64decode(value[9:-2]).decode()
    return value
