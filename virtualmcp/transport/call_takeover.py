"""A stateful client comes back for a call whose process died while it was asked something: this
process goes on with it (protocol.md 2.3.7, 2.4.2, 2.4.4).

The call runs in a task of its own and writes to its stream's log, which goes on where the dead
process's ended; the client reads that log like any other's. Its open questions are not asked
again: it has them, or is sent them with what it missed. A task that the
call was driven as is looked for by its id.
"""

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

import msgspec

from upstreams.legacy_takeover import HeldCall as UpstreamCall
from upstreams.legacy_takeover import HeldQuestion
from virtualmcp import rate_limits
from virtualmcp.eras.era_in import Session
from virtualmcp.routing.orphaned_calls import Orphan
from virtualmcp.transport import call_notes, event_log, held_calls, relayed_calls
from virtualmcp.transport.call_notes import Note, Unposted
from virtualmcp.transport.event_ids import Position
from virtualmcp.transport.event_log import EventLog
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.held_calls import HeldCall
from virtualmcp.transport.http_answers import Accepts
from virtualmcp.transport.response_stream import AnswerStream
from virtualmcp.transport.wire_messages import MalformedMessage, read_message
from virtualmcp.transport.wire_validation import Call, Rejection, legacy_call

logger = logging.getLogger(__name__)

_running: set[asyncio.Task[None]] = set()


async def take_over(exchange: Exchange, session: Session, position: Position) -> EventLog | None:
    """Go on with the call of a stream; returns its log, or None when nothing was left of it, its
    process lives, or its person has too many calls running here for now.

    Raises:
        django.db.Error, VaultError: that can't be found out.
    """
    name = event_log.name_of(position.token)
    if not await call_notes.may_be_left(name) or not rate_limits.enter(exchange.holder.user_id):
        return None
    task = None
    try:
        log, task = await _begin(exchange, session, position)
    finally:
        if task is None:
            rate_limits.leave(exchange.holder.user_id)
    return log


_Begun = tuple[EventLog | None, "asyncio.Task[None] | None"]


async def _begin(exchange: Exchange, session: Session, position: Position) -> _Begun:
    """Take what is left, and go on with it in a task of its own."""
    name = event_log.name_of(position.token)
    note = await held_calls.left_of(name)
    if note is None:
        # The client may have come twice, and the other request was quicker.
        return event_log.find(session.digest, name), None
    log = None
    try:
        call = _call(position, note)
        if call is None:
            await call_notes.forget(name)
            return None, None
        unposted = await call_notes.open_questions(name, note)
        # What a stateful upstream says again has the numbers that it had. A stateless one says
        # nothing again.
        number = max(note.number, position.number) if note.round else note.number
        log = event_log.restore(session.digest, position.token, number, note.events)
        log.floor = max(number, position.number)
    finally:
        if log is None:
            await held_calls.give_back(name)
    inner = _without_connection(exchange)
    stream = AnswerStream(inner, call, session)
    stream.take_over(log, HeldCall(log, note, stream, unposted))
    orphan = _orphan(note, unposted)
    task = asyncio.create_task(relayed_calls.go_on(inner, call, session, stream, orphan))
    _running.add(task)
    task.add_done_callback(_running.discard)
    return log, task


def _call(position: Position, note: Note) -> Call | None:
    """Return the client's request as it was; None where it is none any more."""
    try:
        call = legacy_call(read_message(_request(position, note)), b"")
    except MalformedMessage as malformed:
        logger.error("what is left of a call is no message: %s", malformed)
        return None
    if isinstance(call, Rejection):
        logger.error("what is left of a call is refused: %s", call.message)
        return None
    return call


def _request(position: Position, note: Note) -> bytes:
    params = b',"params":' + note.params if note.params else b""
    method = msgspec.json.encode(note.method)
    return b'{"jsonrpc":"2.0","id":%b,"method":%b%b}' % (position.request_id, method, params)


def _orphan(note: Note, unposted: Unposted) -> Orphan:
    if note.round:
        return Orphan(note.upstream_id, round=note.round, task_id=note.task_id)
    questions = tuple(
        HeldQuestion(one.origin, one.method, one.params, doubtful) for one, doubtful in unposted
    )
    held = UpstreamCall(
        note.request_id,
        note.session_id,
        note.revision,
        note.last_event_id,
        questions,
        note.task_id,
    )
    return Orphan(note.upstream_id, held=held, passed_on=len(unposted) < len(note.asking))


def _without_connection(exchange: Exchange) -> Exchange:
    """Return the request of a call whose client is not connected to it."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: MutableMapping[str, Any]) -> None:
        """Nobody reads."""

    return Exchange(
        receive,
        send,
        exchange.headers,
        (),
        exchange.server,
        exchange.holder,
        Accepts(json=False, events=True),
    )
