"""A complete MCP server on a socket, of either era, whose faults can be switched.

    with FakeUpstream().serve() as upstream:           # stateless, 2026-07-28, JSON answers
        row = Upstream.objects.create(key="fake", title="Fake", url=upstream.url)

Knobs (set before or while it runs):

    era           "modern" | "legacy" | "dual" (answers both server/discover and initialize)
    revision      legacy revision it negotiates at most, default 2025-11-25
    answers       "json" | "sse": form of an answer without interim messages (with: always SSE)
    sessions      legacy: hand out and require Mcp-Session-Id (default True)
    tokens        set of accepted bearer tokens; empty = none needed. Others get 401
    challenge     the 401's WWW-Authenticate value
    need_scope    {tool name: scope}: calling it gives 403 insufficient_scope
    canned        {JSON-RPC method: Canned(...)}: answer that method with exactly this, always
    script        list of Canned: each answers one POST, before anything else is looked at
    resumable     legacy: events have ids and GET with Last-Event-ID goes on with a stream
    primes        resumable: streams of calls begin with an event that is an id alone
    page_size     list pages of this many entries, 0 = all at once
    tools, prompts, resources, templates   lists of dicts as they go out
    refused_uris  URIs that cannot be subscribed to, in either era
    get_stream    legacy: serve GET streams (default True), else 405
    one_stream    legacy: a second GET stream of a session gets 409, as from the SDKs' servers
    name, instructions, capabilities       what discover / initialize say

What it saw:

    requests      Seen(http, headers, message, query) of every request, in order
    calls(method) the messages of one JSON-RPC method; ``last_headers(method)`` their headers
    initialized, deleted                   session ids opened / ended by DELETE
    events        ["started:hang", "cancelled:hang", "finished:slow", ...] of tools
    wait(what)    block until ``what(self)`` is true (bounded), for events of another thread
    forget_sessions()                      as after a restart: old ids get 404
    announce(method, params)               send a notification on every GET stream (legacy) or
                                           subscriptions/listen stream (modern)
    end_streams()                          end those streams, a modern one with its result
    listening                              how many of those streams are open
    asks_apart    calls ask on the session's GET stream, as servers do that name no request
    vanishing     {message of a question: "before" | "after"}: the first answer to it is acted on
                  never, or at once, and acknowledged in neither case
    list_ttl                               milliseconds a list, then a public one, is good for
    subscribed                             URIs as resources/subscribe took and gave them back

Tools: echo, headers, exact, slow, hang, log, ask, interview, refuse, fail, blob, show_board (MCP
App), regional (x-mcp-header). See ``tests.fakes.mcp_catalogue`` for their arguments.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import mcp_catalogue
from tests.fakes.asgi_server import serve
from tests.fakes.mcp_exchange import META, Canned, Exchange, Session, event
from tests.fakes.resumable_streams import StreamLogs
from tests.patience import LOOK_SECONDS, PATIENCE

__all__ = ["Canned", "FakeUpstream", "Seen"]


@dataclass(frozen=True)
class Seen:
    """One HTTP request as it arrived."""

    http: str
    headers: dict[str, str]
    message: dict[str, Any]
    query: str
    body: bytes


@dataclass
class FakeUpstream:
    """The server; see the module's docstring for its knobs."""

    era: str = "modern"
    name: str = "fake-upstream"
    revision: str = "2025-11-25"
    answers: str = "json"
    sessions: bool = True
    tokens: set[str] = field(default_factory=set)
    challenge: str = 'Bearer error="invalid_token"'
    need_scope: dict[str, str] = field(default_factory=dict)
    canned: dict[str, Canned] = field(default_factory=dict)
    script: list[Canned] = field(default_factory=list)
    page_size: int = 0
    resumable: bool = False
    primes: bool = False
    instructions: str = "A server for tests."
    tools: list[dict[str, Any]] = field(default_factory=mcp_catalogue.tools)
    prompts: list[dict[str, Any]] = field(default_factory=mcp_catalogue.prompts)
    resources: list[dict[str, Any]] = field(default_factory=mcp_catalogue.resources)
    list_ttl: int = 0
    templates: list[dict[str, Any]] = field(default_factory=mcp_catalogue.templates)
    capabilities: dict[str, Any] = field(default_factory=mcp_catalogue.capabilities)
    refused_uris: set[str] = field(default_factory=set)
    get_stream: bool = True
    one_stream: bool = False
    asks_apart: bool = False
    vanishing: dict[str, str] = field(default_factory=dict)
    subscribed: list[str] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    initialized: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    base_url: str = ""

    def __post_init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._listeners: dict[
            str, tuple[asyncio.AbstractEventLoop, asyncio.Queue[bytes | None]]
        ] = {}
        self._changed = threading.Condition()
        self.streams = StreamLogs()

    # What tests use -----------------------------------------------------------------------
    @property
    def url(self) -> str:
        """Address of the MCP endpoint."""
        return self.base_url + "/mcp"

    @contextlib.contextmanager
    def serve(self, *, tls: bool = False) -> Iterator["FakeUpstream"]:
        """Serve on a free port of 127.0.0.1 until the block ends."""
        with serve(self, tls=tls) as base:
            self.base_url = base
            try:
                yield self
            finally:
                self.end_streams()

    def calls(self, method: str) -> list[dict[str, Any]]:
        """Return the messages that came for one JSON-RPC method."""
        return [seen.message for seen in self.requests if seen.message.get("method") == method]

    def last_headers(self, method: str) -> dict[str, str]:
        """Return the headers of the last request for one JSON-RPC method."""
        return next(s.headers for s in reversed(self.requests) if s.message.get("method") == method)

    def wait(self, what: Callable[["FakeUpstream"], bool], timeout: float = PATIENCE) -> bool:
        """Wait until ``what`` holds; returns whether it does."""
        deadline = time.monotonic() + timeout
        with self._changed:
            # Not every change of what is looked at wakes the waiting.
            while not what(self) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, LOOK_SECONDS))
            return what(self)

    async def seen(self, what: Callable[["FakeUpstream"], bool], timeout: float = PATIENCE) -> bool:
        """The same for asynchronous tests."""
        return await asyncio.to_thread(self.wait, what, timeout)

    def note(self, event: str) -> None:
        """Record an event and wake whoever waits for it."""
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def forget_sessions(self) -> None:
        """Lose every session, as a restarted server does."""
        self._sessions.clear()

    def announce(self, method: str, params: dict[str, Any] | None = None) -> None:
        """Send a notification to every listening client."""
        for listen_id, (loop, queue) in list(self._listeners.items()):
            body = dict(params or {})
            if not listen_id.startswith("get:"):
                body["_meta"] = {META + "subscriptionId": json.loads(listen_id)}
            message = {"jsonrpc": "2.0", "method": method, "params": body}
            loop.call_soon_threadsafe(queue.put_nowait, event(message))

    def announce_raw(self, message: dict[str, Any], *, to: int | None = None) -> None:
        """Send any message on every stream of announcements, or on the one opened so many after
        the first."""
        streams = list(self._listeners.values())
        for loop, queue in streams if to is None else streams[to : to + 1]:
            loop.call_soon_threadsafe(queue.put_nowait, event(message))

    def answer_to(self, question: object) -> dict[str, Any] | None:
        """Return how one of our questions was answered."""
        answers = (seen.message for seen in self.requests if "method" not in seen.message)
        return next((one for one in answers if one.get("id") == question), None)

    @property
    def listening(self) -> int:
        """How many streams of announcements are open."""
        return len(self._listeners)

    def end_streams(self) -> None:
        """End every stream of announcements as a server does that restarts."""
        for loop, queue in list(self._listeners.values()):
            loop.call_soon_threadsafe(queue.put_nowait, None)

    # ASGI ---------------------------------------------------------------------------------
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        message: Any = {}
        broken = False
        if body:
            try:
                message = json.loads(body)
            except ValueError:
                broken = True
        query = scope["query_string"].decode()
        with self._changed:
            self.requests.append(Seen(scope["method"], headers, message, query, body))
            self._changed.notify_all()
        exchange = Exchange(self, scope, receive, send, headers, None if broken else message)
        await exchange.run()
