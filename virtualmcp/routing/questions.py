"""Calls that end with ``input_required``: relayed to stateless clients, asked of stateful ones.

A stateless client gets the upstream's questions with our seal in the place of its
``requestState`` and retries (protocol.md 2.4.1); nothing is stored. A stateful client is asked on
the stream of its call, and the call is then made again with its answers (2.4.2). The upstream
ended its call itself, so nothing runs twice.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from upstreams.canonical_call import CallSink, HandOver, QuestionNotPossible, RoundOrigin
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import raw_members, sampling_limits
from virtualmcp.eras.conversion import signed
from virtualmcp.errors import ParamsInvalid
from virtualmcp.raw_members import Members, NotAnObject
from virtualmcp.result_mapping import ResultMapping
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import question_policy
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.connect_prompts import OWN_KEY, CallMade
from virtualmcp.routing.parked_mail import Question
from virtualmcp.routing.question_policy import CapabilityMissing
from virtualmcp.routing.relay_bindings import StateTooLarge, open_state, seal_state
from virtualmcp.server_identity import raw_server_info

MOST_ROUNDS = 10
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.25


class QuestionUnanswered(Exception):
    """The client can't be asked, or refused with a JSON-RPC error (raw, may be empty)."""

    def __init__(self, message: str, error: bytes = b"") -> None:
        super().__init__(message)
        self.message = message
        self.error = error


@dataclass(slots=True, frozen=True)
class Retry:
    """A retry as the upstream is to see it.

    ``declined``: our own question was answered no. ``parked``: the id of the call that is held for
    these answers, which is not made again.
    """

    members: Members
    declined: bool = False
    parked: str = ""


def resume(request: ClientRequest, members: Members, call: CallMade) -> Retry:
    """Turn a client's retry into the upstream's: its own state, and no answers to questions
    that the gateway asked itself.

    Raises:
        StateInvalid: the state is not that of this request.
        ParamsInvalid: the state is not a string.
    """
    if "requestState" not in members:
        return Retry(members)
    sealed = raw_members.text(members["requestState"])
    if sealed is None:
        raise ParamsInvalid("requestState must be a string.")
    resumed = open_state(request, sealed, call.upstream_id, call.name, call.arguments)
    if resumed.parked:
        return Retry(members, parked=resumed.parked)
    rest = dict(members)
    del rest["requestState"]
    if resumed.state is not None:
        rest["requestState"] = raw_members.raw(resumed.state)
    if not resumed.own:
        return Retry(rest)
    answers = rest.pop("inputResponses", None)
    return Retry(rest, declined=answers is not None and _declined(answers))


def _declined(answers: msgspec.Raw) -> bool:
    try:
        given = raw_members.value(answers)
    except NotAnObject:
        return False
    if not isinstance(given, dict):
        return False
    own = [answer for key, answer in given.items() if key.startswith(OWN_KEY)]
    return any(isinstance(a, dict) and a.get("action") in ("decline", "cancel") for a in own)


def relayed(request: ClientRequest, result: bytes, call: CallMade, choice: ChoiceFacts) -> bytes:
    """Return an ``input_required`` result for a stateless client.

    Elicitations say who asks, except in a transparent Virtual MCP.

    Raises:
        NotAnObject: the result is not what it should be.
        CapabilityMissing: the client did not declare what it would be asked.
        QuestionUnanswered: it may not be asked, or the state can't be carried by the client.
    """
    members = raw_members.read(result)
    if "inputRequests" in members:
        members["inputRequests"] = mapped(request, choice, members["inputRequests"])
    state = raw_members.text(members.get("requestState"))
    try:
        sealed = seal_state(request, call.upstream_id, call.name, call.arguments, state=state)
    except StateTooLarge as error:
        raise QuestionUnanswered("asked a question with more state than can be kept.") from error
    members["requestState"] = raw_members.raw(sealed)
    members["_meta"] = signed(members.get("_meta"), raw_server_info(request.server))
    return raw_members.write(members)


async def counted(
    request: ClientRequest, choice: ChoiceFacts, raw: bytes, *, once: bool = False
) -> None:
    """Count what a result asks of the client's model, with ``once`` not again what was counted.

    Raises:
        QuestionUnanswered: the upstream has asked as much of it as it may.
    """
    take = sampling_limits.take_once if once else sampling_limits.take_all
    try:
        await take(request.holder.user_id, choice.upstream, raw)
    except QuestionNotPossible as impossible:
        raise QuestionUnanswered(_not_asked(impossible)) from impossible


