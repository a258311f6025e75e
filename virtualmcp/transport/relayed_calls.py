"""A request that the router answers: counted in, carried, cancelled if need be, written down."""

import logging
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from oauthserver.bearer_tokens import TokenHolder
from virtualmcp import call_log, rate_limits
from virtualmcp.eras.era_in import Session
from virtualmcp.errors import INTERNAL_ERROR
from virtualmcp.route_table import VirtualMcpFacts
from virtualmcp.routing import method_table, question_policy
from virtualmcp.routing.client_request import Answer, ClientRequest, WireError
from virtualmcp.routing.orphaned_calls import Orphan
from virtualmcp.transport.call_ends import End
from virtualmcp.transport.calls_in_flight import calls_in_flight
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import error_body, send_json
from virtualmcp.transport.response_stream import AnswerStream
from virtualmcp.transport.wire_validation import Call

logger = logging.getLogger(__name__)

_RETRY_AFTER = (b"retry-after", b"%d" % rate_limits.RETRY_AFTER_SECONDS)
_TOO_MANY = "You have too many calls running here. Wait for some to end, then send this one again."
_FAULT = Answer(
    error=WireError(
        INTERNAL_ERROR,
        "The gateway failed while it answered this. The administrator finds the reason in the log.",
        http_status=500,
    )
)


def relay(exchange: Exchange, call: Call, session: Session | None) -> Coroutine[Any, Any, None]:
    """Answer one request through the router and record how it ended."""
    if not rate_limits.enter(exchange.holder.user_id):
        return _refuse_too_many(exchange, call)
    return _carry(exchange, call, session, AnswerStream(exchange, call, session))


async def go_on(
    exchange: Exchange, call: Call, session: Session, stream: AnswerStream, orphan: Orphan
) -> None:
    """Go on with a call whose process died, counted in already; it speaks to its stream's log."""
    await _carry(exchange, call, session, stream, orphan)


class UnderWay(Protocol):
    """A call that was counted in and sent before there was a task for it (``express_lane``)."""

    began: float

    def go_on(self, sink: AnswerStream) -> Coroutine[Any, Any, Answer]:
        """Go on with it; as ``method_table.answer``."""


async def go_on_sent(
    exchange: Exchange, call: Call, session: Session | None, stream: AnswerStream, sent: UnderWay
) -> None:
    """Go on with a call that was sent already."""
    await _carry(exchange, call, session, stream, sent=sent)


async def _carry(
    exchange: Exchange,
    call: Call,
    session: Session | None,
    stream: AnswerStream,
    orphan: Orphan | None = None,
    sent: UnderWay | None = None,
) -> None:
    """Carry a call that was counted in to its end; one that is under way from where it is."""
    holder, message = exchange.holder, call.message
    began = time.perf_counter() if sent is None else sent.began
    outcome = "failed"
    if session is not None:
        calls_in_flight.add(session.digest, message.id, stream)
    try:
        if sent is None:
            request = client_request(exchange.server, exchange.holder, call, session, orphan)
            answering = method_table.answer(request, stream)
        else:
            answering = sent.go_on(stream)
        outcome = _outcome(await stream.carry(answering))
    except Exception:
        logger.exception("%s failed in the gateway", message.method[:64])
        await stream.fail(_FAULT)
    finally:
        if session is not None:
            calls_in_flight.remove(session.digest, message.id, stream)
        rate_limits.leave(holder.user_id)
        call_log.record(
            exchange.server,
            message.method,
            call.name,
            holder.user_id,
            holder.client_id,
            outcome,
            time.perf_counter() - began,
        )


def client_request(
    server: VirtualMcpFacts,
    holder: TokenHolder,
    call: Call,
    session: Session | None,
    orphan: Orphan | None = None,
) -> ClientRequest:
    """Put together what the router is asked."""
    message = call.message
    if session is None:
        assert call.client is not None
        facts, log_level = call.client, call.log_level
    else:
        facts, log_level = session.facts, session.log_level
    return ClientRequest(
        server,
        holder,
        call.era,
        message.method,
        message.params,
        question_policy.declared_here(server, facts),
        call.progress_token,
        log_level,
        call.param_headers,
        message.members,
        call.name or None,
        orphan,
        "" if session is None else session.digest,
    )


def _outcome(ended: Answer | End) -> str:
    if isinstance(ended, End):
        return ended.value
    return "ok" if ended.error is None else f"error {ended.error.code}"


async def _refuse_too_many(exchange: Exchange, call: Call) -> None:
    call_log.record(
        exchange.server,
        call.message.method,
        call.name,
        exchange.holder.user_id,
        exchange.holder.client_id,
        "too_many",
        0.0,
    )
    data = b'{"retryAfterSeconds":%d}' % rate_limits.RETRY_AFTER_SECONDS
    body = error_body(call.message.id, INTERNAL_ERROR, _TOO_MANY, data)
    await send_json(exchange.send, 429, body, (_RETRY_AFTER, *exchange.extra))
