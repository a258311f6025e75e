"""A client's connection on Daphne, with the express lane that uvicorn's connections have.

Twisted reads a request line by line, makes a request object of it and has the reactor write the
answer in its next turn; Daphne then makes a scope, a queue and a task. Together that is most of
what a call costs there. A request that is whole in one read and begins with a head that was read,
checked and answered before (``request_beginnings``) is offered to the lane first
(``virtualmcp.transport.express_lane``). Whatever the lane does not take, or can't finish at once,
goes to Twisted's parser as it came, and where the call is under way already, what answers it goes
on with it (``daphne_server``).

Written against Twisted 26.10; ``tests/virtualmcp/test_express_channel.py`` holds it to that.
"""

from typing import Any, ClassVar
from urllib.parse import unquote

from twisted.web.http import HTTPChannel

from gateway_site.refused_requests import header_line
from gateway_site.request_beginnings import Begun, begun, may_be_known, remember


class ExpressChannel(HTTPChannel):  # type: ignore[misc]
    """A connection; a ``Client`` of the lane.

    Attributes:
        lane: what requests are offered to (``virtualmcp.transport.express_lane``); None for none.
        running: the call that the lane has taken and not answered yet.
    """

    lane: ClassVar[Any] = None
    _begin_of_answer: ClassVar[bytes] = b""
    # Most connections of a first look make one request: what these hold begins with the lane.
    running: Any = None
    _known: dict[bytes, Any] | None = None
    # The request that is running, or a known head whose body is not here yet.
    _unread = b""
    # The digest of a head that the parser has read, and its request, whose body is to come.
    _learning: tuple[bytes, Any] | None = None
    # What answers the request that the parser is given next, in place of the application.
    _going_on: Any = None

    def connectionMade(self) -> None:  # noqa: N802
        """Begin."""
        # A request that is made of a call whose client has left could not ask the socket any more.
        self._host = self.transport.getHost()
        super().connectionMade()
        self.factory.server.channels.add(self)

    def getHost(self) -> Any:  # noqa: N802
        """Return the address that the client connected to."""
        return self._host

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Offer a whole request to the lane; read everything else."""
        if self.running is not None:
            # What comes behind a request waits its turn as behind any other.
            self.carry_on()
        elif self._unread:
            # The rest of a request whose head came alone: most clients write the two apart.
            data, self._unread = self._unread + data, b""
        if self.lane is not None and self._between_requests():
            head = begun(data)
            if head is not None and head.end >= len(data):
                self._take(data, head)
                return
        learning, self._learning = self._learning, None
        super().dataReceived(data)
        if learning is not None and self._handles(learning[1]):
            self._remember(*learning)

    def _between_requests(self) -> bool:
        """Whether nothing of a request is here, and the connection takes an answer."""
        return not (
            self.requests
            or self._buffer
            or self._busyReceiving
            or any(self._dataBuffer)
            or self._waitingForTransport
            or self.transport.disconnecting
            or not self.persistent
        )

    def _handles(self, request: Any) -> bool:
        return self._handlingRequest and bool(self.requests) and self.requests[0] is request

    def _take(self, data: bytes, begun: Begun) -> None:
        """Take a read that holds a request or the beginning of one, and nothing behind it."""
        digest, start, end = begun
        head = None if self._known is None else self._known.get(digest)
        if head is not None:
            if end > start == len(data):
                self.resetTimeout()
                self._unread = data
                return
            call = self.lane.begin(head, data[start:], self) if end == len(data) else None
            if call is not None:
                self.resetTimeout()
                self.running, self._unread = call, data
                return
        super().dataReceived(data)
        if head is not None or not self.requests:
            return
        # Nothing is learned but where the parser sees the head end as it was seen here.
        request = self.requests[0]
        if not self._handlingRequest:
            if start == len(data):
                self._learning = digest, request
        elif end == len(data) and _body_of(request) == data[start:]:
            self._remember(digest, request)

    def _remember(self, digest: bytes, request: Any) -> None:
        """Know the head of the request that the parser has just read."""
        if (
            not self.persistent
            or any(self._dataBuffer)
            or request.method != b"POST"
            # It was refused before there was an application.
            or request.application_queue is None
            or not may_be_known(name for name, _ in request.clean_headers)
        ):
            return
        head = self.lane.read(unquote(request.path.decode("ascii")), request.clean_headers)
        if head is None:
            return
        if self._known is None:
            self._known = {}
        remember(self._known, digest, head)

    def answer(
        self, body: tuple[bytes | memoryview, ...], extra: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        """Send the answer of the call that was running; its body comes in pieces."""
        self.running, self._unread = None, b""
        transport = self.transport
        if transport.disconnecting or not transport.connected:
            return
        begin = self._begin_of_answer
        if not begin:
            lines = [header_line(*header) for header in self.lane.ANSWER_HEADERS]
            begin = type(self)._begin_of_answer = b"HTTP/1.1 200 OK\r\n" + b"".join(lines)
        lines = [header_line(*header) for header in extra]
        head = b"%bcontent-length: %d\r\n%b\r\n" % (begin, sum(map(len, body)), b"".join(lines))
        _write(transport, b"".join((head, *body)))

    def carry_on(self) -> None:
        """Have the call that was running go on as a request that the parser has read."""
        call, data = self.running, self._unread
        if call is None:
            return
        self.running, self._unread = None, b""
        call.leave_lane()
        self._going_on = call
        super().dataReceived(data)
        if self.take_over() is not None:
            # Not possible with a head that the parser has taken before.
            call.give_up()

    def take_over(self) -> Any:
        """Return the call that the request which has just been read goes on with, None for none;
        asked once."""
        call, self._going_on = self._going_on, None
        return call

    def leave_lane(self) -> None:
        """The server ends: nothing begins on the lane any more, and what runs there goes on as a
        request that can be waited for."""
        self.lane = None  # type: ignore[misc]
        self.carry_on()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Tell whoever answers that the client is gone."""
        self.factory.server.channels.discard(self)
        self.carry_on()
        super().connectionLost(reason)


def _body_of(request: Any) -> bytes:
    """Return the body as the parser has read it."""
    request.content.seek(0)
    body: bytes = request.content.read()
    return body


def _write(transport: Any, data: bytes) -> None:
    """Write at once what the socket takes, and the rest, or behind what waits, by the reactor:
    having it do so costs two calls to the kernel more for each answer."""
    if not (transport.dataBuffer or transport._tempDataBuffer):
        written = transport.writeSomeData(data)
        if written == len(data):
            return
        # The reactor finds out anew what is wrong with a connection that failed.
        if isinstance(written, int) and written > 0:
            data = data[written:]
    transport.write(data)
