"""Sessions with stateful upstreams, opened by ``initialize`` and reused (protocol.md b7, D9).

A session belongs to one upstream, one credential, one person and one set of declared
capabilities, so that nothing one client may do is lent to another; by the administrator's choice
(``SessionScope``) also to one client session, or to one call. Sessions live in the
process; those not used for a while are ended with DELETE, as are the least recently used
ones when there are too many.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from upstreams import json_rpc, relay_client
from upstreams.call_answer import AwaitedAnswer
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.client_capabilities import any_asked, capabilities_for
from upstreams.errors import UpstreamAnswerInvalid, UpstreamError, UpstreamIncompatible
from upstreams.json_rpc import NotJsonRpc
from upstreams.models import SessionScope
from upstreams.modern_exchange import JSON_HEADERS
from upstreams.revisions import LEGACY_ACCEPTED, LEGACY_LATEST, MODERN, OWN_CLIENT_INFO
from upstreams.running_loop import running_loop
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential
    from upstreams.session_stream import SessionStream
    from upstreams.unrelated_questions import UnrelatedQuestions

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 600.0
# What an upstream remembers for one client session is missed longer.
CLIENT_IDLE_SECONDS: Final = 3600.0
SWEEP_SECONDS: Final = 30.0
MOST_SESSIONS: Final = 5000
OPEN_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 2.0
_LONGEST_ID: Final = 1024
# Before 2025-06-18 the version travelled at ``initialize`` only.
_WITHOUT_VERSION_HEADER: Final = ("2025-03-26", "2024-11-05")

Headers = tuple[tuple[bytes, bytes], ...]


class InitializeRefused(UpstreamAnswerInvalid):
    """The upstream answered ``initialize`` with a JSON-RPC error; ``code`` and ``data`` are its."""

    def __init__(self, title: str, error: bytes) -> None:
        found = json_rpc.error_of(error)
        super().__init__(
            f"{title} refused to open a session.", detail=f"initialize: error {found.code}"
        )
        self.error_code = found.code
        self.error = error


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose session it is, with what; ``client`` is empty where a person's clients share it."""

    upstream_id: int
    url: str
    credential_id: str
    principal: str
    capabilities: bytes
    client: str = ""


@dataclass(slots=True, eq=False)
class LegacySession:
    """An open session.

    ``opened`` is the raw ``initialize`` result and ``opened_at`` when it came
    (``time.monotonic``); ``headers`` go on every request; ``id`` is
    empty for upstreams without session ids. ``credential`` is the newest one of the grant.
    ``wanted`` holds, for each who listens in it, the URIs subscribed to; ``subscribing`` keeps
    what is said about them in order. ``stream`` is the session's GET stream where one was opened,
    ``questions`` what the upstream asked there, ``askable`` whether it may ask anything at all.
    ``handed_over``: another process goes on with a call in it, so that it is not ended here.
    """

    key: SessionKey
    facts: UpstreamFacts
    credential: "Credential" = field(repr=False)
    id: bytes = field(repr=False)
    revision: str
    opened: bytes
    headers: Headers = field(repr=False)
    can_log: bool = False
    askable: bool = False
    handed_over: bool = False
    log_level: str = ""
    opened_at: float = field(default_factory=time.monotonic)
    last_used: float = 0.0
    in_use: int = 0
    wanted: dict[object, frozenset[str]] = field(default_factory=dict)
    subscribing: asyncio.Lock = field(default_factory=asyncio.Lock)
    stream: "SessionStream | None" = None
    questions: "UnrelatedQuestions | None" = None

    def close(self) -> None:
        """Hear no more of it."""
        if self.stream is not None:
            self.stream.stop()
        if self.questions is not None:
            self.questions.close()


