"""The retry of a parked call, on whichever node it arrives (protocol.md 2.4.3).

outcome known?            return it: the client retries what it did not hear the end of
holder alive?             send it the answers, pass on what it says
holder dead, resumable?   become the holder: resume the upstream's stream, only then answer
holder dead, not so?      cancel at the upstream and say so: an answer posted now would run the
                          tool and nobody could collect its result; or make the call anew, where
                          an administrator said that the tool can stand it (``rerun_calls``)
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from upstreams import authorized_call
from upstreams.canonical_call import CallSink, CanonicalCall, Outcome, QuestionNotPossible
from upstreams.errors import UpstreamError
from upstreams.legacy_takeover import HeldCall, HeldQuestion
from virtualmcp import raw_members
from virtualmcp.errors import ParamsInvalid
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import (
    node_mail,
    parked_mail,
    parking,
    rerun_calls,
    shared_notes,
    upstream_failures,
)
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import Answer, ClientRequest
from virtualmcp.routing.parked_calls import Asked, ParkedCall
from virtualmcp.routing.parked_mail import Answers, Ended, Held, Left

logger = logging.getLogger(__name__)

Send = Callable[[CallSink], Awaitable[Outcome]]
# Makes the answer of a call whose outcome ``send`` fetches.
Made = Callable[[CallSink, Send], Coroutine[Any, Any, Answer]]


@dataclass(slots=True, frozen=True)
class Retry:
    """One retry: the call it belongs to, and everything to go on with it.

    ``call`` is the canonical call, made anew from the retry; ``made`` and ``asked`` word what comes
    of it for the client.
    """

    request: ClientRequest
    target: Target
    call_id: str
    call: CanonicalCall
    made: Made
    asked: Asked


def answers_in(raw: msgspec.Raw | None) -> dict[str, bytes]:
    """Return the answers of a retry by key; what is no answer counts as missing (a44).

    Raises:
        ParamsInvalid: ``inputResponses`` is not an object.
    """
    if raw is None:
        return {}
    try:
        given = raw_members.read(raw)
    except NotAnObject as error:
        raise ParamsInvalid("inputResponses must be an object.") from error
    return {key: bytes(answer) for key, answer in given.items() if _is_object(answer)}


def _is_object(raw: msgspec.Raw) -> bool:
    try:
        raw_members.read(raw)
    except NotAnObject:
        return False
    return True


async def go_on(retry: Retry, answers: dict[str, bytes], sink: CallSink) -> Answer:
    """Bring the answers to the call and return what comes next.

    Raises:
        django.db.Error, VaultError: what is shared can't be reached; the retry can be repeated.
    """
    reply = f"retry:{secrets.token_hex(16)}"
    bringing = Answers(reply, answers)
    async with node_mail.mailbox(reply) as box:
        while True:
            known = await shared_notes.get(parked_mail.outcome_key(retry.call_id))
            if known is not None:
                return parked_mail.outcome(known)
            if await shared_notes.lease_holder(parked_mail.lease_key(retry.call_id)):
                found = await _from_holder(retry, bringing, box, sink)
            else:
                found = await _without_holder(retry, bringing, box, sink)
            if found is not None:
                return found


async def _from_holder(
    retry: Retry, bringing: Answers, box: node_mail.Mailbox, sink: CallSink
) -> Answer | None:
    """Send the answers to the holder and listen; None when the holder is gone."""
    to = parked_mail.address(retry.call_id)
    await node_mail.send(to, parked_mail.encode(bringing))
    return await _listen(retry, bringing, box, sink)


async def _listen(
    retry: Retry, bringing: Answers, box: node_mail.Mailbox, sink: CallSink
) -> Answer | None:
    try:
        while True:
            try:
                message = parked_mail.to_retry(await box.receive(parked_mail.RENEW_SECONDS))
            except TimeoutError:
                key = parked_mail.lease_key(retry.call_id)
                if not await shared_notes.lease_holder(key):
                    return None
                continue
            if isinstance(message, Ended):
                return parked_mail.answer_of(message)
            await sink.notify(message.method, _with_own_token(retry.request, message.params))
    except asyncio.CancelledError:
        left = parked_mail.encode(Left(bringing.reply))
        await node_mail.send(parked_mail.address(retry.call_id), left)
        raise


def _with_own_token(request: ClientRequest, params: bytes) -> bytes:
    """Progress goes by the token of the request that waits now (2.3.4)."""
    if b'"progressToken"' not in params or not request.progress_token:
        return params
    try:
        members = raw_members.read(params)
    except NotAnObject:
        return params
    if "progressToken" in members:
        members["progressToken"] = msgspec.Raw(request.progress_token)
    return raw_members.write(members)


async def _without_holder(
    retry: Retry, bringing: Answers, box: node_mail.Mailbox, sink: CallSink
) -> Answer | None:
    """Take the call over, or end it honestly; None when somebody else was quicker."""
    if parking.holds(retry.call_id):
        # Its lease only lapsed, while the database could not be reached.
        return await _from_holder(retry, bringing, box, sink)
    lease = parked_mail.lease_key(retry.call_id)
    seconds = parked_mail.LEASE_SECONDS
    if not await shared_notes.take_lease(lease, shared_notes.PROCESS, seconds):
        return None
    if await shared_notes.get(parked_mail.outcome_key(retry.call_id)) is not None:
        await shared_notes.end_lease(lease, shared_notes.PROCESS)
        return None
    note = await shared_notes.get(parked_mail.held_key(retry.call_id))
    held = None if note is None else parked_mail.held(note)
    go_on = _take_over
    if held is None or held.last_event_id is None:
        if held is None or not _may_be_made_again(retry, held):
            return await _end(retry, held)
        go_on = _make_again
    try:
        if not await go_on(retry, held, bringing):
            return None
    except QuestionNotPossible as impossible:
        await shared_notes.end_lease(lease, shared_notes.PROCESS)
        return upstream_failures.unusable(retry.target.choice.upstream, f"waits: {impossible}.")
    return await _listen(retry, bringing, box, sink)


async def _take_over(retry: Retry, held: Held, bringing: Answers) -> bool:
    """Become the holder of a call whose stream the upstream resumes; False if this process was
    made that by another retry meanwhile."""
    logger.info("a call to %s is taken over", retry.target.choice.upstream.key)
    parked = ParkedCall(retry.request, retry.asked, retry.call_id)
    unanswered = []
    for key, question in held.questions.items():
        answer = await shared_notes.get(parked_mail.answered_key(retry.call_id, key))
        if answer == b"":
            # The upstream has it; its result comes on the stream.
            continue
        parked.expect(key, question, answer or b"")
        unanswered.append(
            HeldQuestion(question.id, question.method, question.params, doubtful=bool(answer))
        )
    wanted = _held_call(held, tuple(unanswered))

    async def resume(sink: CallSink) -> Outcome:
        user_id, facts = retry.request.holder.user_id, retry.target.choice.upstream
        return await authorized_call.take_over_as(user_id, facts, retry.call, sink, wanted)

    if parking.holds(retry.call_id):
        return False
    await parked.taken_over(lambda sink: retry.made(sink, resume), held, bringing)
    return True


def _may_be_made_again(retry: Retry, held: Held) -> bool:
    target = retry.target
    allowed = rerun_calls.may_be_made_again(target.choice, retry.request.method, target.name)
    return allowed and not held.task_id


async def _make_again(retry: Retry, held: Held, bringing: Answers) -> bool:
    """Make a call anew whose stream is lost, and answer in it what was answered before; False if
    this process was made its holder by another retry meanwhile."""
    user_id, facts = retry.request.holder.user_id, retry.target.choice.upstream
    logger.info("a call to %s is made anew", facts.key)
    await _give_up(retry, held)
    parked = ParkedCall(retry.request, retry.asked, retry.call_id)
    answering = await rerun_calls.again(retry.call_id, held, bringing, parked)
    call = rerun_calls.made_anew(retry.call)

    async def send(sink: CallSink) -> Outcome:
        return await authorized_call.call_as(user_id, facts, call, sink)

    if parking.holds(retry.call_id):
        return False
    waiting = Answers(bringing.reply, {})
    await parked.taken_over(lambda _: retry.made(answering, send), held, waiting)
    return True


async def _give_up(retry: Retry, held: Held) -> None:
    """See that the upstream waits no longer."""
    user_id, facts = retry.request.holder.user_id, retry.target.choice.upstream
    try:
        await authorized_call.give_up_as(user_id, facts, _held_call(held, ()))
    except UpstreamError as error:
        logger.info("a lost call to %s could not be cancelled: %s", facts.key, error.detail)


async def _end(retry: Retry, held: Held | None) -> Answer:
    """Say that the call is lost, after making sure that the upstream waits no longer."""
    facts = retry.target.choice.upstream
    if held is not None:
        await _give_up(retry, held)
    passed_on = held is not None and await _any_answered(retry.call_id, held)
    answer = upstream_failures.holder_lost(facts, passed_on=passed_on)
    note = parked_mail.encode(parked_mail.ended(answer))
    await shared_notes.put(parked_mail.outcome_key(retry.call_id), note, parked_mail.PARK_SECONDS)
    await shared_notes.end_lease(parked_mail.lease_key(retry.call_id), shared_notes.PROCESS)
    return answer


async def _any_answered(call_id: str, held: Held) -> bool:
    for key in held.questions:
        if await shared_notes.get(parked_mail.answered_key(call_id, key)) is not None:
            return True
    return False


def _held_call(held: Held, questions: tuple[HeldQuestion, ...]) -> HeldCall:
    return HeldCall(
        held.request_id,
        held.session_id,
        held.revision,
        held.last_event_id or b"",
        questions,
        held.task_id,
    )
