"""Tools that run as a task only, called as one long call (protocol.md 2.3.8).

Stateful clients know no tasks of ours, and tasks of 2025-11-25 are another thing than those of
the extension. So the gateway makes the task, looks how it goes and brings its result; on the way
the client hears of its progress, and is asked what the task asks. A client that leaves or cancels
cancels the task, as does a question that nobody answers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from upstreams import authorized_call
from upstreams.canonical_call import (
    CallSink,
    CallTakenOver,
    CanonicalCall,
    HandOver,
    Origin,
    Outcome,
    QuestionOrigin,
)
from upstreams.errors import UpstreamError, UpstreamTimeout
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import raw_members
from virtualmcp.raw_members import Members, NotAnObject
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import question_policy, questions
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.question_policy import CapabilityMissing
from virtualmcp.routing.questions import QuestionUnanswered

logger = logging.getLogger(__name__)

# security.md section 3: no call outlives this, whatever progress it reports.
LONGEST_SECONDS = 600.0
SHORTEST_PAUSE, LONGEST_PAUSE, USUAL_PAUSE = 0.1, 15.0, 1.0
_GOING = frozenset({"working", "submitted"})
_INTERNAL_ERROR = -32603
_cancelling: set[asyncio.Task[Any]] = set()

# Sends one request about the task to its upstream: method, raw params, ``Mcp-Name``.
Send = Callable[[str, bytes, str], Awaitable[Outcome]]


@dataclass(slots=True, frozen=True)
class _State:
    id: str
    status: str
    message: str
    pause: float


def as_task(params: bytes) -> bytes:
    """Return the params of a ``tools/call`` that a stateful server is to run as a task."""
    members = raw_members.read(params or b"{}")
    members["task"] = raw_members.raw({"ttl": int(LONGEST_SECONDS * 1000)})
    return raw_members.write(members)


class DrivingSink:
    """A task's sink. It knows whether another process has the call, whose task is then not ours to
    cancel."""

    def __init__(self, sink: CallSink) -> None:
        self._sink = sink
        self._hand_over = HandOver()

    @property
    def taken_over(self) -> bool:
        """Whether another process has the call."""
        return self._hand_over.done

    async def notify(self, method: str, params: bytes) -> None:
        """Pass a notification on."""
        await self._sink.notify(method, params)

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Put a question; raises as the call's own sink."""
        if origin is not None:
            self._hand_over = origin.hand_over
        try:
            return await self._sink.ask(method, params, origin)
        except CallTakenOver:
            self._hand_over.done = True
            raise

    async def answered(self, question_id: bytes) -> None:
        """Say that the upstream has an answer."""
        await self._sink.answered(question_id)

    async def resumable(self, origin: QuestionOrigin | None) -> None:
        """Of all that is asked about a task, its result alone is the call's."""
        if origin is not None and origin.task_id:
            self._hand_over = origin.hand_over
            await self._sink.resumable(origin)


async def drive(
    request: ClientRequest, created: Outcome, choice: ChoiceFacts, sink: CallSink
) -> Outcome:
    """See a task to its end and return how it ended, as if the call itself had.

    Raises:
        NotAnObject: what was said of the task can't be read.
        UpstreamError: it can't be asked for any more, or takes too long.
        CapabilityMissing, QuestionUnanswered: it asked what the client can't be asked.
    """
    first = raw_members.read(created.result)
    # A stateful server wraps the task, the extension has it flat.
    state = _state(first if created.modern else raw_members.read(first.get("task", b"null")))
    return await _driven(request, state, choice, sink, modern=created.modern)


async def follow(
    request: ClientRequest, task_id: str, choice: ChoiceFacts, sink: CallSink
) -> Outcome:
    """Go on with a task of the extension whose process died; as ``drive``."""
    state = _State(task_id, "working", "", SHORTEST_PAUSE)
    return await _driven(request, state, choice, sink, modern=True)


