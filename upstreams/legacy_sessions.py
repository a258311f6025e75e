"""Sessions with stateful upstreams, opened by ``initialize`` and reused (protocol.md b7, D9).

A session belongs to one upstream, one credential, one person and one set of declared
capabilities, so that nothing one client may do is lent to another; by the administrator's choice
(``SessionScope``) also to one client session, or to one call. All processes share them
(``session_sharing``); those that no process used for a while are ended with DELETE, as are the
least recently used ones when there are too many.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from upstreams import json_rpc, relay_client, session_sharing
from upstreams.canonical_call import ClientFacts
from upstreams.client_capabilities import capabilities_for
from upstreams.errors import UpstreamError
from upstreams.models import SessionScope
from upstreams.revisions import LEGACY_LATEST, MODERN
from upstreams.running_loop import running_loop
from upstreams.session_opening import LegacySession, SessionKey, initialize
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 600.0
# What an upstream remembers for one client session is missed longer.
CLIENT_IDLE_SECONDS: Final = 3600.0
SWEEP_SECONDS: Final = 30.0
MOST_SESSIONS: Final = 5000
CLOSE_SECONDS: Final = 2.0


class LegacySessions:
    """The sessions of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: OrderedDict[SessionKey, LegacySession] = OrderedDict()
        self._opening: dict[SessionKey, asyncio.Task[LegacySession]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        # The ids of sessions that an upstream no longer knows, until there are others.
        self._gone: dict[SessionKey, bytes] = {}

    async def take(
        self,
        facts: UpstreamFacts,
        credential: "Credential",
        client: ClientFacts,
        principal: str,
        owner: str = "",
    ) -> LegacySession:
        """Return the session for these; opened once, however many ask at the same time.

        ``owner`` names the client behind a call; without one it is the person's own.

        Raises:
            UpstreamError: ``initialize`` failed (``InitializeRefused`` for a JSON-RPC error).
        """
        session = self.standing(facts, credential, client, principal, owner)
        if session is None:
            key = _key(facts, credential, client, principal, owner)
            opening = self._opening.get(key)
            if opening is None:
                opening = self._loop.create_task(self._begin(key, facts, credential, client))
                self._opening[key] = opening
                opening.add_done_callback(lambda done: self._opened(key, done))
            # Never cancelled with the caller: ``initialize`` must not be (b15), others may wait.
            session = await asyncio.shield(opening)
            session.last_used = time.monotonic()
            session.credential = credential
        return session

    def standing(
        self,
        facts: UpstreamFacts,
        credential: "Credential",
        client: ClientFacts,
        principal: str,
        owner: str = "",
    ) -> LegacySession | None:
        """Return the session for these if it is open."""
        key = _key(facts, credential, client, principal, owner)
        session = self._open.get(key)
        if session is not None:
            self._open.move_to_end(key)
            session.last_used = time.monotonic()
            session.credential = credential
        return session

    def _opened(self, key: SessionKey, done: "asyncio.Task[LegacySession]") -> None:
        self._opening.pop(key, None)
        if not done.cancelled():
            done.exception()  # seen here, although everybody who waited may have left

    def drop(self, session: LegacySession) -> None:
        """Forget a session that the upstream no longer knows."""
        if self._open.get(session.key) is session:
            del self._open[session.key]
            if session.shared:
                self._gone[session.key] = session.id
        session.close()

    def roots_changed(self, owner: str, notice: str) -> None:
        """Tell the upstreams whose sessions a client uses that its roots are other ones now.

        ``notice`` names the client's notice in all processes.
        """
        for session in self._open.values():
            questions = session.questions
            if questions is None or not questions.used_by(owner):
                continue
            if _tells_of_roots(session.key.capabilities):
                questions.roots_changed(owner)
                self.run(_tell_of_roots(session, notice))

    def client_left(self, owner: str) -> None:
        """End the sessions that a client had for itself: its own was deleted (2.3.7)."""
        for session in [s for s in self._open.values() if s.key.client == owner]:
            del self._open[session.key]
            self.run(_end_for_all(session))

    def hand_over(self, upstream_id: int, session_id: bytes) -> None:
        """Another process goes on with a call in this session, which is not ended here then."""
        for session in self._open.values():
            if session.key.upstream_id == upstream_id and session.id == session_id:
                session.handed_over = True

    def sharing(self, shared: str) -> LegacySession | None:
        """Return the session that the processes call so."""
        return next((one for one in self._open.values() if one.shared == shared), None)

    def run(self, work: Any) -> None:
        """Run a coroutine apart from the call it belongs to; its upstream errors are dropped."""
        task = self._loop.create_task(quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        # A process that ends may cancel it before it has begun.
        task.add_done_callback(lambda _: work.close())

    async def _begin(
        self, key: SessionKey, facts: UpstreamFacts, credential: "Credential", client: ClientFacts
    ) -> LegacySession:
        gone = self._gone.get(key, b"")
        session = await session_sharing.opened(key, facts, credential, client, gone)
        self._gone.pop(key, None)
        self._open[key] = session
        while len(self._open) > MOST_SESSIONS:
            self.run(_leave(self._open.popitem(last=False)[1]))
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._end_idle)
        return session

    def _end_idle(self) -> None:
        self._sweep = None
        now = time.monotonic()
        if not self._opening:
            self._gone.clear()
        for session in list(self._open.values()):
            kept = CLIENT_IDLE_SECONDS if session.key.client else IDLE_SECONDS
            if session.in_use or now - session.last_used <= kept:
                continue
            del self._open[session.key]
            self.run(_leave(session))
        if self._open:
            self.run(self._keep_shared(list(self._open.values())))
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._end_idle)

    async def _keep_shared(self, sessions: list[LegacySession]) -> None:
        for session in await session_sharing.keep(sessions):
            # Others have shared one meanwhile; the next call takes that.
            if self._open.get(session.key) is session and not session.in_use:
                del self._open[session.key]
                self.run(end(session))

    async def close(self) -> None:
        """End every session that no other process uses, best effort and within two seconds."""
        if self._sweep is not None:
            self._sweep.cancel()
        sessions = list(self._open.values())
        self._open.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                ours = await session_sharing.left_together(sessions)
                await asyncio.gather(*(quietly(end(session)) for session in ours))
        for session in sessions:
            session.close()


