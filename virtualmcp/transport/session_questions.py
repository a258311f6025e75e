"""What upstreams ask stateful clients outside of calls: on the session's GET stream (2.3.5).

The process that holds the upstream's session asks; the client's stream may be open in another one,
which hears of it by the change feed and looks the question up:

    changed(kind="question", key="<session> ask|back|tell <question>" | "<session> who <reply>")

Whether the client may be asked is decided where its stream is, by what the person may see now. The
answer comes as that to a call's question does (``client_questions``), and goes to the session that
asked. A question is an event like others: written down with the event it is before it is written,
so that a client that comes back by ``Last-Event-ID`` is asked what it has not seen, and nothing
twice. One whose client does not come back ends with an error; one whose asking process died is
taken back from the client (that process holds a lease on it).
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import msgspec
from django.db import Error as DatabaseFailure

from upstreams import json_rpc
from upstreams.canonical_call import Outcome, QuestionNotPossible
from upstreams.revisions import Era
from upstreams.token_vault import VaultError
from virtualmcp import sampling_limits
from virtualmcp.eras import question_fields
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import node_mail, parked_mail, question_policy, shared_notes
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.lease_keeper import keeper
from virtualmcp.routing.relay_sink import question_of
from virtualmcp.signals import changed
from virtualmcp.transport import client_questions, event_log, session_notices
from virtualmcp.transport.client_questions import QUESTION_SECONDS
from virtualmcp.transport.event_ids import Position
from virtualmcp.transport.notice_stream import BeforeAsking, NoticeStream
from virtualmcp.transport.session_notices import SessionNotices

logger = logging.getLogger(__name__)

KIND: Final = "question"
# The process with the client's stream hears within a second, and says that it has it.
FOUND_SECONDS: Final = 4.0
# Of several sessions, those with a stream say so within this time.
WHO_SECONDS: Final = 1.5
# A client whose stream broke may come back for so long before its questions are given up.
GONE_SECONDS: Final = 30.0
# How often the process with the client's stream looks whether the one that asks still lives.
LOOK_SECONDS: Final = 6.0
_TAKEN: Final = b"taken"
_DIGEST_LENGTH: Final = 64
_NOBODY: Final = "the client has no open stream"


class _Note(msgspec.Struct):
    """A question for whichever process has the client's stream, or comes to have it.

    ``message`` is what the client was sent, as event ``number`` of the stream ``stream``.
    """

    upstream_id: int
    method: str
    params: bytes
    message: bytes = b""
    stream: str = ""
    number: int = 0


_note = msgspec.msgpack.Decoder(_Note)
_running: set[asyncio.Task[None]] = set()


# The process that holds the upstream's session ---------------------------------------------------
async def ask(owners: Sequence[str], upstream_id: int, method: str, params: bytes) -> Outcome:
    """Ask the one of these clients that listens on a stream of its session.

    Raises:
        QuestionNotPossible: there is none or more than one, or it can't be asked this.
        TimeoutError: nobody answered in time; the question was taken back.
    """
    digest = await _listening(owners)
    question = client_questions.new_id(digest)
    note = _Note(upstream_id, method, params)
    await _begin_to_ask(digest, question)
    async with node_mail.mailbox(client_questions.address_of(digest, question)) as box:
        try:
            await _put(digest, question, "ask", note)
            try:
                answer = await box.receive(FOUND_SECONDS)
            except TimeoutError as nobody:
                raise QuestionNotPossible(_NOBODY) from nobody
            if answer == _TAKEN:
                answer = await box.receive(QUESTION_SECONDS)
        except (TimeoutError, QuestionNotPossible, asyncio.CancelledError):
            _begin(_take_back(digest, question))
            raise
        finally:
            keeper().drop(_lease(digest, question))
    _begin(_over(digest, question))
    return client_questions.outcome_of(answer)


async def _begin_to_ask(digest: str, question: str) -> None:
    """Be seen to live for as long as the question is open; best effort."""
    lease = _lease(digest, question)
    try:
        await shared_notes.take_lease(lease, shared_notes.PROCESS, parked_mail.LEASE_SECONDS)
    except Exception:
        logger.exception("others cannot know for how long a question is open")
    else:
        keeper().keep(lease)


async def _over(digest: str, question: str) -> None:
    # In this order: without a lease the note means that its process died.
    await shared_notes.remove(_key(digest, question))
    await shared_notes.end_lease(_lease(digest, question), shared_notes.PROCESS)


async def tell(owner: str, upstream_id: int, method: str, params: bytes) -> None:
    """Tell a client something on a stream of its session, if it has one."""
    if _is_session(owner):
        await _put(owner, secrets.token_hex(16), "tell", _Note(upstream_id, method, params))


def _is_session(owner: str) -> bool:
    return len(owner) == _DIGEST_LENGTH and " " not in owner


async def _listening(owners: Sequence[str]) -> str:
    """Return the session to ask.

    Raises:
        QuestionNotPossible: it is not clear whom.
    """
    if not all(_is_session(owner) for owner in owners):
        raise QuestionNotPossible("a client without a session can be asked during its calls only")
    if len(owners) == 1:
        return owners[0]
    found = [owner for owner in owners if session_notices.of_session(owner) is not None]
    if len(found) < 2:
        found += await _elsewhere([owner for owner in owners if owner not in found])
    if len(found) != 1:
        why = "several clients use this session, and no one is named" if found else _NOBODY
        raise QuestionNotPossible(why)
    return found[0]


async def _elsewhere(digests: list[str]) -> list[str]:
    """Return which of these sessions have a stream in another process."""
    reply = f"who:{secrets.token_hex(16)}"
    found: set[str] = set()
    async with node_mail.mailbox(reply) as box:
        for digest in digests:
            _announce(f"{digest} who {reply}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WHO_SECONDS):
                while len(found) < len(digests):
                    found.add((await box.receive()).decode())
    return sorted(found)


async def _put(digest: str, question: str, what: str, note: _Note) -> None:
    """Have it said on the session's stream, in this process or another one."""
    notices = session_notices.of_session(digest)
    if notices is not None:
        await _say(notices, question, what, note)
        return
    content = msgspec.msgpack.encode(note)
    await shared_notes.put(_key(digest, question), content, QUESTION_SECONDS)
    _announce(f"{digest} {what} {question}")


