"""Stateful clients: their sessions, sealed into the session id they carry (protocol.md 2.5 S1).

What a client said at ``initialize`` travels in ``Mcp-Session-Id``, bound to the Virtual MCP, the
person and the client, so that any node serves any request. Shared storage holds only what
changes: sessions that ended, and the log level.

An opened session is remembered in memory for at most ``REMEMBER_SECONDS``: a warm request costs
one dictionary look-up.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from channels.db import database_sync_to_async
from django.utils import timezone

from upstreams.canonical_call import ClientFacts
from upstreams.client_capabilities import capabilities_for
from upstreams.revisions import LEGACY_ACCEPTED, LEGACY_LATEST
from virtualmcp.eras import log_levels
from virtualmcp.models import EndedSession, SessionSubscription
from virtualmcp.routing.sealed_state import SealBroken, seal, unseal_with_expiry
from virtualmcp.signals import changed
from virtualmcp.transport.wire_validation import client_facts

if TYPE_CHECKING:
    from oauthserver.bearer_tokens import TokenHolder

PURPOSE = "session"
LIFETIME = 24 * 3600
REMEMBER_SECONDS = 60.0
MOST_REMEMBERED = 10_000
MOST_CAPABILITIES = 4_096
MOST_CLIENT_INFO = 1_024
BATCHING_REVISION = "2025-03-26"

# A session without a level of its own gets what matters (a41 leaves the default to the server).
DEFAULT_LOG_LEVEL = "info"


class SessionUnknown(Exception):
    """No such session for this person, client and server: 404, the client opens a new one."""


class ClientTooTalkative(Exception):
    """What the client said of itself does not fit into a session id."""


class _Sealed(msgspec.Struct, array_like=True, gc=False):
    """What is inside a session id; arrays keep it short."""

    nonce: bytes
    revision: str
    capabilities: bytes
    client_info: bytes


_reader = msgspec.msgpack.Decoder(_Sealed)


class Session:
    """One stateful client's session in the memory of this process.

    ``digest`` names it in storage and logs; the id itself never goes there. ``revision`` is the
    one the client was answered; ``facts`` treat 2024-11-05 as 2025-03-26. ``log_level`` is ""
    until the client asks for one; ``level_read_at`` is when it was looked up (monotonic).
    """

    __slots__ = (
        "digest",
        "ended",
        "expires_at",
        "facts",
        "level_read_at",
        "log_level",
        "revision",
        "stale_at",
    )

    def __init__(
        self,
        digest: str,
        revision: str,
        facts: ClientFacts,
        expires_at: int,
        log_level: str,
        level_read_at: float,
    ) -> None:
        self.digest = digest
        self.revision = revision
        self.facts = facts
        self.expires_at = expires_at
        self.log_level = log_level
        self.level_read_at = level_read_at
        self.stale_at = time.monotonic() + min(REMEMBER_SECONDS, expires_at - time.time())
        self.ended = False

    @property
    def batches(self) -> bool:
        """Only this revision knows batches (a27)."""
        return self.revision == BATCHING_REVISION


_Key = tuple[bytes, str, int, str]
_remembered: OrderedDict[_Key, Session] = OrderedDict()
# Counts endings and changed levels, so that a look-up that began before one is not remembered
# after it.
_changes = 0


def negotiated(requested: str) -> str:
    """Return the revision to answer ``initialize`` with (a10)."""
    return requested if requested in LEGACY_ACCEPTED else LEGACY_LATEST


def open_session(
    slug: str, holder: "TokenHolder", revision: str, capabilities: bytes, client_info: bytes
) -> tuple[str, ClientFacts]:
    """Return a new session id and the facts sealed in it.

    Raises:
        ClientTooTalkative: the capabilities are larger than ``MOST_CAPABILITIES`` bytes.
    """
    if len(capabilities) > MOST_CAPABILITIES:
        raise ClientTooTalkative(f"capabilities of more than {MOST_CAPABILITIES} bytes")
    if len(client_info) > MOST_CLIENT_INFO:
        client_info = _short_info(client_info)
    payload = msgspec.msgpack.encode(
        _Sealed(secrets.token_bytes(16), revision, capabilities, client_info)
    )
    session_id = seal(PURPOSE, payload, bound_to=_owner(slug, holder), lifetime=LIFETIME)
    return session_id, _facts(revision, capabilities, client_info)


def remembered(session_id: bytes, slug: str, holder: "TokenHolder") -> Session | None:
    """Return the session if this process knows it and it is fresh; no I/O."""
    session = _remembered.get((session_id, slug, holder.user_id, holder.client_id))
    if session is None or session.ended or session.stale_at <= time.monotonic():
        return None
    return session


async def find(session_id: bytes, slug: str, holder: "TokenHolder") -> Session:
    """Return the session behind an id.

    Raises:
        SessionUnknown: sealed for somebody else, altered, expired, or ended (a26, c11).
        django.db.Error: whether it ended can't be read now.
    """
    session = remembered(session_id, slug, holder)
    if session is not None:
        return session
    changes = _changes
    try:
        payload, expires_at = unseal_with_expiry(
            PURPOSE, session_id.decode("latin-1"), bound_to=_owner(slug, holder)
        )
    except SealBroken as error:
        raise SessionUnknown(str(error)) from error
    digest = digest_of(session_id)
    if await database_sync_to_async(_has_ended, thread_sensitive=False)(digest):
        raise SessionUnknown("ended")
    present = await log_levels.be_present()
    read_at = time.monotonic()
    level = await log_levels.kept(digest) or ""
    sealed = _reader.decode(payload)
    facts = _facts(sealed.revision, sealed.capabilities, sealed.client_info)
    session = Session(digest, sealed.revision, facts, expires_at, level, read_at)
    if present and changes == _changes:
        _remembered[(session_id, slug, holder.user_id, holder.client_id)] = session
        while len(_remembered) > MOST_REMEMBERED:
            _remembered.popitem(last=False)
    return session


async def end(session: Session) -> None:
    """Make a session id unusable on every node (DELETE)."""
    forget(session.digest)
    await database_sync_to_async(_write_ending, thread_sensitive=False)(
        session.digest, session.expires_at
    )


def forget(key: str = "") -> None:
    """Hear that a session ended on another node: drop it, or everything for ``""``."""
    global _changes
    _changes += 1
    for known, session in list(_remembered.items()):
        if not key or session.digest == key:
            session.ended = True
            _remembered.pop(known, None)


async def set_log_level(session: Session, level: str) -> None:
    """Remember how much a client wants to hear, in all processes, for the session's life."""
    session.log_level = level
    await log_levels.keep(session.digest, level, max(1.0, session.expires_at - time.time()))


