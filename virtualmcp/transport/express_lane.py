"""A warm ``tools/call`` or ``resources/read`` from its bytes to its answer without a task.

No future and no coroutine is made for it either.

A connection whose request begins with a head that it knows (``known_heads``) offers the request
here. Where all that the call needs is in memory, it goes to the upstream at once, and is answered
where the upstream's answer is read. What is checked, counted and written down is the same, by the
same functions, as on the way through ``endpoint``.

Everything else takes that way. Before the call went out that costs nothing: the connection reads
the request as any other. Afterwards ``carry_on`` takes the place of the endpoint: it goes on with
the very exchange that was begun, so that no tool runs twice. The connection has it do so when more
arrives, when the client leaves or the server ends; the call itself, when the answer is anything
but a plain result in one piece, or is not here after ``WAIT_SECONDS``.
"""

import logging
import time
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from upstreams.canonical_call import CallSink
from upstreams.revisions import Era
from upstreams.running_loop import running_loop
from upstreams.sent_call import SentCall
from virtualmcp import call_log, rate_limits
from virtualmcp.eras import era_in, log_levels
from virtualmcp.eras.conversion import CALL, READ
from virtualmcp.eras.era_in import Session
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import call_router, upstream_relay
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import Answer, ClientRequest
from virtualmcp.transport import relayed_calls
from virtualmcp.transport.calls_in_flight import calls_in_flight
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import (
    JSON_HEADERS,
    Header,
    Pieces,
    Receive,
    Scope,
    Send,
    result_pieces,
)
from virtualmcp.transport.known_heads import KnownHead, read
from virtualmcp.transport.overdue import Deadlines
from virtualmcp.transport.response_stream import AnswerStream
from virtualmcp.transport.wire_messages import MalformedMessage, read_message
from virtualmcp.transport.wire_validation import Call, Rejection

__all__ = ["ANSWER_HEADERS", "WAIT_SECONDS", "ExpressCall", "KnownHead", "begin", "read"]

logger = logging.getLogger(__name__)

# Longer calls are watched by a task: somebody has to notice that the client left.
WAIT_SECONDS: Final = 0.05
ANSWER_HEADERS: Final = JSON_HEADERS
_CALL: Final = b'"%b"' % CALL.encode()
_READ: Final = b'"%b"' % READ.encode()

_overdue = Deadlines(every=0.025)


class Client(Protocol):
    """The connection of whoever called."""

    def answer(self, body: Pieces, extra: tuple[Header, ...]) -> None:
        """Send the answer, 200 with ``ANSWER_HEADERS``; all but one of its pieces are small."""

    def carry_on(self) -> None:
        """Go on with the request by ``ExpressCall.carry_on``, an ASGI application."""


class ExpressCall:
    """One call on the way; the connection that began it keeps it until it is answered."""

    __slots__ = (
        "_call",
        "_cancelled",
        "_client",
        "_head",
        "_request",
        "_sent",
        "_session",
        "_target",
        "began",
    )

    def __init__(
        self,
        head: KnownHead,
        call: Call,
        session: Session | None,
        request: ClientRequest,
        target: Target,
        client: Client,
    ) -> None:
        self._head = head
        self._call = call
        self._session = session
        self._request = request
        self._target = target
        self._client = client
        self._cancelled = False
        self._sent: SentCall | None = None
        self.began = time.perf_counter()

    def send(self) -> bool:
        """Send it; False if something has to be awaited or is in the way, and nothing was sent."""
        sent = upstream_relay.send(self._request, self._target, self._may_go, self._told)
        if sent is None:
            return False
        self._sent = sent
        if self._session is not None:
            calls_in_flight.add(self._session.digest, self._call.message.id, self)
        _overdue.add(self, WAIT_SECONDS)
        return True

    def _may_go(self) -> bool:
        return rate_limits.enter(self._request.holder.user_id)

    def _told(self) -> None:
        """The upstream's answer is here, or its failure."""
        sent = self._sent
        assert sent is not None
        try:
            answer = upstream_relay.answer_at_once(self._request, self._target, sent)
        except NotAnObject:
            answer = None
        if answer is None or answer.error is not None:
            self._client.carry_on()
            return
        self.leave_lane()
        try:
            sent.end()
            pieces = result_pieces(self._call.message.id, *answer.pieces())
            self._client.answer(pieces, self._head.extra)
        finally:
            self._count_out("ok")

    def overdue(self) -> None:
        """The answer has not come in time."""
        self._client.carry_on()

    def cancel(self) -> None:
        """End the call because the client asked for it."""
        self._cancelled = True
        self._client.carry_on()

    def leave_lane(self) -> None:
        """Hear no more of the upstream nor of the time."""
        _overdue.discard(self)
        if self._sent is not None:
            self._sent.exchange.stay_silent()
        if self._session is not None:
            calls_in_flight.remove(self._session.digest, self._call.message.id, self)

    def _count_out(self, outcome: str) -> None:
        holder = self._request.holder
        rate_limits.leave(holder.user_id)
        call_log.record(
            self._request.server,
            self._request.method,
            self._call.name,
            holder.user_id,
            holder.client_id,
            outcome,
            time.perf_counter() - self.began,
        )

    async def carry_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the endpoint does, from where the call is."""
        head, request = self._head, self._request
        headers = dict(scope["headers"])
        exchange = Exchange(
            receive, send, headers, head.extra, request.server, request.holder, head.accepts
        )
        stream = AnswerStream(exchange, self._call, self._session)
        if self._cancelled:
            running_loop().call_soon(stream.cancel)
        await relayed_calls.go_on_sent(exchange, self._call, self._session, stream, self)

    def go_on(self, sink: CallSink) -> Coroutine[Any, Any, Answer]:
        """Go on with the exchange that was begun; as ``method_table.answer``."""
        assert self._sent is not None
        return upstream_relay.go_on(self._request, sink, self._target, self._sent)

    def give_up(self) -> None:
        """End the call, with nobody to answer."""
        if self._sent is not None:
            self._sent.give_up()
        self._count_out("failed")


def begin(head: KnownHead, body: bytes, client: Client) -> ExpressCall | None:
    """Send the call that a request makes, if it is one for this lane.

    None if not: then nothing was counted or sent, and the request is read as any other.
    """
    if body[:1] != b"{" or len(body) > head.most_bytes:
        return None
    if _CALL not in body and _READ not in body:
        return None
    server = head.standing()
    holder = head.holder
    if server is None or holder is None:
        return None
    try:
        message = read_message(body)
    except MalformedMessage:
        return None
    if message.method not in (CALL, READ) or not message.id:
        return None
    call = head.classify(message)
    if isinstance(call, Rejection):
        return None
    session = None
    if call.era is Era.LEGACY:
        session = era_in.remembered(call.session, head.slug, holder)
        if session is None or not log_levels.certain(session.level_read_at):
            return None
    request = relayed_calls.client_request(server, holder, call, session)
    target = call_router.at_once(request)
    if target is None:
        return None
    express = ExpressCall(head, call, session, request, target, client)
    return express if express.send() else None