async def _take_back(digest: str, question: str) -> None:
    await _over(digest, question)
    if not _taken_back_here(digest, question):
        _announce(f"{digest} back {question}")


def _announce(key: str) -> None:
    changed.send(sender=SessionNotices, kind=KIND, key=key)


# The process that has the client's stream --------------------------------------------------------
def hear(key: str) -> None:
    """Hear what another process wants of a session; from any thread."""
    digest, _, rest = key.partition(" ")
    what, _, about = rest.partition(" ")
    for loop in session_notices.loops_of(digest):
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its streams with it
            loop.call_soon_threadsafe(_heard, digest, what, about)


def _heard(digest: str, what: str, about: str) -> None:
    notices = session_notices.of_session(digest)
    if notices is None:
        return
    if what == "who":
        _begin(node_mail.send(about, digest.encode()))
    elif what == "back":
        _taken_back_here(digest, about)
    elif what in ("ask", "tell"):
        _begin(_take(notices, digest, what, about))


def _taken_back_here(digest: str, question: str) -> bool:
    notices = session_notices.of_session(digest)
    for stream in notices.streams if notices is not None else ():
        if question in stream.asked:
            stream.take_back(question)
            return True
    return False


async def _take(notices: SessionNotices, digest: str, what: str, question: str) -> None:
    """Say what another process left, unless a second one with a stream of the session does."""
    # The change feed may say a thing twice.
    if not await shared_notes.set_once(f"taken:{_key(digest, question)}", b"", QUESTION_SECONDS):
        return
    content = await shared_notes.get(_key(digest, question))
    if content is not None:
        await _say(notices, question, what, _note.decode(content))
    if what == "tell":
        await shared_notes.remove(_key(digest, question))


async def _say(notices: SessionNotices, question: str, what: str, note: _Note) -> None:
    digest = notices.session.digest
    try:
        if what == "tell":
            notices.tell(note.method, note.params)
            return
        answer = await _asked(notices, question, note)
    except QuestionNotPossible as impossible:
        answer = _refused(str(impossible))
    except Exception:
        logger.exception("a question could not be put to a client")
        answer = _refused("the client could not be asked")
    await node_mail.send(client_questions.address_of(digest, question), answer)


