"""One client's connection to a server process: uvicorn's HTTP protocol, with limits and less work.

uvicorn waits without an end for a request that trickles, takes any number of connections and
headers of any size (security.md 8). Here every connection is in one of four phases, and a sweep
once a second closes those that are too long in one: no timer per request. The rest of the class
is what every request pays for, so it does nothing twice that can be done once.

Written against uvicorn 0.54; ``tests/gateway_site/test_production_server.py`` holds it to that.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gateway_site.connection_flow import Flow, Signal
from gateway_site.refused_requests import (
    ANOTHER_HOST,
    FAILED,
    HEADERS_TOO_LARGE,
    MOST_URL_BYTES,
    NOT_HTTP,
    RESTARTING,
    TOO_MANY,
    TOO_SLOW,
    URL_TOO_LONG,
    Refused,
    header_line,
    names_another_host,
)

# What the connection waits for: a request's head, its body, the answer, the next request.
HEAD, BODY, ANSWER, IDLE = range(4)
MOST_HEAD_BYTES = 32 * 1024
MOST_HEADERS = 100
# Longer addresses are not kept decoded: whoever sends them chooses their size.
MOST_KEPT_URL_BYTES = 256
# What a body in chunks may say beside its content (sizes, extensions) before more content comes.
MOST_FRAMING_BYTES = 64 * 1024
# What a client does not take is held only up to here; the rest waits upstream.
MOST_UNSENT_BYTES = 32 * 1024
# A larger body is handed to the kernel beside its head, not copied behind it.
MOST_JOINED_BYTES = 16 * 1024
# Connections above the limit are told so; this many may wait for that.
MOST_REFUSED = 256


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds, and how many connections one process keeps open."""

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    connections: int = 5_000


_known_header_line = lru_cache(maxsize=1024)(header_line)


def _path_of(url: bytes) -> tuple[str, bytes]:
    """Return path, decoded and raw, of a URL that carries no query."""
    raw: bytes = httptools.parse_url(url).path
    return unquote(raw.decode("ascii")), raw


_known_path_of = lru_cache(maxsize=1024)(_path_of)


def _nothing() -> None:
    """Takes the place of a callback that would keep its connection alive."""


