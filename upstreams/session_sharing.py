"""Sessions with stateful upstreams that all processes share (protocol.md 2.5 S3).

What the processes must know of a session is a note that they share: its id and what the upstream
said when it was opened, sealed. The first process opens it under a lease, the others wait for that
and adopt it. One that the upstream forgot is replaced once. Each process that uses a session holds
a lease of its own on it, so that the last one to leave ends it, and nobody else.

Nothing here is on the way of a call in a session that the process knows. While the notes can't be
reached a process has sessions of its own, and shares them, or changes to the shared ones, later.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from upstreams.canonical_call import ClientFacts
from upstreams.process_notes import Notes, going_on
from upstreams.session_opening import LegacySession, SessionKey, initialize, session_of
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

log = logging.getLogger(__name__)
T = TypeVar("T")

# A process renews what it uses every half minute (``legacy_sessions.SWEEP_SECONDS``).
NOTE_SECONDS: Final = 600.0
USER_SECONDS: Final = 90.0
OPENING_SECONDS: Final = 10.0
RENEW_SECONDS: Final = 3.0
# Longer than an upstream may take to open one.
WAIT_SECONDS: Final = 75.0
LOOK_SECONDS: Final = 0.1
# A call does not wait longer for a database that is busy.
SOON_SECONDS: Final = 3.0
_AT_ONCE: Final = 500
_USER: Final = "session-user:"
_CALL: Final = "session-call:"


class _Note(msgspec.Struct, array_like=True):
    """A shared session; ``opened`` is the raw ``initialize`` result."""

    id: bytes
    opened: bytes


_note = msgspec.msgpack.Decoder(_Note)
_notes: Notes | None = None


def share_by(notes: Notes | None) -> None:
    """Have sessions that open from now on shared with the other processes, or not."""
    global _notes
    _notes = notes


def notes() -> Notes | None:
    """Return where the processes meet that share sessions; None where none do."""
    return _notes


def notes_of(session: LegacySession) -> Notes | None:
    """Return where the processes that share a session meet; None for one that is not shared."""
    return _notes if session.shared else None


# Opening -----------------------------------------------------------------------------------------
async def opened(
    key: SessionKey,
    facts: UpstreamFacts,
    credential: "Credential",
    client: ClientFacts,
    gone: bytes = b"",
) -> LegacySession:
    """Return the session that all processes use for these, opening it if there is none.

    ``gone`` is the id of one that the upstream no longer knows.

    Raises:
        UpstreamError: as for ``initialize``.
    """
    notes, name = _notes, _name(key)
    lease, holder = f"{name}:opening", secrets.token_hex(8)
    ends = asyncio.get_running_loop().time() + WAIT_SECONDS
    try:
        while notes is not None:
            content = await _soon(notes.get(name))
            found = _standing(content, gone)
            if found is not None:
                session = session_of(key, facts, credential, found.opened, found.id)
                return await _soon(_adopted(notes, session))
            if await _soon(notes.take_lease(lease, holder, OPENING_SECONDS)):
                break
            if asyncio.get_running_loop().time() > ends:
                notes = None
            else:
                await asyncio.sleep(LOOK_SECONDS)
    except Exception as failure:
        _on_our_own(facts, failure)
        notes = None
    if notes is None:
        return await initialize(key, facts, credential, client)
    async with _renewed(notes, lease, holder):
        return await _opened_for_all(notes, key, facts, credential, client, gone)


async def _opened_for_all(
    notes: Notes,
    key: SessionKey,
    facts: UpstreamFacts,
    credential: "Credential",
    client: ClientFacts,
    gone: bytes,
) -> LegacySession:
    """Open the session, unless somebody did between our look and our lease.

    Raises:
        UpstreamError: as for ``initialize``.
    """
    name, content = _name(key), None
    try:
        content = await _soon(notes.get(name))
        found = _standing(content, gone)
        if found is not None:
            session = session_of(key, facts, credential, found.opened, found.id)
            return await _soon(_adopted(notes, session))
    except Exception as failure:
        _on_our_own(facts, failure)
    session = await initialize(key, facts, credential, client)
    try:
        await _soon(_publish(notes, session, content))
    except Exception as failure:
        _on_our_own(facts, failure)
    return session


def _standing(content: bytes | None, gone: bytes) -> _Note | None:
    found = None if content is None else _note.decode(content)
    return None if found is None or found.id == gone else found


async def _adopted(notes: Notes, session: LegacySession) -> LegacySession:
    session.adopted, session.opened_at = True, float("-inf")
    await _use(notes, session)
    return session


async def _publish(notes: Notes, session: LegacySession, before: bytes | None = None) -> bool:
    """Have a session be the one that all use, in place of what was written ``before``."""
    if not session.id:
        return True
    name, content = _name(session.key), _content(session)
    published = before is not None and await notes.swap(name, before, content, NOTE_SECONDS)
    if not published and not await notes.set_once(name, content, NOTE_SECONDS):
        return False
    await _use(notes, session)
    return True


async def _use(notes: Notes, session: LegacySession) -> None:
    """Be seen to use a session."""
    shared = hashlib.sha256(_name(session.key).encode() + b" " + session.id).hexdigest()[:40]
    await notes.take_lease(_user(shared, notes.PROCESS), notes.PROCESS, USER_SECONDS)
    session.shared = shared


@contextlib.asynccontextmanager
async def _renewed(notes: Notes, lease: str, holder: str) -> AsyncIterator[None]:
    """Hold a lease for as long as the block takes."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with going_on("a lease is not renewed"):
                await notes.take_lease(lease, holder, OPENING_SECONDS)

    renewing = asyncio.get_running_loop().create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait((renewing,))
        with going_on("a lease is left to run out"):
            await _soon(notes.end_lease(lease, holder))