def held(
    request: ClientRequest, call: CallMade, call_id: str, open_questions: dict[str, Question]
) -> bytes:
    """Return the ``input_required`` result of a call that is held for the answers (2.4.3)."""
    state = seal_state(request, call.upstream_id, call.name, call.arguments, parked=call_id)
    asked = {
        key: {"method": question.method, "params": msgspec.Raw(question.params)}
        for key, question in open_questions.items()
    }
    return raw_members.write(
        {
            "resultType": raw_members.raw("input_required"),
            "inputRequests": raw_members.raw(asked),
            "requestState": raw_members.raw(state),
            "_meta": signed(None, raw_server_info(request.server)),
        }
    )


def mapped(request: ClientRequest, choice: ChoiceFacts, questions: msgspec.Raw) -> msgspec.Raw:
    """Return questions, by their keys, as this stateless client may be asked them.

    Raises:
        NotAnObject, CapabilityMissing, QuestionUnanswered: as ``relayed``.
    """
    key = "" if request.server.transparent else choice.upstream.key
    mapping = ResultMapping(key)
    members = raw_members.read(questions)
    for name, question in members.items():
        _check(request, choice, question)
        members[name] = _question(question, mapping, choice.upstream.title if key else "")
    return raw_members.raw(members)


def _check(request: ClientRequest, choice: ChoiceFacts, question: msgspec.Raw) -> None:
    members = raw_members.read(question)
    method = raw_members.text(members.get("method")) or ""
    try:
        question_policy.check(request, choice, method, bytes(members.get("params", b"{}")))
    except CapabilityMissing:
        raise
    except QuestionNotPossible as impossible:
        raise QuestionUnanswered(_not_asked(impossible)) from impossible


def _not_asked(why: QuestionNotPossible) -> str:
    return f"asked a question that your client can't be asked: {why}."


def _question(raw: msgspec.Raw, mapping: ResultMapping, asker: str) -> msgspec.Raw:
    if not mapping.key:
        return raw
    members = raw_members.read(raw)
    if "params" in members:
        members["params"] = msgspec.Raw(mapping.question(bytes(members["params"]), asker=asker))
    return raw_members.raw(members)


async def asked(
    result: bytes,
    params: Members,
    sink: CallSink,
    round_number: int,
    facts: UpstreamFacts | None = None,
    task_id: str = "",
) -> Members:
    """Put the questions of a result to a stateful client; returns the params of the next round.

    With ``facts``, whose questions they are, another process can go on with the round, or with the
    task that asks, when this one dies.

    Raises:
        QuestionUnanswered: the client can't be asked, refused, or did not answer in time.
        CapabilityMissing: it did not declare what it would be asked.
        NotAnObject: the result is not what it should be.
    """
    members = raw_members.read(result)
    following = dict(params)
    following.pop("inputResponses", None)
    following.pop("requestState", None)
    if "requestState" in members:
        following["requestState"] = members["requestState"]
    questions = raw_members.read(members.get("inputRequests", msgspec.Raw(b"{}")))
    if not questions:
        await asyncio.sleep(min(_FIRST_PAUSE * 2**round_number, _LONGEST_PAUSE))
        return following
    count = len(questions)
    asking, hand_over = [], HandOver()
    for key, question in questions.items():
        origin = None
        if facts is not None:
            origin = RoundOrigin(key, result, count, facts.id, task_id, hand_over)
        asking.append(_put(question, sink, origin))
    answers = await _together(asking)
    following["inputResponses"] = raw_members.raw(dict(zip(questions, answers, strict=True)))
    return following


async def _together(asking: list[Coroutine[Any, Any, msgspec.Raw]]) -> list[msgspec.Raw]:
    """Ask all at once; the first failure takes the other questions back."""
    tasks = [asyncio.ensure_future(one) for one in asking]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _put(question: msgspec.Raw, sink: CallSink, origin: RoundOrigin | None) -> msgspec.Raw:
    members = raw_members.read(question)
    method = raw_members.text(members.get("method")) or ""
    try:
        outcome = await sink.ask(method, bytes(members.get("params", b"{}")), origin)
    except CapabilityMissing:
        raise
    except QuestionNotPossible as impossible:
        raise QuestionUnanswered(_not_asked(impossible)) from impossible
    except TimeoutError as late:
        raise QuestionUnanswered("asked a question that nobody answered in time.") from late
    if outcome.error:
        raise QuestionUnanswered("asked a question that your client refused.", outcome.error)
    return msgspec.Raw(outcome.result)
