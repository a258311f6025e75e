"""What a stateful upstream asks on the stream of a session that several processes share (2.3.5).

One process holds that stream; the call that a question is about may run in another one. The holder
asks them all by the change feed, and they answer by mail:

    changed(kind="shared-question", key="<session> <process> who <reply>"
        | "<session> <process> ask <to> <question>" | "<session> <process> back <raw id>"
        | "<session> <process> page <note>")

A question that is handed over is a note; the process that takes it answers the upstream itself.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from upstreams import json_rpc, legacy_sessions, session_sharing
from upstreams.canonical_call import QuestionNotPossible
from upstreams.json_rpc import Message
from upstreams.session_opening import LegacySession
from upstreams.unrelated_questions import Standing, questions_of
from virtualmcp.routing import node_mail, shared_notes
from virtualmcp.routing.shared_notes import PROCESS
from virtualmcp.signals import changed

logger = logging.getLogger(__name__)

KIND: Final = "shared-question"
# A process that lives hears and answers within a second.
ANSWER_SECONDS: Final = 4.0
KEEP_SECONDS: Final = 60.0
LONGEST_KEY: Final = 500


class _Question(msgspec.Struct, array_like=True):
    """A request of the upstream; ``id`` is raw."""

    id: bytes
    method: str
    params: bytes


_question = msgspec.msgpack.Decoder(_Question)
_standing = msgspec.msgpack.Decoder(Standing)
_running: set[asyncio.Task[None]] = set()


# The process that holds the session's stream -----------------------------------------------------
async def standings(session: LegacySession) -> list[Standing]:
    """Return what each of the other processes that use a session says of its clients."""
    try:
        others = await session_sharing.others(session)
        if not others:
            return []
        return await _asked(session, others)
    except Exception as failure:
        logger.warning("other processes can't be asked: %s", type(failure).__name__)
        return []


async def _asked(session: LegacySession, others: set[str]) -> list[Standing]:
    reply, found = f"standing:{secrets.token_hex(16)}", dict[str, Standing]()
    async with node_mail.mailbox(reply) as box:
        _announce(session, "who", reply)
        # One that died holds its lease for a while.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while not others <= found.keys():
                    said = _standing.decode(await box.receive())
                    found[said.process] = said
    return list(found.values())


async def hand_over(session: LegacySession, process: str, message: Message) -> None:
    """Leave a question to another process.

    Raises:
        QuestionNotPossible: it did not take it.
    """
    note = _Question(json_rpc.encode(message.id), str(message.method), bytes(message.params))
    question, content = secrets.token_hex(16), msgspec.msgpack.encode(note)
    async with node_mail.mailbox(_taken(question)) as box:
        await shared_notes.put(_key(question), content, KEEP_SECONDS)
        _announce(session, "ask", f"{process} {question}")
        try:
            await box.receive(ANSWER_SECONDS)
        except TimeoutError as nobody:
            # Who is only slow must not ask once the upstream was refused, nor be refused then.
            if await shared_notes.discard(_key(question), content):
                raise QuestionNotPossible("the process that runs the call is gone") from nobody


def withdraw(session: LegacySession, request_id: object) -> None:
    """Tell the others that the upstream takes a question back."""
    raw = json_rpc.encode(request_id).decode()
    if len(raw) < LONGEST_KEY // 2:
        _announce(session, "back", raw)


def page_done(session: LegacySession, params: bytes) -> None:
    """Tell the others that a page is done that a client was asked to open."""
    _begin(_leave_page(session, params))


async def _leave_page(session: LegacySession, params: bytes) -> None:
    note = secrets.token_hex(16)
    await shared_notes.put(_key(note), params, KEEP_SECONDS)
    _announce(session, "page", note)


def _announce(session: LegacySession, what: str, about: str) -> None:
    changed.send(sender=None, kind=KIND, key=f"{session.shared} {PROCESS} {what} {about}")


# The others --------------------------------------------------------------------------------------
def hear(key: str) -> None:
    """Hear what the process with the stream of a session wants; from any thread."""
    shared, _, rest = key.partition(" ")
    process, _, rest = rest.partition(" ")
    what, _, about = rest.partition(" ")
    if shared and process != PROCESS:
        legacy_sessions.with_shared_anywhere(shared, lambda found: _heard(found, what, about))


def _heard(session: LegacySession, what: str, about: str) -> None:
    questions = questions_of(session)
    if what == "who":
        said = msgspec.msgpack.encode(questions.standing(PROCESS))
        _begin(node_mail.send(about, said))
    elif what == "back":
        questions.withdrawn(msgspec.json.decode(about), told=True)
    elif what == "page":
        _begin(_take_page(session, about))
    elif what == "ask":
        process, _, question = about.partition(" ")
        if process == PROCESS:
            _begin(_take(session, question))


async def _take(session: LegacySession, question: str) -> None:
    # The change feed may say a thing twice.
    content = await shared_notes.get(_key(question))
    if content is None or not await shared_notes.discard(_key(question), content):
        return
    await node_mail.send(_taken(question), b"")
    note = _question.decode(content)
    message = Message("2.0", json_rpc.plain(note.id), note.method, msgspec.Raw(note.params))
    questions_of(session).asked(message, handed=True)


async def _take_page(session: LegacySession, note: str) -> None:
    params = await shared_notes.get(_key(note))
    if params is not None:
        questions_of(session).page_done(params, told=True)


def _key(note: str) -> str:
    return f"shared-question:{note}"


def _taken(question: str) -> str:
    return f"handed:{question}"


def _begin(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(_logged(work))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        logger.exception("what another process asks of a session could not be seen to")