async def _soon(work: Coroutine[Any, Any, T]) -> T:
    """Await what is written down or read while a call waits; it goes on if that takes too long.

    Raises:
        TimeoutError: so it does.
    """
    return await asyncio.wait_for(asyncio.shield(work), SOON_SECONDS)


def _on_our_own(facts: UpstreamFacts, failure: Exception) -> None:
    log.warning(
        "this process has a session of its own with %s: %s", facts.key, type(failure).__name__
    )


# Keeping -----------------------------------------------------------------------------------------
async def keep(sessions: Iterable[LegacySession]) -> list[LegacySession]:
    """Be seen to use these, and share those that could not be shared so far.

    Returns those in whose place there is another one by now, which all others use.
    """
    notes, known = _notes, [session for session in sessions if session.id]
    if notes is None:
        return []
    shared = [session for session in known if session.shared]
    lost: list[LegacySession] = []
    try:
        for at in range(0, len(shared), _AT_ONCE):
            lost += await _extend(notes, shared[at : at + _AT_ONCE])
        own = [session for session in known if not session.shared] + lost
        return [session for session in own if not await _shared_again(notes, session)]
    except Exception as failure:
        log.warning("shared sessions are not renewed: %s", type(failure).__name__)
        return []


async def _extend(notes: Notes, sessions: list[LegacySession]) -> list[LegacySession]:
    """Extend what stands of these; returns those without a note."""
    users = {_user(session.shared, notes.PROCESS): session for session in sessions}
    wants = [want for session in sessions for want in session.want_leases]
    kept = await notes.extend_leases([*users, *wants], notes.PROCESS, USER_SECONDS)
    for lease in {*users, *wants} - kept:
        await notes.take_lease(lease, notes.PROCESS, USER_SECONDS)
    names = {_name(session.key): session for session in sessions}
    levels = [level_note(session) for session in sessions if session.log_level]
    standing = await notes.extend([*names, *levels], NOTE_SECONDS)
    return [session for name, session in names.items() if name not in standing]


async def _shared_again(notes: Notes, session: LegacySession) -> bool:
    """Share a session that is not; False if there is another one."""
    if await _publish(notes, session):
        return True
    if await notes.get(_name(session.key)) != _content(session):
        return False
    # Written, but perhaps nobody could see yet that this process uses it.
    await _use(notes, session)
    return True


# Ending ------------------------------------------------------------------------------------------
async def left(session: LegacySession) -> bool:
    """Use a session no more; returns whether nobody does, so that it is ours to end."""
    notes = notes_of(session)
    if notes is None:
        return True
    try:
        await notes.end_lease(_user(session.shared, notes.PROCESS), notes.PROCESS)
        for want in session.want_leases:
            await notes.end_lease(want, notes.PROCESS)
        if session.handed_over:
            await _keep_for_call(notes, session)
            return False
        if await notes.holders(_user(session.shared, "")) or await notes.holders(_call(session)):
            return False
        return await _ours_to_end(notes, session)
    except Exception as failure:
        log.warning("a shared session is not ended: %s", type(failure).__name__)
        return False