class LegacySessions:
    """The sessions of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: OrderedDict[SessionKey, LegacySession] = OrderedDict()
        self._opening: dict[SessionKey, asyncio.Task[LegacySession]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None

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
        session.close()

    def roots_changed(self, owner: str) -> None:
        """Tell the upstreams whose sessions a client uses that its roots are other ones now."""
        for session in self._open.values():
            questions = session.questions
            if questions is None or not questions.used_by(owner):
                continue
            if _tells_of_roots(session.key.capabilities):
                questions.roots_changed(owner)
                self.run(_tell_of_roots(session))

    def client_left(self, owner: str) -> None:
        """End the sessions that a client had for itself: its own was deleted (2.3.7)."""
        for session in [s for s in self._open.values() if s.key.client == owner]:
            del self._open[session.key]
            self.run(end(session))

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
        session = await initialize(key, facts, credential, client)
        self._open[key] = session
        while len(self._open) > MOST_SESSIONS:
            self.run(end(self._open.popitem(last=False)[1]))
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._end_idle)
        return session

    def _end_idle(self) -> None:
        self._sweep = None
        now = time.monotonic()
        for session in list(self._open.values()):
            kept = CLIENT_IDLE_SECONDS if session.key.client else IDLE_SECONDS
            if session.in_use or now - session.last_used <= kept:
                continue
            del self._open[session.key]
            self.run(end(session))
        if self._open:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._end_idle)

    async def close(self) -> None:
        """End every session, best effort and within two seconds."""
        if self._sweep is not None:
            self._sweep.cancel()
        sessions = list(self._open.values())
        self._open.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(quietly(end(session)) for session in sessions))


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


async def initialize(
    key: SessionKey, facts: UpstreamFacts, credential: "Credential", client: ClientFacts
) -> LegacySession:
    """Open a session: ``initialize``, then ``notifications/initialized``.

    Raises:
        UpstreamError: no session; ``UpstreamIncompatible`` for an unknown revision.
    """
    call = CanonicalCall(method="initialize", timeout=OPEN_SECONDS)
    awaited = AwaitedAnswer(facts, call, SilentSink(), modern=False)
    params = json_rpc.object_of(
        {
            "protocolVersion": LEGACY_LATEST,
            "capabilities": json_rpc.Raw(key.capabilities),
            "clientInfo": client_info(client),
        }
    )
    body = json_rpc.request(awaited.request_id, "initialize", params)
    async with relay_client.post(
        facts, credential, JSON_HEADERS, body, timeout=OPEN_SECONDS, resend=True
    ) as answer:
        outcome = await awaited.outcome(answer)
        session_id = answer.headers.get(b"mcp-session-id", b"")
    if outcome.error:
        raise InitializeRefused(facts.title, outcome.error)
    session = session_of(key, facts, credential, outcome.result, session_id)
    body = json_rpc.notification("notifications/initialized", b"")
    async with relay_client.post(
        facts, credential, session.headers, body, timeout=OPEN_SECONDS, resend=True
    ) as answer:
        if answer.status in (401, 403):
            await awaited.outcome(answer)
        await answer.read(64 * 1024)
    return session


def session_of(
    key: SessionKey,
    facts: UpstreamFacts,
    credential: "Credential",
    opened: bytes,
    session_id: bytes,
) -> LegacySession:
    """Return the session that an ``initialize`` result begins.

    Raises:
        UpstreamIncompatible: it names a revision the gateway does not speak.
        UpstreamAnswerInvalid: the result or the session id (a26) is malformed.
    """
    title = facts.title
    try:
        members = json_rpc.members_of(opened)
        revision = json_rpc.plain(members.get("protocolVersion", json_rpc.Raw(b"null")))
        capabilities = json_rpc.plain(members.get("capabilities", json_rpc.Raw(b"{}")))
    except NotJsonRpc as error:
        message = f"{title} gave an answer that is not MCP."
        raise UpstreamAnswerInvalid(message, detail=f"initialize: {error}") from error
    if revision not in LEGACY_ACCEPTED:
        raise UpstreamIncompatible(
            f"{title} speaks a protocol revision that the gateway does not know.",
            detail=f"initialize answered protocolVersion {str(revision)[:40]!r}",
        )
    if len(session_id) > _LONGEST_ID or not all(0x21 <= octet <= 0x7E for octet in session_id):
        message = f"{title} gave an answer that is not MCP."
        raise UpstreamAnswerInvalid(message, detail="the session id is not visible ASCII")
    headers = headers_for(session_id, revision)
    can_log = isinstance(capabilities, dict) and "logging" in capabilities
    return LegacySession(
        key,
        facts,
        credential,
        session_id,
        revision,
        opened,
        headers,
        can_log=can_log,
        askable=any_asked(key.capabilities),
    )


def headers_for(session_id: bytes, revision: str) -> Headers:
    """Return what goes on every request of a session."""
    headers: Headers = JSON_HEADERS
    if session_id:
        headers += ((b"Mcp-Session-Id", session_id),)
    if revision not in _WITHOUT_VERSION_HEADER:
        headers += ((b"MCP-Protocol-Version", revision.encode()),)
    return headers


def client_info(client: ClientFacts) -> dict[str, Any]:
    """Return how the gateway names itself, with the client's name for display (2.3.1)."""
    info = dict(OWN_CLIENT_INFO)
    with contextlib.suppress(NotJsonRpc):
        found = json_rpc.plain(client.client_info or b"{}")
        if isinstance(found, dict) and isinstance(found.get("name"), str):
            info["title"] = found["name"][:100]
    return info


def _tells_of_roots(capabilities: bytes) -> bool:
    declared = json_rpc.plain(capabilities).get("roots")
    return isinstance(declared, dict) and declared.get("listChanged") is True


async def _tell_of_roots(session: LegacySession) -> None:
    body = json_rpc.notification("notifications/roots/list_changed", b"")
    async with relay_client.post(
        session.facts, session.credential, session.headers, body, timeout=CLOSE_SECONDS
    ) as answer:
        await answer.read(64 * 1024)


def roots_changed_anywhere(owner: str) -> None:
    """Do as ``LegacySessions.roots_changed`` on every event loop; from any thread."""
    for loop, found in list(_sessions.items()):
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its sessions with it
            loop.call_soon_threadsafe(found.roots_changed, owner)


def client_left_anywhere(owner: str) -> None:
    """Do as ``LegacySessions.client_left`` on every event loop; from any thread."""
    for loop, found in list(_sessions.items()):
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its sessions with it
            loop.call_soon_threadsafe(found.client_left, owner)


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
