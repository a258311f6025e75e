"""Which part of the gateway answers a message: by its era, its session and its method."""

import asyncio
import logging
from collections.abc import Coroutine, MutableMapping
from typing import Any

from oauthserver.bearer_tokens import TokenHolder
from upstreams.revisions import Era
from upstreams.token_vault import VaultError
from virtualmcp.eras import era_in, log_levels
from virtualmcp.eras.era_in import Session, SessionUnknown
from virtualmcp.errors import METHOD_NOT_FOUND
from virtualmcp.route_table import VirtualMcpFacts
from virtualmcp.routing import method_table
from virtualmcp.transport import (
    client_questions,
    connection_methods,
    listening,
    resource_subscriptions,
)
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import Accepts, Refusal, Send, unavailable
from virtualmcp.transport.relayed_calls import relay
from virtualmcp.transport.wire_messages import (
    INVALID_REQUEST,
    MalformedMessage,
    Message,
    is_batch,
    read_batch,
    read_message,
)
from virtualmcp.transport.wire_validation import (
    SESSION_HEADER,
    VERSION_HEADER,
    Call,
    Rejection,
    classify,
    legacy_call,
)

logger = logging.getLogger(__name__)


async def dispatch(exchange: Exchange, body: bytes) -> None:
    """Answer the message, or the batch of messages, in a request's body.

    Raises:
        MalformedMessage, Refusal, SessionUnknown: the endpoint words them.
    """
    if body[:1] != b"{" and is_batch(body):
        await _batch(exchange, body)
        return
    message = read_message(body)
    call = classify(exchange.headers, message)
    if isinstance(call, Rejection):
        await exchange.reject(call)
    elif not exchange.accepts.json and not exchange.accepts.events and message.id:
        raise _not_acceptable()
    elif call.era is Era.MODERN:
        await _modern(exchange, call)
    elif call.session:
        session = era_in.remembered(call.session, exchange.server.slug, exchange.holder)
        if session is None:
            session = await session_of(call.session, exchange.server, exchange.holder)
        await _legacy(exchange, call, session)
    elif message.id:
        await _guarded(connection_methods.initialize(exchange, message), exchange, message)
    else:
        raise MalformedMessage(INVALID_REQUEST, "initialize is a request and needs an id.")


def _not_acceptable() -> Refusal:
    return Refusal(
        406,
        "not_acceptable",
        "Answers are application/json or text/event-stream. Name both in the Accept header.",
    )


async def session_of(session_id: bytes, server: VirtualMcpFacts, holder: TokenHolder) -> Session:
    """Return the session of a stateful client.

    Raises:
        SessionUnknown: ended, expired, or somebody else's.
        Refusal: 503 when that can't be found out.
    """
    try:
        return await era_in.find(session_id, server.slug, holder)
    except SessionUnknown:
        raise
    except Exception as failure:
        logger.exception("a session could not be looked up")
        raise unavailable() from failure


def _modern(exchange: Exchange, call: Call) -> Coroutine[Any, Any, None]:
    message = call.message
    if not message.id:
        # This revision has no notifications from clients; one is taken and goes no further.
        return exchange.accept()
    if message.method == "server/discover":
        return _guarded(connection_methods.discover(exchange, call), exchange, message)
    if message.method == "subscriptions/listen":
        return listening.listen(exchange, call)
    if method_table.known(message.method, Era.MODERN):
        return relay(exchange, call, None)
    return _no_such_method(exchange, message, 404)


async def _legacy(exchange: Exchange, call: Call, session: Session) -> None:
    message = call.message
    if message.response:
        await _answered(message, session)
        await exchange.accept()
    elif not message.id:
        await connection_methods.take_notification(message, session)
        await exchange.accept()
    elif method_table.known(message.method, Era.LEGACY):
        if not log_levels.certain(session.level_read_at):
            await era_in.read_level_again(session)
        await relay(exchange, call, session)
    elif message.method == "ping":
        await connection_methods.ping(exchange, message)
    elif message.method == "logging/setLevel":
        await connection_methods.set_log_level(exchange, message, session)
    elif message.method in resource_subscriptions.METHODS:
        subscribing = resource_subscriptions.answer(exchange, message, session)
        await _guarded(subscribing, exchange, message)
    else:
        await _no_such_method(exchange, message, 200)


async def _answered(message: Message, session: Session) -> None:
    """Pass a response on to the call, on whichever node, that asked for it.

    Raises:
        Refusal: 503 when it can't be passed on now.
    """
    try:
        if not await client_questions.take_answer(message, session):
            logger.debug("a response to no question, in session %s", session.digest[:12])
    except Exception as failure:
        logger.exception("the answer to a question could not be passed on")
        raise unavailable() from failure


async def _no_such_method(exchange: Exchange, message: Message, status: int) -> None:
    text = f"This server has no method {message.method[:100]!r}."
    await exchange.reject(Rejection(status, METHOD_NOT_FOUND, text, id=message.id))


async def _guarded(answering: Any, exchange: Exchange, message: Message) -> None:
    """Await the answer of a connection method; what fails in it is said, not dropped."""
    try:
        await answering
    except VaultError as failure:
        logger.exception("the encryption keys are not usable")
        raise unavailable() from failure
    except Exception as failure:
        logger.exception("%s failed in the gateway", message.method[:64])
        raise unavailable() from failure


async def _batch(exchange: Exchange, body: bytes) -> None:
    """Serve the messages of a batch side by side, where the revision has batches (a27)."""
    messages = read_batch(body)
    session_id = exchange.headers.get(SESSION_HEADER)
    version = exchange.headers.get(VERSION_HEADER, era_in.BATCHING_REVISION.encode())
    session = None
    if session_id is not None and version == era_in.BATCHING_REVISION.encode():
        session = await session_of(session_id, exchange.server, exchange.holder)
    if session is None or not session.batches:
        raise MalformedMessage(INVALID_REQUEST, "Send one message at a time, not a JSON array.")
    assert session_id is not None
    if not exchange.accepts.json and not exchange.accepts.events:
        raise _not_acceptable()
    parts = [_Part() for _ in messages]
    await asyncio.gather(
        *(
            _in_batch(exchange, message, session_id, session, part)
            for message, part in zip(messages, parts, strict=True)
        )
    )
    answers = [part.body for part in parts if part.body]
    if answers:
        await exchange.answer(b"[" + b",".join(answers) + b"]")
    else:
        await exchange.accept()


class _Part:
    """Collects the answer to one message of a batch, in place of a connection."""

    def __init__(self) -> None:
        self.body = b""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Keep what would have been written."""
        if message["type"] == "http.response.body":
            self.body += message.get("body", b"")


async def _in_batch(
    exchange: Exchange, body: bytes, session_id: bytes, session: Session, part: _Part
) -> None:
    send: Send = part.send
    # Interim messages have no place in one JSON array, so they are not asked for.
    inner = Exchange(
        exchange.receive,
        send,
        exchange.headers,
        (),
        exchange.server,
        exchange.holder,
        Accepts(json=True, events=False),
    )
    try:
        message = read_message(body)
        call = (
            Rejection(400, INVALID_REQUEST, "initialize stands alone.", id=message.id or b"null")
            if message.method == "initialize"
            else legacy_call(message, session_id)
        )
        if isinstance(call, Rejection):
            await inner.reject(call)
        else:
            await _legacy(inner, call, session)
    except MalformedMessage as fault:
        await inner.reject(Rejection(400, fault.code, fault.message, id=fault.id))