async def left_together(sessions: list[LegacySession]) -> list[LegacySession]:
    """Do as ``left`` for many, in a few statements: a process that ends has seconds for all."""
    ours = [session for session in sessions if notes_of(session) is None]
    shared = [session for session in sessions if notes_of(session) is not None]
    try:
        for at in range(0, len(shared), _AT_ONCE):
            ours += await _left(shared[at : at + _AT_ONCE])
    except Exception as failure:
        log.warning("shared sessions are not ended: %s", type(failure).__name__)
    return ours


async def _left(sessions: list[LegacySession]) -> list[LegacySession]:
    notes = _notes
    assert notes is not None
    leases = [_user(session.shared, notes.PROCESS) for session in sessions]
    leases += [want for session in sessions for want in session.want_leases]
    await notes.end_leases(leases, notes.PROCESS)
    for session in [one for one in sessions if one.handed_over]:
        await _keep_for_call(notes, session)
    used = {key.split(":")[1] for key in await notes.leases(_USER)}
    calls = {key.rpartition(":")[0] + ":" for key in await notes.leases(_CALL)}
    unused = [one for one in sessions if one.shared not in used and _call(one) not in calls]
    stood = await notes.discard_all({_name(one.key): _content(one) for one in unused})
    return [one for one in unused if _name(one.key) in stood]


async def _keep_for_call(notes: Notes, session: LegacySession) -> None:
    """Have no process end a session while a call that was handed over waits for one to go on."""
    holder = secrets.token_hex(8)
    await notes.take_lease(f"{_call(session)}{holder}", holder, NOTE_SECONDS)


@contextlib.asynccontextmanager
async def used_for_call(session: LegacySession) -> AsyncIterator[None]:
    """Have no other process end a session in which a call goes on here that one of them began."""
    notes = _notes
    if notes is None:
        yield
        return
    holder = secrets.token_hex(8)
    lease = f"{_call(session)}{holder}"
    with going_on("another process may end the session of a call"):
        await notes.take_lease(lease, holder, OPENING_SECONDS)
    async with _renewed(notes, lease, holder):
        try:
            yield
        finally:
            if session.handed_over:
                with going_on("another process may end the session of a call"):
                    await _keep_for_call(notes, session)


async def over(session: LegacySession) -> bool:
    """A session is over for all; returns whether it is ours to end, and not another process's."""
    notes = notes_of(session)
    if notes is None:
        return True
    try:
        await notes.end_lease(_user(session.shared, notes.PROCESS), notes.PROCESS)
        return await _ours_to_end(notes, session)
    except Exception as failure:
        log.warning("a shared session is not ended: %s", type(failure).__name__)
        return False


async def _ours_to_end(notes: Notes, session: LegacySession) -> bool:
    name, own = _name(session.key), _content(session)
    found = await notes.get(name)
    # Without a note another process ended it just now; one that was replaced nobody else ends.
    return await notes.discard(name, own) if found == own else found is not None


async def others(session: LegacySession) -> set[str]:
    """Return the other processes that use a session.

    Raises:
        Exception: the notes can't be reached.
    """
    notes = notes_of(session)
    if notes is None:
        return set()
    return await notes.holders(_user(session.shared, "")) - {notes.PROCESS}


async def first_to_tell(session: LegacySession, notice: str) -> bool:
    """Tell whether of the processes that share a session this one tells its upstream something."""
    notes = notes_of(session)
    if notes is None:
        return True
    with going_on("a notice may be told twice"):
        return await notes.set_once(f"session-told:{session.shared}:{notice}", b"", NOTE_SECONDS)
    return True


def _content(session: LegacySession) -> bytes:
    return msgspec.msgpack.encode(_Note(session.id, session.opened))


def _name(key: SessionKey) -> str:
    """Return how all processes call the session for these."""
    parts = (key.upstream_id, key.url, key.credential_id, key.principal, key.capabilities)
    digest = hashlib.sha256(repr((*parts, key.client)).encode()).hexdigest()[:40]
    return f"upstream-session:{digest}"


def _user(shared: str, process: str) -> str:
    return f"{_USER}{shared}:{process}"


def _call(session: LegacySession) -> str:
    """Return how leases for calls in a session begin, of which its processes know the id alone."""
    digest = hashlib.sha256(b"%d %b" % (session.key.upstream_id, session.id)).hexdigest()[:40]
    return f"{_CALL}{digest}:"


def level_note(session: LegacySession) -> str:
    """Return where the processes write down the log level of a session."""
    return f"session-level:{session.shared}"
