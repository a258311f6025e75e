"""The note of a stateful client's call that another process could go on with (``held_calls``), and
what is written about it beside: who holds the call, and which answers were acted on."""

import hashlib
from typing import Final

import msgspec

from upstreams.canonical_call import Origin, QuestionOrigin
from virtualmcp.routing import parked_mail, shared_notes
from virtualmcp.transport.event_log import Events
from virtualmcp.transport.wanted_notices import NO_PROGRESS

KEEP_SECONDS: Final = parked_mail.PARK_SECONDS
UNDER_WAY: Final = b"under way"


class Asking(msgspec.Struct, frozen=True):
    """A question the client was asked; ``id`` is ours, ``origin`` the upstream's own id or key."""

    id: str
    origin: bytes
    method: str
    params: bytes


# Questions that have no answer at the upstream, each with whether one may be under way to it.
Unposted = list[tuple[Asking, bool]]


class Note(msgspec.Struct):
    """What another process needs.

    ``number`` and ``events`` are of the stream's log. Of a stateless upstream there is ``round``,
    the ``input_required`` result, and how many rounds there were; of a stateful one the session.
    ``task_id`` is that of the task that asks, if one does.
    """

    method: str
    params: bytes
    progress: float
    number: int
    events: Events
    upstream_id: int
    asking: list[Asking]
    round: bytes = b""
    rounds: int = 0
    request_id: str = ""
    session_id: bytes = b""
    revision: str = ""
    last_event_id: bytes = b""
    task_id: str = ""


_note = msgspec.msgpack.Decoder(Note)


def read(content: bytes) -> Note:
    """Read a note.

    Raises:
        msgspec.MsgspecError: it was written by another version of the gateway.
    """
    return _note.decode(content)


def begun(method: str, params: bytes) -> Note:
    """Return the note of a call that has not asked anything yet."""
    return Note(method, params, NO_PROGRESS, 0, [], 0, [])


async def forget(name: str) -> None:
    """Drop what is left of a call that nobody can go on with.

    Raises:
        django.db.Error: the database can't be reached.
    """
    await shared_notes.remove(note_key(name))


async def may_be_left(name: str) -> bool:
    """Tell whether a call is held, or was by a process that died.

    Raises:
        django.db.Error, VaultError: that can't be found out.
    """
    return await shared_notes.get(note_key(name)) is not None


async def open_questions(name: str, note: Note) -> Unposted:
    """Return the questions of a stateful upstream that has no answer to them, for all that is
    known. Where the call can't be resumed, none will be posted from now on, also not by a holder
    that was only taken for dead.

    Raises:
        django.db.Error, VaultError: that can't be found out.
    """
    found, resumable = [], bool(note.round or note.last_event_id)
    for one in note.asking:
        claim = claim_key(name, one.origin)
        if not resumable:
            if await shared_notes.set_once(claim, b"", 2 * KEEP_SECONDS):
                found.append((one, False))
        elif (claimed := await shared_notes.get(claim)) != b"":
            found.append((one, claimed is not None))
    return found


def key_of(origin: Origin) -> bytes:
    """Return what a question is told apart by within its call."""
    return origin.question_id if isinstance(origin, QuestionOrigin) else origin.key.encode()


def note_key(name: str) -> str:
    """Return the name of the note of a stream's call."""
    return f"stream-call:{name}"


def lease_key(name: str) -> str:
    """Return the name of the lease on it."""
    return f"stream-holder:{name}"


def claim_key(name: str, what: bytes) -> str:
    """Return the name of the note that an answer, or a round of them, was acted on."""
    return f"stream-claim:{name}:{hashlib.sha256(what).hexdigest()[:32]}"