class Answer(RequestResponseCycle):  # type: ignore[misc]
    """One request and its answer; writes head and body together where the length is known."""

    head = b""
    # The end of the connection ends the body: what HTTP/1.0 has for an unknown length.
    until_close = False
    # What uvicorn sets for each request, and every request begins with.
    disconnected = response_started = response_complete = False
    more_body = True
    chunked_encoding: bool | None = None
    expected_content_length = 0

    def __init__(self, connection: "ClientConnection", *, keep_alive: bool) -> None:
        """Begin; uvicorn's own takes the connection apart first."""
        self.scope = connection.scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.default_headers = connection.server_state.default_headers
        self.message_event = Signal()  # type: ignore[assignment]
        self.on_response = connection.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = connection.expect_100_continue
        self.body = bytearray()

    async def receive(self) -> Any:
        """Return the next part of the body (ASGI); at once, where all of it is there."""
        if self.more_body or not self.body or self.disconnected or self.response_complete:
            return await super().receive()
        self.message_event.clear()
        self.flow.resume_reading()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    async def run_asgi(self, app: Any) -> None:
        """Run the application; whatever it does, the client gets an answer or a closed stream."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            # Nothing but the end of the drain cancels here.
            await self._end_with(RESTARTING)
        except Exception:
            self.logger.exception("a request failed")
            await self._end_with(FAILED)
        else:
            if not self.response_complete and not self.disconnected:
                self.logger.error("an answer was not completed: %s", self.scope["path"])
                await self._end_with(FAILED)
        finally:
            self.on_response = _nothing

    async def _end_with(self, answer: "Refused") -> None:
        if self.response_started:
            self.transport.close()
        else:
            await answer(self.scope, self.receive, self.send)

    async def send(self, message: Any) -> None:
        """Send a part of the answer (ASGI), waiting while the client does not take it."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"{message['type']} before http.response.start")
            self._start(message["status"], message.get("headers", ()))
            return
        if self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']} does not belong here")
        self._write(message.get("body", b""), message.get("more_body", False))

    def _start(self, status: int, headers: Any) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        closing = chunked = False
        length: int | None = None
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *headers):
            line = _known_header_line if len(value) <= 40 else header_line
            lines.append(line(name, value))
            # Django spells names with capitals.
            name = name.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                closing = b"close" in value.lower()
            elif name == b"transfer-encoding":
                chunked = value.lower() == b"chunked"
        if closing:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self.chunked_encoding = chunked or length is None
        if self.chunked_encoding:
            if self.scope["method"] == "HEAD" or status in (204, 304):
                self.chunked_encoding = False
            elif self.scope["http_version"] != "1.1":
                self.chunked_encoding, self.until_close = False, True
            elif not chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        self.expected_content_length = 0 if chunked else length or 0
        lines.append(b"\r\n")
        self.head = b"".join(lines)
        if self.chunked_encoding or self.until_close:
            # A stream may keep the client waiting for its first event, but not for its head.
            self.transport.write(self.head)
            self.head = b""

    def _write(self, body: bytes, more_body: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            data = b""
        elif self.chunked_encoding:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                data += b"0\r\n\r\n"
        elif self.until_close:
            data = body
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("The body is longer than its Content-Length.")
            data = body
        if self.head and len(data) > MOST_JOINED_BYTES:
            self.transport.writelines((self.head, data))
            self.head = b""
        elif self.head or data:
            self.transport.write(self.head + data)
            self.head = b""
        if not more_body:
            if self.expected_content_length:
                raise RuntimeError("The body is shorter than its Content-Length.")
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


class ClientConnection(HttpToolsProtocol):  # type: ignore[misc]
    """One connection, in one phase since a moment of the loop's clock."""

    limits = ConnectionLimits()
    # Set for the whole process once it is told to stop: every answer closes its connection.
    stopping = False
    # An object with more than thirty attributes beside these would have a table of its own.
    __slots__ = (
        "chunk_bytes",
        "ending",
        "framing_bytes",
        "head_bytes",
        "phase",
        "refused",
        "since",
    )

    def connection_made(self, transport: Any) -> None:
        """Begin; above the limit the first request is refused, and far above it nothing is read."""
        super().connection_made(transport)
        self.access_log = False
        self.flow = Flow(transport)  # type: ignore[assignment]
        # Few clients send requests behind one another.
        self.pipeline = ()  # type: ignore[assignment]
        transport.set_write_buffer_limits(high=MOST_UNSENT_BYTES)
        self.phase, self.since = HEAD, self.loop.time()
        self.head_bytes = self.chunk_bytes = self.framing_bytes = 0
        # Set once the client sent something wrong behind a request that is being answered.
        self.ending = False
        over = len(self.connections) - self.limits.connections
        self.refused = over > 0
        if over > MOST_REFUSED:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self.ending:
            return
        waited_for_head = self.phase in (HEAD, IDLE)
        self.chunk_bytes = len(data)
        self.framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing here speaks another protocol: the request is answered as HTTP/1.1 allows.
            return
        except httptools.HttpParserError:
            self._refuse(NOT_HTTP)
            return
        if self.phase == HEAD and waited_for_head:
            self.head_bytes += len(data)
            if self.head_bytes > 2 * MOST_HEAD_BYTES:
                self._refuse(HEADERS_TOO_LARGE)
        elif self.phase == BODY and self.framing_bytes > MOST_FRAMING_BYTES:
            self._refuse(NOT_HTTP)

    def on_message_begin(self) -> None:
        """A request begins; what comes of its first line is filled in when its head is whole."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        self.scope = scope
        self.phase, self.since = HEAD, self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header.

        Raises:
            ValueError: it came behind the body. Nothing here uses trailers, and they must not
                pass for headers that a proxy has checked (RFC 9110 6.5.1).
        """
        if self.phase != HEAD:
            raise ValueError("a trailer")
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; one that nobody reads holds the client back."""
        self.framing_bytes = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_headers_complete(self) -> None:
        """Start the application on a request, or queue it behind the one before."""
        parser, scope, url = self.parser, self.scope, self.url
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        app = self._application()
        if b"?" in url or b"#" in url:
            parsed = httptools.parse_url(url)
            scope["path"], scope["raw_path"] = unquote(parsed.path.decode("ascii")), parsed.path
            scope["query_string"] = parsed.query or b""
        else:
            known = len(url) <= MOST_KEPT_URL_BYTES
            scope["path"], scope["raw_path"] = _known_path_of(url) if known else _path_of(url)
            scope["query_string"] = b""
        self.head_bytes = self.framing_bytes = 0
        self.phase, self.since = BODY, self.loop.time()
        before = self.cycle
        keep_alive = version == "1.1" and not self.stopping and parser.should_keep_alive()
        self.cycle = Answer(self, keep_alive=keep_alive)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline = self.pipeline or deque()
            self.pipeline.appendleft((self.cycle, app))

    def on_message_complete(self) -> None:
        """The request is there; what is awaited now is its answer."""
        cycle = self.cycle
        if cycle.response_complete:
            self.phase, self.since = IDLE, self.loop.time()
            return
        cycle.more_body = False
        cycle.message_event.set()
        self.phase = ANSWER

    def on_response_complete(self) -> None:
        """Wait for the next request, or answer the one that waits already."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.ending:
            self.transport.close()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.phase == ANSWER:
            self.phase = IDLE
        elif self.phase == BODY:
            # Answered before its body was there, whose time runs on.
            return
        # The next request's time begins now: until here its client waited for us.
        self.since = self.loop.time()

    def sweep(self, now: float) -> None:
        """Close the connection if its client has let it wait for too long."""
        waited = now - self.since
        if self._behind_another():
            return
        if self.phase == IDLE:
            if waited > self.limits.idle_seconds:
                self.transport.close()
        elif self.phase == HEAD:
            if waited > self.limits.head_seconds:
                # Who has said nothing at all asked for nothing, as browsers that connect ahead.
                self._refuse(TOO_SLOW) if self.head_bytes else self.transport.close()
        elif self.phase == BODY and waited > self.limits.body_seconds:
            self._refuse(TOO_SLOW)

    def _application(self) -> Any:
        """Return what answers this request."""
        if self.refused:
            return TOO_MANY
        if len(self.url) > MOST_URL_BYTES:
            return URL_TOO_LONG
        headers = self.headers
        if len(headers) > MOST_HEADERS or (
            self.head_bytes + self.chunk_bytes > MOST_HEAD_BYTES
            and sum(len(name) + len(value) for name, value in headers) > MOST_HEAD_BYTES
        ):
            return HEADERS_TOO_LARGE
        if self.url[:1] != b"/" and names_another_host(self.url, headers):
            return ANOTHER_HOST
        return self.app

    def _behind_another(self) -> bool:
        """Whether what arrives stands behind a request that is still being answered."""
        if self.phase == BODY:
            return bool(self.pipeline)
        # The cycle is the one before until the next head is whole.
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, answer: Refused) -> None:
        """Answer what is no whole request and close; never amid or instead of another answer."""
        if self.transport.is_closing():
            return
        if self._behind_another():
            self.ending = True
            return
        if self.phase in (HEAD, IDLE) or not self.cycle.response_started:
            self.transport.write(answer.as_bytes())
        self.transport.close()
