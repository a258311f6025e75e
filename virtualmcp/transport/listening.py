"""How clients come to hear of changes: ``subscriptions/listen`` of stateless ones, the GET stream
and ``resources/subscribe`` of stateful ones (protocol.md 2.3.6).

A stateless client is acknowledged what it will be told of, and nothing else is said on that
stream (a45). A stateful session may have several GET streams; each notice goes to the newest
only (a24).
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from upstreams import change_interest
from upstreams.change_interest import Interest
from upstreams.revisions import LEGACY_LATEST
from virtualmcp import raw_members
from virtualmcp.eras.era_in import Session
from virtualmcp.errors import INTERNAL_ERROR, INVALID_PARAMS
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import question_policy, upstream_failures
from virtualmcp.routing.change_listener import ChangeListener
from virtualmcp.routing.client_abilities import LACKS_TASKS, takes_tasks
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.opening import opening
from virtualmcp.routing.task_listener import TaskListener
from virtualmcp.server_identity import raw_server_info
from virtualmcp.transport import event_ids, open_streams, session_notices, session_questions
from virtualmcp.transport.event_ids import EventIdUnknown, Position
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import Header, Refusal, error_body, event, send_json
from virtualmcp.transport.notice_stream import (
    RECONNECT_MILLISECONDS,
    SUBSCRIPTION_ID,
    NoticeStream,
    StreamEnd,
)
from virtualmcp.transport.open_streams import OpenStream, TooManyOpen
from virtualmcp.transport.resumption import ResumedStream
from virtualmcp.transport.wire_messages import Message
from virtualmcp.transport.wire_validation import Call, Rejection

logger = logging.getLogger(__name__)

# How long a client waits for upstreams to agree; what they agree to later is not honoured.
AGREE_SECONDS: Final = 2.0
MOST_RESOURCES: Final = 100
MOST_TASKS: Final = 100
LONGEST_URI: Final = 8_192
_FOR_GOOD: Final = (StreamEnd.SESSION, StreamEnd.ACCESS)
RETRY_AFTER: Final[Header] = (b"retry-after", b"10")
_TOO_MANY = {
    "person": "You have too many open streams here. Close one, then open this one again.",
    "process": "The gateway has as many open streams as it may. Try again in a moment.",
    "stopping": "This process of the gateway is about to stop. Open the stream again.",
}


async def listen(exchange: Exchange, call: Call) -> None:
    """Answer subscriptions/listen: acknowledge, then tell until one side ends the stream."""
    message = call.message
    try:
        wanted = _filter(message)
    except ValueError as fault:
        text = f"params.{fault}" if str(fault).startswith("notifications") else str(fault)
        await exchange.reject(Rejection(400, INVALID_PARAMS, text, id=message.id))
        return
    if not exchange.accepts.events:
        raise events_only()
    assert call.client is not None
    client = question_policy.declared_here(exchange.server, call.client)
    request = ClientRequest(
        exchange.server, exchange.holder, call.era, "subscriptions/listen", client=client
    )
    if wanted.tasks and not takes_tasks(request):
        lacking = upstream_failures.lacks_capability(LACKS_TASKS).error
        assert lacking is not None
        await exchange.reject(
            Rejection(lacking.http_status, lacking.code, lacking.message, lacking.data, message.id)
        )
        return
    info = raw_server_info(exchange.server)
    stream = NoticeStream(exchange, request_id=message.id, server_info=info)
    try:
        open_streams.enter(stream)
    except TooManyOpen as full:
        await _refuse(exchange, message, full)
        return
    try:
        await _listen(exchange, request, wanted, stream)
    finally:
        if stream.listener is not None:
            stream.listener.close()
        if stream.tasks is not None:
            stream.tasks.close()
        open_streams.leave(stream)


async def _listen(
    exchange: Exchange, request: ClientRequest, wanted: Interest, stream: NoticeStream
) -> None:
    found = await opening(exchange.server, exchange.holder, request.client)
    possible = _told_of(wanted, found.capabilities)
    listener = ChangeListener(request, possible.lists, stream.tell)
    stream.listener = listener
    stream.tasks = TaskListener(request, stream.tell)
    honoured, tasks = await asyncio.gather(
        listener.open(possible.uris, AGREE_SECONDS), stream.tasks.open(wanted.tasks, AGREE_SECONDS)
    )
    for uri in possible.uris - honoured:
        listener.unwant(uri)
    await stream.run(_acknowledgement(stream, Interest(possible.lists, honoured, tasks)))


def _told_of(wanted: Interest, capabilities: Mapping[str, Any]) -> Interest:
    """The gateway tells of every list it serves, also where an upstream does not: what it offers
    can change by an administrator's hand."""
    return wanted.within(capabilities)