async def _asked(notices: SessionNotices, question: str, note: _Note) -> bytes:
    """Put a question on the newest stream.

    Raises:
        QuestionNotPossible: the client may not be asked, as things are now.
    """
    stream = notices.streams[-1] if notices.streams else None
    standing = None if stream is None else await stream.current()
    if stream is None or standing is None:
        raise QuestionNotPossible(_NOBODY)
    server, facts = standing.server, notices.session.facts
    choice = next((one for one in server.choices if one.upstream.id == note.upstream_id), None)
    if choice is None:
        raise QuestionNotPossible("the client does not use this server any more")
    declared = question_policy.declared_here(server, facts)
    request = ClientRequest(server, standing.holder, Era.LEGACY, note.method, client=declared)
    try:
        params = question_of(request, choice, note.method, note.params)
        params = question_fields.for_stateful(note.method, params, facts.revision)
        user_id = standing.holder.user_id
        await sampling_limits.take(user_id, choice.upstream, note.method, note.params)
    except NotAnObject as error:
        raise QuestionNotPossible("the question is not well formed") from error
    stream.ask(question, json_rpc.request(question, note.method, params))
    _begin(_watch(stream, question))
    return _TAKEN


async def _watch(stream: NoticeStream, question: str) -> None:
    """Take a question back from the client when the process that asked it has died."""
    digest, name = stream.session_digest, event_log.name_of(stream.event_token)
    while question in stream.asked:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            if await shared_notes.lease_holder(_lease(digest, question)):
                continue
            content = await shared_notes.get(_key(digest, question))
        except (DatabaseFailure, VaultError) as failure:
            logger.warning("a question is not looked after now: %s", type(failure).__name__)
            continue
        if content is None or _note.decode(content).stream not in ("", name):
            return
        await shared_notes.remove(_key(digest, question))
        stream.take_back(question)
        # Should it live after all, it waits no longer.
        address = client_questions.address_of(digest, question)
        await node_mail.send(address, _refused("the question was taken back from the client"))


def _refused(why: str) -> bytes:
    return json_rpc.refusal(None, why)


def keeping(stream: NoticeStream) -> BeforeAsking:
    """Return what writes down which event of this stream a question is."""

    async def keep(question: str, message: bytes, number: int) -> None:
        await _place(stream, question, _Note(0, "", b"", message, "", number))

    return keep


async def _place(stream: NoticeStream, question: str, note: _Note) -> None:
    """Note that a question is an event of this stream; best effort."""
    note.stream = event_log.name_of(stream.event_token)
    content = msgspec.msgpack.encode(note)
    try:
        await shared_notes.put(_key(stream.session_digest, question), content, QUESTION_SECONDS)
    except Exception:
        logger.exception("a question is known to this process alone")


async def go_on(stream: NoticeStream, position: Position) -> None:
    """Ask a client that came back what it was asked and has not seen."""
    digest, broken = stream.session_digest, event_log.name_of(position.token)
    try:
        found = await shared_notes.all_of(_key(digest, ""))
    except Exception:
        logger.exception("the open questions of a session could not be read")
        return
    for key, content in found.items():
        note, question = _note.decode(content), key.rpartition(":")[2]
        if not note.message or note.stream != broken:
            continue
        if note.number > position.number:
            stream.ask(question, note.message)
        else:
            stream.asked[question] = None
            note.number = 0
            await _place(stream, question, note)
        _begin(_watch(stream, question))


def left(stream: NoticeStream, *, for_good: bool) -> None:
    """A stream has ended; what was asked there is given up unless its client comes back."""
    if stream.asked:
        _begin(_give_up(stream, 0.0 if for_good else GONE_SECONDS))


async def _give_up(stream: NoticeStream, seconds: float) -> None:
    await asyncio.sleep(seconds)
    digest, name = stream.session_digest, event_log.name_of(stream.event_token)
    for question in list(stream.asked):
        content = await shared_notes.get(_key(digest, question))
        if content is None or _note.decode(content).stream not in ("", name):
            continue
        await shared_notes.remove(_key(digest, question))
        address = client_questions.address_of(digest, question)
        await node_mail.send(address, _refused("the client is gone"))


def _key(digest: str, question: str) -> str:
    return f"asked:{digest}:{question}"


def _lease(digest: str, question: str) -> str:
    return f"asking:{digest}:{question}"


def _begin(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(_logged(work))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        logger.exception("a question outside of calls could not be seen to")