def hear_level(key: str) -> None:
    """Hear what another process was told; from any thread."""
    global _changes
    _changes += 1
    digest, _, level = key.partition(" ")
    for session in list(_remembered.values()):
        if session.digest == digest:
            session.log_level = level


async def read_level_again(session: Session) -> None:
    """Look up the level that another process may have been told of unheard here."""
    read_at, known = time.monotonic(), session.log_level
    level = await log_levels.kept(session.digest)
    # What was heard while it was read is newer.
    if level is not None and session.log_level == known:
        session.log_level, session.level_read_at = level, read_at


def log_level(session: Session) -> str:
    """Return the level now wanted."""
    return session.log_level or DEFAULT_LOG_LEVEL


def digest_of(session_id: bytes) -> str:
    """Return the name under which a session is stored and logged."""
    return hashlib.sha256(session_id).hexdigest()


def _owner(slug: str, holder: "TokenHolder") -> str:
    return f"{slug}\n{holder.user_id}\n{holder.client_id}"


def _facts(revision: str, capabilities: bytes, client_info: bytes) -> ClientFacts:
    served_as = BATCHING_REVISION if revision == "2024-11-05" else revision
    # What its revision does not have is never declared for a client (protocol.md D9).
    return client_facts(served_as, capabilities_for(served_as, capabilities), client_info)


def _short_info(client_info: bytes) -> bytes:
    """Keep a client's name and version; icons and descriptions would fill the session id."""
    kept = {}
    for name, value in msgspec.json.decode(client_info).items():
        if name in ("name", "title", "version") and isinstance(value, str):
            kept[name] = value[:200]
    return msgspec.json.encode(kept)


def _has_ended(digest: str) -> bool:
    return EndedSession.objects.filter(digest=digest).exists()


def _write_ending(digest: str, expires_at: int) -> None:
    EndedSession.objects.filter(expires_at__lt=timezone.now()).delete()
    EndedSession.objects.get_or_create(
        digest=digest, defaults={"expires_at": datetime.fromtimestamp(expires_at, UTC)}
    )
    SessionSubscription.objects.filter(session_digest=digest).delete()
    changed.send(sender=EndedSession, kind="session", key=digest)
