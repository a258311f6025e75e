"""Asking a stateful client something on its call's stream; its answer may come to any node.

The question is a request of ours with an id nobody can guess. The id proves by itself that it was
given to this session, so that a response with another one goes no further and nothing has to be
looked up (security.md on sessions: an answer counts only in the session, and for the person, that
was asked). The answer goes by ``node_mail`` to whichever process runs the call; it is written down
before it is acknowledged, so that it is not lost with that process (``held_calls``).
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from upstreams import json_rpc
from upstreams.canonical_call import CallTakenOver, Origin, Outcome, QuestionNotPossible
from upstreams.json_rpc import NotJsonRpc
from upstreams.token_vault import derive_key
from virtualmcp import raw_members
from virtualmcp.eras import question_fields
from virtualmcp.eras.era_in import Session
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import node_mail, shared_notes
from virtualmcp.transport.held_calls import HeldCall
from virtualmcp.transport.wire_messages import Message

logger = logging.getLogger(__name__)

# A person may think so long; it does not count against the call's own time (protocol.md 2.3.4).
QUESTION_SECONDS: Final = 600.0
MOST_AT_ONCE: Final = 16
_PREFIX: Final = "ask-"
_RANDOM_BYTES, _PROOF_BYTES = 16, 12

Write = Callable[[bytes], Awaitable[None]]
Held = Callable[[], HeldCall | None]


class ClientQuestions:
    """The questions of one call that its client has not answered yet.

    ``held`` returns what the call leaves behind for another process, None before its stream
    has begun.
    """

    __slots__ = ("_held", "_open", "_pages", "_session", "_write")

    def __init__(self, session: Session, write: Write, held: Held) -> None:
        self._session = session
        self._write = write
        self._held = held
        self._open: set[str] = set()
        self._pages: set[str] = set()

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Ask, and wait for the answer: a result, or the client's JSON-RPC error.

        What a process that died had asked is not asked again.

        Raises:
            QuestionNotPossible: this client can't be asked this.
            TimeoutError: nobody answered in time; the question was taken back.
            CallTakenOver: another process goes on with the call, and with this question.
        """
        facts = self._session.facts
        try:
            lacking = question_fields.missing(method, params, facts.capabilities, facts.revision)
            if lacking:
                raise QuestionNotPossible(f"the client did not declare {', '.join(lacking)}")
            params = question_fields.for_stateful(method, params, facts.revision)
        except NotAnObject as error:
            raise QuestionNotPossible("the question is not well formed") from error
        if len(self._open) >= MOST_AT_ONCE:
            raise QuestionNotPossible("too many questions at once")
        if method == question_fields.ELICIT:
            self._pages |= {_elicitation_id(params)} - {""}
        known = self._known(origin)
        question = known or new_id(self._session.digest)
        async with node_mail.mailbox(address_of(self._session.digest, question)) as box:
            self._open.add(question)
            try:
                if not known:
                    await self._write(json_rpc.request(question, method, params))
                    await self._leave_word(question, origin, method, params)
                return await self._answer(box, origin, kept=bool(known))
            except (TimeoutError, asyncio.CancelledError):
                await self._withdraw(question)
                raise
            finally:
                self._open.discard(question)

    def _known(self, origin: Origin | None) -> str:
        held = None if origin is None else self._held()
        return "" if held is None or origin is None else held.known(origin)

    async def _leave_word(
        self, question: str, origin: Origin | None, method: str, params: bytes
    ) -> None:
        """Let another process know of a question; without, the call is lost with this one."""
        held = self._held()
        if held is None or origin is None:
            return
        try:
            await held.asked(question, origin, method, params)
        except CallTakenOver:
            raise
        except Exception:
            logger.exception("a question could not be left for another process")

    async def _answer(
        self, box: node_mail.Mailbox, origin: Origin | None, *, kept: bool
    ) -> Outcome:
        """Wait for the answer; ``kept``: it may have come while nobody waited for it.

        Raises:
            TimeoutError: it did not come.
            CallTakenOver: it is another process's to act on.
        """
        answer = await shared_notes.get(_sent(box.address)) if kept else None
        held = None if origin is None else self._held()
        if answer is None:
            sent = box.receive(QUESTION_SECONDS)
            answer = await (sent if held is None else held.unless_taken_over(sent))
        if held is not None and origin is not None and not await held.may_act(origin):
            raise CallTakenOver
        return outcome_of(answer)

    def announced(self, method: str, params: bytes) -> bool:
        """Tell whether a notice says that a page which this call had opened is done (a47)."""
        if method != "notifications/elicitation/complete":
            return False
        return _elicitation_id(params) in self._pages

    async def withdraw_all(self) -> None:
        """Take back what is still open: the call has ended."""
        for question in list(self._open):
            await self._withdraw(question)

    def drop_all(self) -> None:
        """Take it back without a word: nobody reads the stream any more."""
        self._open.clear()

    async def _withdraw(self, question: str) -> None:
        if question not in self._open:
            return
        self._open.discard(question)
        params = json_rpc.object_of({"requestId": question, "reason": "no longer needed"})
        await self._write(json_rpc.notification("notifications/cancelled", params))


