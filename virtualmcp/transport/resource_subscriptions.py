"""``resources/subscribe`` and ``resources/unsubscribe`` of stateful clients."""

import logging
from typing import Any, Final

from upstreams.revisions import Era
from virtualmcp import session_subscriptions
from virtualmcp.eras.era_in import Session
from virtualmcp.errors import INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY, ResourceUnknown
from virtualmcp.raw_members import text, write
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import question_policy, resource_routes
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.session_subscriptions import MOST_PER_SESSION, TooManySubscriptions
from virtualmcp.transport import session_notices
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import result_body
from virtualmcp.transport.listening import AGREE_SECONDS, LONGEST_URI
from virtualmcp.transport.wire_messages import Message
from virtualmcp.transport.wire_validation import Rejection
from virtualmcp.upstream_openings import openings

logger = logging.getLogger(__name__)

METHODS: Final = frozenset({"resources/subscribe", "resources/unsubscribe"})
_EMPTY = b"{}"
_CANNOT = "{title} does not tell of changes of this resource. Read it again when you need it."


async def answer(exchange: Exchange, message: Message, session: Session) -> None:
    """Subscribe a session to a resource, or take that back."""
    uri = text(message.members.get("uri"))
    if not uri or len(uri) > LONGEST_URI:
        words = f"params.uri must be a string of 1 to {LONGEST_URI} characters."
        await _refuse(exchange, message, INVALID_PARAMS, words)
        return
    if message.method == "resources/unsubscribe":
        await session_subscriptions.remove(session.digest, uri)
        await exchange.answer(result_body(message.id, _EMPTY))
        return
    client = question_policy.declared_here(exchange.server, session.facts)
    request = ClientRequest(
        exchange.server, exchange.holder, Era.LEGACY, message.method, client=client
    )
    try:
        choice, _ = await resource_routes.find(request, uri)
        if not await _can_tell(request, choice):
            words = _CANNOT.format(title=choice.upstream.title)
            await _refuse(exchange, message, INVALID_PARAMS, words)
            return
        await session_subscriptions.add(session.digest, uri, session.expires_at)
        notices = session_notices.of_session(session.digest)
        agreed = notices is None or await notices.listener.want(uri, AGREE_SECONDS)
    except ResourceUnknown:
        words = "Resource not found. List the resources again."
        await _refuse(exchange, message, RESOURCE_NOT_FOUND_LEGACY, words, write({"uri": uri}))
        return
    except TooManySubscriptions:
        words = f"A session can subscribe to {MOST_PER_SESSION} resources. Unsubscribe from one."
        await _refuse(exchange, message, INVALID_PARAMS, words)
        return
    if not agreed:
        await session_subscriptions.remove(session.digest, uri)
        words = _CANNOT.format(title=choice.upstream.title)
        await _refuse(exchange, message, INVALID_PARAMS, words)
        return
    await exchange.answer(result_body(message.id, _EMPTY))


async def _can_tell(request: ClientRequest, choice: ChoiceFacts) -> bool:
    user_id, facts = request.holder.user_id, choice.upstream
    known = openings.known(user_id, facts, request.client)
    opened = known or await openings.read(user_id, facts, request.client)
    declared: Any = opened.capabilities.get("resources") if opened is not None else None
    return isinstance(declared, dict) and declared.get("subscribe") is True


async def _refuse(
    exchange: Exchange, message: Message, code: int, words: str, data: bytes = b""
) -> None:
    await exchange.reject(Rejection(200, code, words, data, message.id))