def _acknowledgement(stream: NoticeStream, honoured: Interest) -> bytes:
    meta = {SUBSCRIPTION_ID: msgspec.Raw(stream.request_id)}
    params = {"notifications": honoured.as_filter(), "_meta": meta}
    method = "notifications/subscriptions/acknowledged"
    return event(raw_members.write({"jsonrpc": "2.0", "method": method, "params": params}))


def _filter(message: Message) -> Interest:
    """Read params.notifications.

    Raises:
        ValueError: it is not a filter, or wants too much; with words for the client.
    """
    raw = message.members.get("notifications")
    try:
        found = None if raw is None else raw_members.value(raw)
    except NotAnObject:
        found = None
    wanted = change_interest.from_filter(found)
    if len(wanted.uris) > MOST_RESOURCES:
        raise ValueError(f"At most {MOST_RESOURCES} resources can be subscribed to on one stream.")
    if len(wanted.tasks) > MOST_TASKS:
        raise ValueError(f"At most {MOST_TASKS} tasks can be listened to on one stream.")
    if any(len(uri) > LONGEST_URI for uri in wanted.uris):
        raise ValueError(f"A URI may have at most {LONGEST_URI} characters.")
    return wanted


async def _refuse(exchange: Exchange, message: Message, full: TooManyOpen) -> None:
    status = 429 if full.whose == "person" else 503
    body = error_body(message.id, INTERNAL_ERROR, _TOO_MANY[full.whose])
    await send_json(exchange.send, status, body, (RETRY_AFTER, *exchange.extra))


def events_only() -> Refusal:
    """Say that this answer is a stream."""
    return Refusal(
        406, "not_acceptable", "This is a stream of events. Name text/event-stream in Accept."
    )


# Stateful clients -----------------------------------------------------------------------------
async def open_get_stream(exchange: Exchange, session: Session) -> None:
    """Answer GET: notices for a session, until one side ends the stream; or, with the id of an
    event of a call's stream, the rest of that stream.

    Raises:
        Refusal: 406, 429 or 503.
    """
    if not exchange.accepts.events:
        raise events_only()
    position = _position(exchange, session)
    if position is not None and position.request_id:
        resumed_stream = ResumedStream(exchange, session, position)
        _enter(resumed_stream)
        try:
            await resumed_stream.run()
        finally:
            open_streams.leave(resumed_stream)
        return
    stream = NoticeStream(exchange, session=session)
    stream.event_token = event_ids.new_token(session.digest)
    stream.before_asking = session_questions.keeping(stream)
    _enter(stream)
    notices = session_notices.join(stream, exchange, session)
    # Who comes back to a stream may have missed something, whichever process it was on.
    resumed = b"last-event-id" in exchange.headers
    loop = asyncio.get_running_loop()
    joining = [loop.create_task(notices.begin(catch_up=resumed))]
    if position is not None:
        joining.append(loop.create_task(session_questions.go_on(stream, position)))
    ended = None
    try:
        ended = await stream.run(_priming(stream, session))
    finally:
        for task in joining:
            task.cancel()
        session_notices.leave(stream, notices)
        session_questions.left(stream, for_good=ended in _FOR_GOOD)
        open_streams.leave(stream)


def _enter(stream: OpenStream) -> None:
    try:
        open_streams.enter(stream)
    except TooManyOpen as full:
        status = 429 if full.whose == "person" else 503
        raise Refusal(status, "too_many_streams", _TOO_MANY[full.whose], (RETRY_AFTER,)) from full


def _position(exchange: Exchange, session: Session) -> Position | None:
    """Return where the client wants to go on. An id that is none of this session's opens an
    ordinary stream, on which anything is said to have changed."""
    last = exchange.headers.get(b"last-event-id")
    try:
        return None if last is None else event_ids.read(session.digest, last)
    except EventIdUnknown:
        return None


def _priming(stream: NoticeStream, session: Session) -> bytes:
    """Give an id to resume from before anything has happened; only the newest clients know an
    event without data (a19)."""
    if session.revision != LEGACY_LATEST:
        return b": open\n\n"
    token = stream.event_token.encode()
    return b"id: %b.0\nretry: %d\ndata: \n\n" % (token, RECONNECT_MILLISECONDS)
