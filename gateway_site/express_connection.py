"""A client's connection with an express lane for requests that begin with a head it knows.

Clients repeat the head of a request on a connection, but for its ``Content-Length``. A head that
was read, checked and answered before is recognised by its bytes, and a request that is whole in
one read and begins with it is offered to the lane (``virtualmcp.transport.express_lane``), which
costs a fraction of what a parser's callbacks, a scope and a task do. The parser never sees a
request that the lane answers.

Whatever the lane does not take, or can't finish at once, is read as any other request: the bytes
go to the parser, and where the call is under way already, what answers it goes on with it.
"""

from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway_site.client_connections import (
    ANSWER,
    BODY,
    HEAD,
    IDLE,
    MOST_JOINED_BYTES,
    ClientConnection,
)
from gateway_site.refused_requests import header_line
from gateway_site.request_beginnings import Begun, begun, may_be_known, remember


class ExpressConnection(ClientConnection):
    """A connection; a ``Client`` of the lane.

    Attributes:
        lane: what requests are offered to (``virtualmcp.transport.express_lane``); None for none.
        running: the call that the lane has taken and not answered yet.
    """

    lane: ClassVar[Any] = None
    _answer_head: ClassVar[tuple[Any, bytes]] = (None, b"")
    __slots__ = ("going_on", "known", "learning", "running", "unread")

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(transport)
        self.known: dict[bytes, Any] | None = None
        self.running: Any = None
        # The request that is running, or a known head whose body is not here yet.
        self.unread = b""
        # The digest of a head that the parser has read, and its request, whose body is to come.
        self.learning: tuple[bytes, Any] | None = None
        # What answers the request that the parser is given next, in place of the application.
        self.going_on: Any = None

    def data_received(self, data: bytes) -> None:
        """Offer a whole request to the lane; read everything else."""
        if self.running is not None:
            # What comes behind a request waits its turn as behind any other.
            self.carry_on()
        elif self.unread:
            # The rest of a request whose head came alone: most clients write the two apart.
            data, self.unread = self.unread + data, b""
            self.phase = IDLE
        if self.lane is not None and self._between_requests():
            head = begun(data)
            if head is not None and head.end >= len(data):
                self._take(data, head)
                return
        learning, self.learning = self.learning, None
        super().data_received(data)
        if learning is not None and self.cycle is learning[1] and self.phase == ANSWER:
            self._remember(learning[0])

    def _between_requests(self) -> bool:
        if self.phase == IDLE:
            return not self.stopping and not self.flow.write_paused
        return self.phase == HEAD and self.cycle is None and not self.head_bytes

    def _take(self, data: bytes, begun: Begun) -> None:
        """Take a read that holds a request or the beginning of one, and nothing behind it."""
        digest, start, end = begun
        head = None if self.known is None else self.known.get(digest)
        if head is not None:
            if end > start == len(data):
                self.unread = data
                self.phase, self.since = BODY, self.loop.time()
                return
            call = self.lane.begin(head, data[start:], self) if end == len(data) else None
            if call is not None:
                self.running, self.unread = call, data
                self.phase = ANSWER
                return
        before = self.cycle
        super().data_received(data)
        # Nothing is learned but where the parser sees the head end as it was seen here.
        if head is None and self.cycle is not before and self.cycle.body == data[start:]:
            if self.phase == ANSWER:
                self._remember(digest)
            elif start == len(data):
                self.learning = digest, self.cycle

    def _remember(self, digest: bytes) -> None:
        """Know the head of the request that the parser has just read."""
        if (
            not self.cycle.keep_alive
            or self.pipeline
            or self.scope["method"] != "POST"
            or not may_be_known(name for name, _ in self.headers)
            or self._application() is not self.app
        ):
            return
        head = self.lane.read(self.scope["path"], self.headers)
        if head is None:
            return
        if self.known is None:
            self.known = {}
        remember(self.known, digest, head)

    def answer(
        self, body: tuple[bytes | memoryview, ...], extra: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        """Send the answer of the call that was running; its body comes in pieces."""
        self.running, self.unread = None, b""
        self.server_state.total_requests += 1
        transport = self.transport
        if transport.is_closing():
            return
        lines = b"".join([header_line(*header) for header in extra]) if extra else b""
        size = sum(map(len, body))
        head = b"%bcontent-length: %d\r\n%b\r\n" % (self._begin_of_answer(), size, lines)
        if size > MOST_JOINED_BYTES:
            transport.writelines((head, *body))
        else:
            transport.write(b"".join((head, *body)))
        self.phase, self.since = IDLE, self.loop.time()

    def _begin_of_answer(self) -> bytes:
        """Return what begins every answer of this second: uvicorn makes its own headers anew then,
        for the date."""
        own = self.server_state.default_headers
        made_for, begin = self._answer_head
        if made_for is not own:
            lines = [header_line(*header) for header in (*own, *self.lane.ANSWER_HEADERS)]
            begin = STATUS_LINE[200] + b"".join(lines)
            type(self)._answer_head = (own, begin)
        return begin

    def carry_on(self) -> None:
        """Have the call that was running go on as a request that the parser has read."""
        call, data = self.running, self.unread
        if call is None:
            return
        self.running, self.unread = None, b""
        call.leave_lane()
        self.going_on, self.phase = call, IDLE
        super().data_received(data)
        if self.going_on is not None:
            # Not possible with a head that the parser has taken before.
            self.going_on = None
            call.give_up()

    def _application(self) -> Any:
        call, self.going_on = self.going_on, None
        return super()._application() if call is None else call.carry_on

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever answers that the client is gone."""
        self.carry_on()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close once the running call is answered."""
        self.carry_on()
        self._read_unread()
        super().shutdown()

    def sweep(self, now: float) -> None:
        """Do as every connection does; a head that waits for its body is read then."""
        if self.running is None:
            self._read_unread()
        super().sweep(now)

    def _read_unread(self) -> None:
        data, self.unread = self.unread, b""
        if data:
            since, self.phase = self.since, IDLE
            super().data_received(data)
            self.since = since
