"""How a session with a stateful upstream is opened, and what is known of an open one (b7, D9)."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from upstreams import json_rpc, relay_client
from upstreams.call_answer import AwaitedAnswer
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.client_capabilities import any_asked
from upstreams.errors import UpstreamAnswerInvalid, UpstreamIncompatible
from upstreams.json_rpc import NotJsonRpc
from upstreams.modern_exchange import JSON_HEADERS
from upstreams.revisions import LEGACY_ACCEPTED, LEGACY_LATEST, OWN_CLIENT_INFO
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential
    from upstreams.session_stream import SessionStream
    from upstreams.unrelated_questions import UnrelatedQuestions

OPEN_SECONDS: Final = 30.0
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
    ``shared`` names the session among the processes that share it, ``""`` where none do;
    ``adopted`` tells that another one opened it (``session_sharing``).
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
    shared: str = ""
    adopted: bool = False
    want_leases: set[str] = field(default_factory=set)

    def close(self) -> None:
        """Hear no more of it."""
        if self.stream is not None:
            self.stream.stop()
        if self.questions is not None:
            self.questions.close()


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
