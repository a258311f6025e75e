"""One HTTP/1.1 connection to an upstream: writes a request, parses the answer, keeps or closes.

A connection carries one exchange at a time and nothing between exchanges: no cookies, no
redirects, no decoding. Bytes that arrive when no answer is awaited, or behind a complete
answer, close the connection and never become another answer (security.md fact 6, #192).
Time limits are checked by the pool's sweep, so that a call costs no timer of its own.
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import httptools

from upstreams.exchange_faults import AnswerRefused, Dropped, TimedOut

# security.md section 3, the contract of limits.
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
READ_BYTES = 64 * 1024
# The first read of an answer, and those of a document, take more: most come in one piece then.
WHOLE_READ_BYTES = 128 * 1024
# With a read more, and what the client's side of a server holds, it stays below 256 KiB a stream.
HIGH_WATER = 48 * 1024
# Who reads a document waits for all of it anyway: its reading is not stopped and started again.
DOCUMENT_HIGH_WATER = 1024 * 1024
DRAIN_BYTES = 64 * 1024
MAX_INFORMATIONAL = 8
# The response headers anybody above this module may see (security.md #194).
KEPT_HEADERS = frozenset(
    {b"content-type", b"mcp-session-id", b"www-authenticate", b"retry-after", b"content-length"}
)
IDLE, WAITING, BODY, DONE, CLOSED = range(5)
_POLL_BROKEN = select.POLLIN | select.POLLHUP | select.POLLERR


class RelayConnection(asyncio.BufferedProtocol):
    """An open connection; made by ``connection_pool.OriginPool``.

    ``buffer`` is shared by all connections of a loop: what is read into it is parsed before
    control returns to the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview, pool: Any) -> None:
        self._loop = loop
        self._buffer = buffer
        self._stream_buffer = buffer[:READ_BYTES]
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self.address = ""
        self.phase = IDLE
        self.idle_until = 0.0
        self._keep_alive_for = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._told: Callable[[], None] | None = None
        self._parts: deque[bytes] = deque()
        self._forget_answer()

    def _forget_answer(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._parts.clear()
        self._buffered = 0
        self._high_water = HIGH_WATER
        self._paused = False
        self._error: Exception | None = None
        self._keep_alive = False
        self._framed = False
        self._begun = False
        self._fed = 0
        self._head_bytes = 0
        self._header_count = 0
        self._informational = 0
        self._drained = -1
        self.first_byte_by = 0.0
        self.deadline = 0.0

    # The exchange, as its owner drives it ---------------------------------------------------
    async def send(
        self, head: bytes, body: bytes, *, first_byte_by: float, deadline: float
    ) -> None:
        """Write a request and wait for the head of its answer; times are the loop's.

        Raises:
            Dropped, AnswerRefused, TimedOut: then the connection is closed already.
        """
        self.start(head, body, first_byte_by=first_byte_by, deadline=deadline)
        await self._wait()

    def start(
        self,
        head: bytes,
        body: bytes,
        *,
        first_byte_by: float,
        deadline: float,
        told: Callable[[], None] | None = None,
    ) -> None:
        """Write a request; as ``send``, without waiting.

        ``told`` is called once: when the answer is a JSON document that is whole, when its head
        shows that it is none, or when the exchange has failed.

        Raises:
            Dropped: the connection is closed already.
        """
        transport = self._transport
        if self.phase != IDLE or transport is None:
            raise Dropped(untouched=True)
        self._forget_answer()
        self.phase = WAITING
        self.first_byte_by = first_byte_by
        self.deadline = deadline
        self._told = told
        if len(body) <= READ_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    async def answered(self) -> None:
        """Wait for the head of the answer to a request that was started; nobody is told any more.

        Raises:
            Dropped, AnswerRefused, TimedOut: as for ``send``.
        """
        self.tell_nobody()
        if self.phase == WAITING:
            await self._wait()
        elif self._error is not None and self.phase == CLOSED and not self._parts:
            raise self._error

    def tell_nobody(self) -> None:
        """Forget who wanted to be told of the answer."""
        self._told = None

    async def chunk(self) -> bytes:
        """Return the next piece of the body, ``b""`` at its end; reading on is the back-pressure.

        Raises:
            Dropped, AnswerRefused, TimedOut: as for ``send``.
        """
        while True:
            if self._parts:
                return self._take()
            if self.phase == DONE:
                return b""
            if self._error is not None or self.phase != BODY:
                raise self._error or Dropped(untouched=False)
            # Only when all is out of hand is more let in; the kernel reads ahead meanwhile.
            if self._paused:
                self._resume()
            await self._wait()

    def _take(self) -> bytes:
        """Return all that is there, or of more than a read about one read's worth.

        A slow reader's process holds what was taken, what is here and what the client's
        connection holds: together at most 256 KiB (security.md 3).
        """
        parts = self._parts
        if self._buffered <= READ_BYTES:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
        else:
            taken = [parts.popleft()]
            size = len(taken[0])
            while parts and size + len(parts[0]) <= READ_BYTES:
                size += len(parts[0])
                taken.append(parts.popleft())
            data = b"".join(taken)
        self._buffered -= len(data)
        return data

    def whole_body(self) -> bytes | None:
        """Return the body if it has arrived completely, else None; costs no task switch."""
        if self.phase != DONE:
            return None
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._buffered = 0
        return data

    def document(self) -> bytes | None:
        """Return the body if it has arrived completely; unlike ``whole_body``, it stays."""
        return b"".join(self._parts) if self.phase == DONE else None

    def finish(self, *, drain: bool, now: float) -> None:
        """Give the connection back to its pool if another exchange may use it, else close it.

        ``drain``: the answer is known although its end has not arrived, as after the final
        event of a stream; the end may take another second.
        """
        if self.phase == DONE and self._reusable():
            if self._paused and self._read_on_over_tls():
                self._loop.call_soon(self._after_drain)
            else:
                self._release(now)
        elif drain and self.phase == BODY and self._keep_alive and self._framed:
            self._drained = 0
            self.first_byte_by = self.deadline = now + 1.0
            self._parts.clear()
            if self._paused:
                self._resume()
        else:
            self.abort()

    def _read_on_over_tls(self) -> bool:
        """Let more in; True where TLS may hold bytes behind the end that no poll shows."""
        self._resume()
        transport = self._transport
        return transport is not None and transport.get_extra_info("ssl_object") is not None

    def _reusable(self) -> bool:
        transport = self._transport
        return (
            self._keep_alive
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )

    def _release(self, now: float) -> None:
        self.headers = {}
        self._parts.clear()
        self.phase = IDLE
        self._pool.put(self, now, self._keep_alive_for)

    def is_alive(self) -> bool:
        """Whether the idle connection can be used: open, and silent as it should be.

        Asking the socket itself sees an end that the loop has not yet been told of.
        """
        transport = self._transport
        return (
            self.phase == IDLE
            and transport is not None
            and not transport.is_closing()
            and not self._poll.poll(0)
        )

    def check_time(self, now: float) -> None:
        """End the exchange if one of its limits has passed; called by the pool's sweep."""
        if self.phase == WAITING and now > self.first_byte_by:
            self._fail(TimedOut("no answer"))
        elif self.phase in (WAITING, BODY) and now > self.deadline:
            self._fail(TimedOut("no end of the answer"))

    def abort(self) -> None:
        """Close at once; the peer notices without delay."""
        self.phase = CLOSED
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self._error is not None and self.phase == CLOSED and not self._parts:
            raise self._error

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _may_come_whole(self) -> bool:
        if self.phase != BODY:
            return self.phase == WAITING
        json = self.status == 200 and b"json" in self.headers.get(b"content-type", b"")
        return json and not self._paused

    def _tell(self) -> None:
        """Call who is to be told, between two reads: an answer's end is known only then."""
        told, self._told = self._told, None
        if told is not None:
            told()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.abort()
        self._wake()
        self._tell()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # asyncio --------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (TLS is established already)."""
        self._transport = cast(asyncio.Transport, transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), _POLL_BROKEN)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the loop's shared buffer for one read."""
        streamed = self.phase == BODY and self._high_water == HIGH_WATER
        return self._stream_buffer if streamed else self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what was read."""
        phase = self.phase
        if phase not in (WAITING, BODY) or self._parser is None:
            self._keep_alive = False
            if phase != DONE:
                self.phase = CLOSED
            if self._transport is not None:
                self._transport.abort()
            return
        self._fed += nbytes
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserError as error:
            self._keep_alive = False
            if self.phase in (WAITING, BODY):
                reason = error.__context__
                known = isinstance(reason, AnswerRefused)
                self._fail(reason if known else AnswerRefused("the answer is not valid HTTP"))
        except httptools.HttpParserUpgrade:
            self._fail(AnswerRefused("the upstream tried to switch protocols"))
        else:
            if self.phase == WAITING and self._fed > MAX_HEAD_BYTES:
                self._fail(AnswerRefused("the answer's headers are too large"))
        if self._told is not None and not self._may_come_whole():
            self._tell()

    def eof_received(self) -> None:
        """Let the transport close itself; ``connection_lost`` follows."""

    def connection_lost(self, error: Exception | None) -> None:
        """Decide what the end of the connection means for a running exchange."""
        phase, self.phase = self.phase, CLOSED
        if phase == BODY and not self._framed and error is None and self._drained < 0:
            # RFC 9112 6.3: without a length the end of the connection is the end of the body.
            self.phase = DONE
            self._keep_alive = False
        elif phase in (WAITING, BODY):
            self._error = Dropped(untouched=self._fed == 0)
        elif phase == DONE:
            self.phase = DONE
            self._keep_alive = False
        self._transport = None
        self._parser = None
        self._pool.forget(self)
        self._wake()
        self._tell()

    # httptools ------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        """Refuse a second answer behind the first."""
        if self._begun or self.phase != WAITING:
            raise AnswerRefused("bytes behind the answer")
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count every header, keep the few that matter; trailers only count."""
        self._header_count += 1
        self._head_bytes += len(name) + len(value)
        if self._header_count > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            raise AnswerRefused("the answer has too many headers")
        if self.phase != WAITING:
            return
        name = name.lower()
        if name in KEPT_HEADERS:
            known = self.headers.get(name)
            if known is None:
                self.headers[name] = value
                self._framed = self._framed or name == b"content-length"
            elif name == b"www-authenticate":
                self.headers[name] = known + b", " + value
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise AnswerRefused("the answer has a transfer encoding that was not asked for")
            self._framed = True
        elif name == b"content-encoding":
            if value.strip().lower() not in (b"", b"identity"):
                raise AnswerRefused("the answer is compressed although that was not asked for")
        elif name == b"keep-alive":
            self._keep_alive_for = keep_alive_seconds(value)

    def on_headers_complete(self) -> None:
        """The head is there: wake the owner, unless the answer is only informational."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise AnswerRefused("too many informational answers")
            return
        self.status = status
        self._keep_alive = self._parser.should_keep_alive()
        headers = self.headers
        if b"content-length" in headers and b"json" in headers.get(b"content-type", b""):
            self._high_water = DOCUMENT_HIGH_WATER
        self.phase = BODY
        self._wake()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body; stop reading when the owner is behind."""
        if self._drained >= 0:
            self._drained += len(data)
            if self._drained > DRAIN_BYTES:
                raise AnswerRefused("the stream goes on after its final event")
            return
        self._parts.append(data)
        self._buffered += len(data)
        if self._buffered >= self._high_water and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was only informational (RFC 9110 15.2)."""
        if self.status == 0:
            self._begun = False
            self.headers = {}
            self._framed = False
            return
        self.phase = DONE
        if self._drained < 0:
            self._wake()
        elif self._reusable():
            self._loop.call_soon(self._after_drain)
        else:
            self.abort()

    def _after_drain(self) -> None:
        # Only now is it known that nothing followed the end in the same read.
        if self.phase == DONE and self._reusable():
            self._release(self._loop.time())
        elif self.phase != IDLE:
            self.abort()


def keep_alive_seconds(value: bytes) -> float:
    """Return the ``timeout`` of a ``Keep-Alive`` header less a second for the way, 0 if none."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.lower() == b"timeout" and number.isdigit() and len(number) < 7:
            return max(float(number) - 1.0, 0.5)
    return 0.0