async def alone(
    facts: UpstreamFacts, credential: "Credential", client: ClientFacts, principal: str
) -> LegacySession:
    """Open a session that nobody else is given; who asked ends it.

    Raises:
        UpstreamError: as for ``initialize``.
    """
    key, pool = _key(facts, credential, client, principal), sessions()
    opening = asyncio.get_running_loop().create_task(initialize(key, facts, credential, client))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        pool.run(_end_opened(opening))  # ``initialize`` itself must not be cancelled (b15)
        raise


async def _end_opened(opening: "asyncio.Task[LegacySession]") -> None:
    await end(await opening)


def _key(
    facts: UpstreamFacts,
    credential: "Credential",
    client: ClientFacts,
    principal: str,
    owner: str = "",
) -> SessionKey:
    declared = client.capabilities
    if client.revision == MODERN:
        # It has no way to tell of changed roots.
        declared = capabilities_for(MODERN, declared)
    declared = capabilities_for(LEGACY_LATEST, declared)
    own = owner if facts.session_scope == SessionScope.CLIENT else ""
    return SessionKey(facts.id, facts.url, credential.id, principal, declared, own)


async def quietly(work: Any) -> None:
    """Await what may fail without anybody waiting for it."""
    try:
        await work
    except UpstreamError as error:
        log.debug("background request to an upstream failed: %s", error.detail)


def _tells_of_roots(capabilities: bytes) -> bool:
    declared = json_rpc.plain(capabilities).get("roots")
    return isinstance(declared, dict) and declared.get("listChanged") is True


async def _tell_of_roots(session: LegacySession, notice: str) -> None:
    if not await session_sharing.first_to_tell(session, notice):
        return
    body = json_rpc.notification("notifications/roots/list_changed", b"")
    async with relay_client.post(
        session.facts, session.credential, session.headers, body, timeout=CLOSE_SECONDS
    ) as answer:
        await answer.read(64 * 1024)


def roots_changed_anywhere(owner: str, notice: str) -> None:
    """Do as ``LegacySessions.roots_changed`` on every event loop; from any thread."""
    for loop, found in list(_sessions.items()):
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its sessions with it
            loop.call_soon_threadsafe(found.roots_changed, owner, notice)


def with_shared_anywhere(shared: str, call: Callable[[LegacySession], None]) -> None:
    """Make ``call`` with a shared session wherever this process uses it; from any thread."""

    def look(found: LegacySessions) -> None:
        session = found.sharing(shared)
        if session is not None:
            call(session)

    for loop, found in list(_sessions.items()):
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its sessions with it
            loop.call_soon_threadsafe(look, found)


def client_left_anywhere(owner: str) -> None:
    """Do as ``LegacySessions.client_left`` on every event loop; from any thread."""
    if not owner:
        return
    for loop, found in list(_sessions.items()):
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its sessions with it
            loop.call_soon_threadsafe(found.client_left, owner)


async def _leave(session: LegacySession) -> None:
    """Use a session no more; it ends where no other process uses it.

    Raises:
        UpstreamError: the upstream could not be told.
    """
    if await session_sharing.left(session):
        await end(session)
    session.close()


async def _end_for_all(session: LegacySession) -> None:
    """End a session in all processes; the upstream is told once.

    Raises:
        UpstreamError: it could not be told.
    """
    session.close()
    if await session_sharing.over(session):
        await end(session)


async def end(session: LegacySession) -> None:
    """Tell the upstream that a session is over (b7); any answer will do.

    Raises:
        UpstreamError: it could not be told.
    """
    session.close()
    if session.id and not session.handed_over:
        async with relay_client.delete(
            session.facts, session.credential, session.headers, timeout=CLOSE_SECONDS
        ):
            pass


_sessions: dict[asyncio.AbstractEventLoop, LegacySessions] = {}


def sessions() -> LegacySessions:
    """Return the running loop's sessions."""
    loop = running_loop()
    found = _sessions.get(loop)
    if found is None:
        for other in [known for known in _sessions if known.is_closed()]:
            del _sessions[other]
        found = _sessions[loop] = LegacySessions(loop)
    return found


async def close_all() -> None:
    """End the running loop's sessions."""
    found = _sessions.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.close()
