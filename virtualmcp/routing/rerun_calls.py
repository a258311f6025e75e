"""Calls that are made anew when their holder died, for tools an administrator said can stand it
(protocol.md 2.4.3, ``restart_and_answer``).

Of a call to such a tool every answer is kept while it is held. Where its process dies and its
upstream can't resume the stream, the process of the retry cancels what is left of the call, makes
it again, and answers what is asked word for word as before. Anything else is asked of the client.
"""

import json
import logging
from collections import deque
from hashlib import blake2b

import msgspec
from django.db import Error as DatabaseFailure

from upstreams.canonical_call import (
    CallSink,
    CanonicalCall,
    Origin,
    Outcome,
    QuestionOrigin,
)
from upstreams.token_vault import VaultError
from virtualmcp import raw_members
from virtualmcp.eras import conversion, question_fields
from virtualmcp.raw_members import NotAnObject
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import parked_mail, shared_notes
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.parked_mail import Answers, Held

logger = logging.getLogger(__name__)

# Digest of a question, and the answer to it, in the order in which they were given.
_Given = list[tuple[bytes, bytes]]
_given = msgspec.msgpack.Decoder(_Given)


def may_be_made_again(choice: ChoiceFacts, method: str, tool: str) -> bool:
    """Tell whether an administrator said that a call can be made anew."""
    return method == conversion.CALL and tool in choice.rerun


class KeepingSink:
    """Keeps the answers to a call's questions, and gives those that are known already."""

    def __init__(self, sink: CallSink, call_id: str, known: _Given) -> None:
        self._sink = sink
        self._call_id = call_id
        self._given = list(known)
        self._known: dict[bytes, deque[bytes]] = {}
        for name, answer in known:
            self._known.setdefault(name, deque()).append(answer)

    async def notify(self, method: str, params: bytes) -> None:
        """Pass it on."""
        await self._sink.notify(method, params)

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Answer as before what is asked as before; anything else is asked, and kept."""
        name = _name(method, params)
        before = self._known.get(name)
        if before:
            return Outcome(result=before.popleft())
        outcome = await self._sink.ask(method, params, origin)
        if outcome.result:
            self._given.append((name, outcome.result))
            try:
                await _keep(self._call_id, self._given)
            except (DatabaseFailure, VaultError):
                logger.exception("an answer is not kept; it may have to be given again")
        return outcome

    async def answered(self, question_id: bytes) -> None:
        """Pass it on."""
        await self._sink.answered(question_id)

    async def resumable(self, origin: QuestionOrigin | None) -> None:
        """Pass it on."""
        await self._sink.resumable(origin)


def keeping(request: ClientRequest, target: Target, call_id: str, sink: CallSink) -> CallSink:
    """Return what keeps the answers of a call that begins, where it may have to be made again."""
    if may_be_made_again(target.choice, request.method, target.name):
        return KeepingSink(sink, call_id, [])
    return sink


async def again(call_id: str, held: Held, bringing: Answers, sink: CallSink) -> CallSink:
    """Return the sink of a call that is made anew: with what was answered, and is now.

    Raises:
        django.db.Error, VaultError: that can't be found out.
    """
    kept = await shared_notes.get(_key(call_id))
    known = [] if kept is None else _given.decode(kept)
    for key, question in held.questions.items():
        answer = await shared_notes.get(parked_mail.answered_key(call_id, key))
        answer = answer or bringing.answers.get(key)
        name = _digest(question.method, question.params)
        last = any(one == name and given == answer for one, given in known)
        if answer and not last and question_fields.answers(question.method, answer):
            known.append((name, answer))
    # This process may die as well.
    await _keep(call_id, known)
    return KeepingSink(sink, call_id, known)


def made_anew(call: CanonicalCall) -> CanonicalCall:
    """Return the call as it was made at first, from a retry of it."""
    members = raw_members.read(call.params)
    for name in ("inputResponses", "requestState"):
        members.pop(name, None)
    return msgspec.structs.replace(call, params=raw_members.write(members))


async def _keep(call_id: str, given: _Given) -> None:
    note = msgspec.msgpack.encode(given)
    await shared_notes.put(_key(call_id), note, parked_mail.PARK_SECONDS * 2)


def _key(call_id: str) -> str:
    return f"parked-given:{call_id}"


def _name(method: str, params: bytes) -> bytes:
    try:
        # As the client reads it, which is how it is written down.
        return _digest(method, question_fields.for_stateless(method, params))
    except NotAnObject:
        return b""


def _digest(method: str, params: bytes) -> bytes:
    """Return what only an identical question has, in whatever order its members stand."""
    said = json.dumps(raw_members.value(params), sort_keys=True)
    return blake2b(f"{method} {said}".encode(), digest_size=16).digest()