async def take_answer(message: Message, session: Session) -> bool:
    """Pass a client's response on to the process that waits for it; False if none does.

    Raises:
        django.db.Error, VaultError: it could not be passed on; the client may send it again.
    """
    try:
        question = raw_members.text(msgspec.Raw(message.id))
    except NotAnObject:
        return False
    if not question or not _given_to(session.digest, question):
        return False
    address = address_of(session.digest, question)
    try:
        # One row for each question at most, however often its answer is sent.
        if not await shared_notes.set_once(_sent(address), message.response, QUESTION_SECONDS):
            return False
    except Exception:
        if not node_mail.waits_here(address):
            raise
        logger.exception("an answer is known to this process alone")
    try:
        await node_mail.send(address, message.response)
    except Exception:
        await shared_notes.remove(_sent(address))
        raise
    return True


def _sent(address: str) -> str:
    """Return the name of the note of a question's answer."""
    return f"sent:{address}"


def new_id(session_digest: str) -> str:
    """Return the id of a question in this session; it can't be guessed or made elsewhere."""
    random = secrets.token_bytes(_RANDOM_BYTES)
    proof = _proof(derive_key("question ids")[0], session_digest, random)
    return _PREFIX + base64.urlsafe_b64encode(random + proof).decode().rstrip("=")


def _given_to(session_digest: str, question: str) -> bool:
    text = question.removeprefix(_PREFIX)
    if text == question or len(text) > 64 or not text.isascii():
        return False
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return False
    random, proof = raw[:_RANDOM_BYTES], raw[_RANDOM_BYTES:]
    keys = derive_key("question ids")
    return any(hmac.compare_digest(_proof(key, session_digest, random), proof) for key in keys)


def _proof(key: bytes, session_digest: str, random: bytes) -> bytes:
    return hmac.digest(key, session_digest.encode() + random, "sha256")[:_PROOF_BYTES]


def _elicitation_id(params: bytes) -> str:
    try:
        return raw_members.text(raw_members.read(params).get("elicitationId")) or ""
    except NotAnObject:
        return ""


def address_of(session_digest: str, question: str) -> str:
    """Return where a question's answer goes."""
    return "q:" + hashlib.sha256(f"{session_digest}\n{question}".encode()).hexdigest()


def outcome_of(response: bytes) -> Outcome:
    """Read the client's answer; what is none becomes an error the upstream can read."""
    try:
        message = json_rpc.read(response)
        result, error = bytes(message.result), bytes(message.error)
        if error:
            json_rpc.error_of(error)
            return Outcome(error=error)
        json_rpc.members_of(result)
    except NotJsonRpc:
        return Outcome(error=json_rpc.error_object(-32603, "the client's answer is not valid"))
    return Outcome(result=result)
