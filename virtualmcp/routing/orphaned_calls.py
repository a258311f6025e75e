"""Stateful clients' calls whose process died while a question was open (protocol.md 2.4.2, 2.4.4).

upstream stateless            its round of questions is put to the client again, or rather its
                              answers are waited for; then the call is made with them
a task of the extension       it is looked at again, and asks what is still open
upstream stateful, resumable  its stream is resumed, and only then are answers posted
upstream stateful, not so     it is cancelled: an answer posted now would run the tool and nobody
                              could collect its result
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from upstreams import authorized_call
from upstreams.canonical_call import CallSink, CanonicalCall, Outcome
from upstreams.errors import UpstreamError
from upstreams.legacy_takeover import HeldCall
from virtualmcp.routing import long_tasks, upstream_failures
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import Answer, ClientRequest

logger = logging.getLogger(__name__)

Send = Callable[[CallSink], Awaitable[Outcome]]
Made = Callable[[CallSink, Send], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True, slots=True)
class Orphan:
    """What is left of a call; exactly one of ``round`` and ``held``.

    ``round`` is the raw ``input_required`` result of a stateless upstream, ``held`` the call to a
    stateful one, without an event id where its stream can't be resumed. ``passed_on``: an answer
    was posted to it before. ``task_id``: the round is that of a task.
    """

    upstream_id: int
    round: bytes = field(default=b"", repr=False)
    held: HeldCall | None = None
    passed_on: bool = False
    task_id: str = ""


async def answer(
    request: ClientRequest,
    target: Target,
    call: CanonicalCall,
    made: Made,
    sink: CallSink,
) -> Answer:
    """Go on with the call where it was left; ``made`` words what comes of it."""
    orphan, facts = request.orphan, target.choice.upstream
    assert orphan is not None
    held, user_id = orphan.held, request.holder.user_id
    if orphan.upstream_id != facts.id:
        text = "is not the server this call was made to. Make the request anew."
        return upstream_failures.unusable(facts, text)
    logger.info("a call to %s is taken over", facts.key)
    if held is not None and not held.last_event_id:
        try:
            await authorized_call.give_up_as(user_id, facts, held)
        except UpstreamError as error:
            logger.info("a lost call to %s could not be cancelled: %s", facts.key, error.detail)
        return upstream_failures.holder_lost(facts, passed_on=orphan.passed_on)

    async def rest(inner: CallSink) -> Outcome:
        if orphan.task_id and held is None:
            return await long_tasks.follow(request, orphan.task_id, target.choice, inner)
        if held is None:
            return Outcome(result=orphan.round)
        return await authorized_call.take_over_as(user_id, facts, call, inner, held)

    return await made(sink, rest)