async def _driven(
    request: ClientRequest,
    state: _State,
    choice: ChoiceFacts,
    sink: CallSink,
    *,
    modern: bool,
) -> Outcome:
    driving = DrivingSink(sink)
    send = _about(request, choice, driving)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await _watch(request, state, send, driving, choice.upstream, modern=modern)
    except TimeoutError as error:
        _cancel(state, send)
        message = "The task took longer than the gateway waits, and was cancelled."
        raise UpstreamTimeout(message) from error
    except (asyncio.CancelledError, CapabilityMissing, QuestionUnanswered, UpstreamError):
        if not driving.taken_over:
            _cancel(state, send)
        raise


def _about(request: ClientRequest, choice: ChoiceFacts, sink: CallSink) -> Send:
    """Return how the upstream is asked about a task of this call."""
    user_id, facts = request.holder.user_id, choice.upstream

    async def send(method: str, params: bytes, task_id: str) -> Outcome:
        call = CanonicalCall(
            method=method,
            params=params,
            facts=question_policy.declared_to(request, choice),
            name=task_id,
            log_level=request.log_level,
            principal=str(user_id),
            owner=request.owner,
        )
        return await authorized_call.call_as(user_id, facts, call, sink)

    return send


async def _watch(
    request: ClientRequest,
    state: _State,
    send: Send,
    sink: CallSink,
    facts: UpstreamFacts,
    *,
    modern: bool,
) -> Outcome:
    answered: set[str] = set()
    step = 0
    params = raw_members.write({"taskId": state.id})
    while True:
        step += 1
        await _tell(request, sink, step, state.message)
        if not modern and state.status not in _GOING:
            # It waits until the task has ended, and carries its questions meanwhile.
            return await send("tasks/result", params, state.id)
        await asyncio.sleep(state.pause)
        outcome = await send("tasks/get", params, state.id)
        if outcome.error:
            return outcome
        members = raw_members.read(outcome.result)
        state = _state(members)
        if not modern or state.status in _GOING:
            continue
        if state.status != "input_required":
            return _ended(members, state)
        await _answer(members, answered, state, send, sink, facts)


async def _answer(
    members: Members,
    answered: set[str],
    state: _State,
    send: Send,
    sink: CallSink,
    facts: UpstreamFacts,
) -> None:
    """Put what a task of the extension asks to the client; each question once."""
    asked = raw_members.read(members.get("inputRequests", b"{}"))
    fresh = {key: question for key, question in asked.items() if key not in answered}
    if not fresh:
        return
    put = raw_members.write({"inputRequests": fresh})
    answers = (await questions.asked(put, {}, sink, 0, facts, state.id))["inputResponses"]
    answered |= set(fresh)
    update = raw_members.write({"taskId": state.id, "inputResponses": answers})
    await send("tasks/update", update, state.id)


def _ended(members: Members, state: _State) -> Outcome:
    if state.status == "completed" and "result" in members:
        return Outcome(result=bytes(members["result"]))
    if state.status == "failed" and "error" in members:
        return Outcome(error=bytes(members["error"]))
    said = state.message or f"The task ended as {state.status or 'nothing known'}."
    return Outcome(error=raw_members.write({"code": _INTERNAL_ERROR, "message": said}))


def _state(members: Members) -> _State:
    found = raw_members.text(members.get("taskId"))
    if not found:
        raise NotAnObject("a task without an id")
    pause = USUAL_PAUSE
    for name in ("pollIntervalMs", "pollInterval"):
        given = raw_members.value(members[name]) if name in members else None
        if isinstance(given, int | float):
            pause = given / 1000
    return _State(
        found,
        raw_members.text(members.get("status")) or "",
        raw_members.text(members.get("statusMessage")) or "",
        min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE),
    )


async def _tell(request: ClientRequest, sink: CallSink, step: int, message: str) -> None:
    if not request.progress_token:
        return
    progress: dict[str, Any] = {
        "progressToken": msgspec.Raw(request.progress_token),
        "progress": step,
    }
    if message:
        progress["message"] = message
    await sink.notify("notifications/progress", raw_members.write(progress))


def _cancel(state: _State, send: Send) -> None:
    """Cancel the task beside whatever ends the call; never by ``notifications/cancelled``."""

    async def work() -> None:
        try:
            await send("tasks/cancel", raw_members.write({"taskId": state.id}), state.id)
        except UpstreamError:
            logger.info("a task could not be cancelled")

    task = asyncio.get_running_loop().create_task(work())
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)
