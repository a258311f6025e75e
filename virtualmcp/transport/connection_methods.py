"""What concerns the connection itself and ends at the gateway: opening, ping, levels, notices."""

import logging

import msgspec

from upstreams import legacy_sessions
from upstreams.revisions import META_SERVER_INFO, SUPPORTED
from virtualmcp.eras import era_in
from virtualmcp.eras.era_in import ClientTooTalkative, Session
from virtualmcp.errors import INVALID_PARAMS
from virtualmcp.raw_members import text
from virtualmcp.routing import question_policy
from virtualmcp.routing.opening import opening
from virtualmcp.transport import roots_notices
from virtualmcp.transport.calls_in_flight import calls_in_flight, tell_others_to_cancel
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import result_body, unavailable
from virtualmcp.transport.wire_messages import Message, is_object
from virtualmcp.transport.wire_validation import LOG_LEVELS, Call, Rejection

logger = logging.getLogger(__name__)

_EMPTY = b"{}"


async def initialize(exchange: Exchange, message: Message) -> None:
    """Open a session: negotiate the revision and seal what the client says (a10, a11)."""
    members = message.members
    requested = text(members.get("protocolVersion"))
    if requested is None:
        await exchange.reject(_invalid(message, "params.protocolVersion must be a string."))
        return
    capabilities, info = members.get("capabilities"), members.get("clientInfo")
    revision = era_in.negotiated(requested)
    try:
        session_id, facts = era_in.open_session(
            exchange.server.slug,
            exchange.holder,
            revision,
            bytes(capabilities) if is_object(capabilities) else _EMPTY,
            bytes(info) if is_object(info) else b"",
        )
    except ClientTooTalkative as error:
        await exchange.reject(_invalid(message, f"params hold {error}. Declare less."))
        return
    declared = question_policy.declared_here(exchange.server, facts)
    found = await opening(exchange.server, exchange.holder, declared)
    result = {
        "protocolVersion": revision,
        "capabilities": found.capabilities,
        "serverInfo": found.server_info,
    }
    if found.instructions:
        result["instructions"] = found.instructions
    await exchange.answer(
        result_body(message.id, msgspec.json.encode(result)),
        ((b"mcp-session-id", session_id.encode()),),
    )


async def discover(exchange: Exchange, call: Call) -> None:
    """Tell a stateless client what is served here (a12)."""
    assert call.client is not None
    declared = question_policy.declared_here(exchange.server, call.client)
    found = await opening(exchange.server, exchange.holder, declared)
    result = {
        "resultType": "complete",
        "supportedVersions": SUPPORTED,
        "capabilities": found.capabilities,
        # An administrator's change is to be seen at once.
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {META_SERVER_INFO: found.server_info},
    }
    if found.instructions:
        result["instructions"] = found.instructions
    await exchange.answer(result_body(call.message.id, msgspec.json.encode(result)))


async def ping(exchange: Exchange, message: Message) -> None:
    """Say that the gateway is there (a49)."""
    await exchange.answer(result_body(message.id, _EMPTY))


async def set_log_level(exchange: Exchange, message: Message, session: Session) -> None:
    """Remember which log messages a stateful client wants (a41)."""
    level = text(message.members.get("level"))
    if level not in LOG_LEVELS:
        levels = ", ".join(LOG_LEVELS)
        await exchange.reject(_invalid(message, f"params.level must be one of {levels}.", 200))
        return
    await era_in.set_log_level(session, level)
    await exchange.answer(result_body(message.id, _EMPTY))


async def take_notification(message: Message, session: Session) -> None:
    """Act on what a stateful client tells; what the gateway does not know goes no further.

    Raises:
        Refusal: 503 when other nodes can't be told.
    """
    if message.method == roots_notices.METHOD:
        roots_notices.tell(session)
    if message.method != "notifications/cancelled":
        return
    request_id = message.members.get("requestId")
    if request_id is None or calls_in_flight.cancel(session.digest, bytes(request_id)):
        return
    try:
        await tell_others_to_cancel(session.digest, bytes(request_id))
    except Exception as failure:
        logger.exception("a cancellation could not be passed on")
        raise unavailable() from failure


async def end_session(session: Session) -> None:
    """End a session on the client's wish, and the calls that still run in it."""
    await era_in.end(session)
    calls_in_flight.cancel_session(session.digest)
    legacy_sessions.client_left_anywhere(session.digest)


def _invalid(message: Message, text: str, status: int = 400) -> Rejection:
    return Rejection(status, INVALID_PARAMS, text, id=message.id)
