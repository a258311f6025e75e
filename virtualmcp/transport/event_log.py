"""What stateful calls said on their streams, so that a client that was cut off can come back.

Kept in the memory of the process that runs the call, within bounds: the oldest interim messages
of a call go first, its answer never. When a call ends while its client is away, what the client
has not seen is also left where every process finds it (``kept_for_all``).

A log is found by its token and the session together; the token is sealed for that session.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict, deque
from typing import Final

import msgspec

from upstreams.revisions import LEGACY_LATEST
from virtualmcp.routing import shared_notes
from virtualmcp.transport import event_ids
from virtualmcp.transport.http_answers import event

logger = logging.getLogger(__name__)

# How long a call goes on, and what it said is kept, for a client that is away.
AWAY_SECONDS: Final = 300.0
RECONNECT_MILLISECONDS: Final = 1_000
# What a stream ends with that its client is to come back for.
COME_BACK: Final = b"retry: %d\n\n" % RECONNECT_MILLISECONDS
MOST_EVENTS: Final = 256
MOST_BYTES: Final = 1024 * 1024
MOST_LOGS: Final = 2_000
MOST_BYTES_OF_ALL: Final = 64 * 1024 * 1024
MOST_SHARED_BYTES: Final = 256 * 1024

Events = list[tuple[int, bytes]]
_events = msgspec.msgpack.Decoder(Events)


class EventLog:
    """One stream's events. ``reader`` is whoever writes them to the client now, None for nobody."""

    __slots__ = (
        "_events",
        "away_since",
        "ended_at",
        "floor",
        "has_ids",
        "news",
        "number",
        "reader",
        "session_digest",
        "size",
        "token",
    )

    def __init__(self, session_digest: str, token: str) -> None:
        self.session_digest = session_digest
        self.token = token
        self.number = 0
        # The last event that the client had of a process that died.
        self.floor = 0
        self.size = 0
        # Whether the client was given an id by which it can come back.
        self.has_ids = False
        self.reader: object | None = None
        self.away_since = self.ended_at = 0.0
        self.news = asyncio.Event()
        self._events: deque[tuple[int, bytes]] = deque()

    def add(self, message: bytes, *, again: bool = False) -> bytes:
        """Keep a message; returns it as the event to write.

        ``again``: when the stream goes on after its process died, the client may have had this
        message, with the same number. Anything else is new to it.
        """
        if not again:
            self.number = max(self.number, self.floor)
        self.number += 1
        self.has_ids = True
        data = b"id: %b.%d\n" % (self.token.encode(), self.number) + event(message)
        self.keep([(self.number, data)])
        self.tell()
        return data

    def keep(self, events: Events) -> None:
        """Keep events as they were written; too old ones are dropped."""
        self._events.extend(events)
        self.size += sum(len(data) for _, data in events)
        while len(self._events) > 1 and (len(self._events) > MOST_EVENTS or self.size > MOST_BYTES):
            self.size -= len(self._events.popleft()[1])

    def priming(self, revision: str) -> bytes:
        """Return what the stream begins with: an id to resume from (a19)."""
        if revision != LEGACY_LATEST:
            return b""
        self.has_ids = True
        return b"id: %b.0\nretry: %d\ndata: \n\n" % (self.token.encode(), RECONNECT_MILLISECONDS)

    def after(self, number: int) -> Events:
        """Return what followed an event."""
        return [(known, data) for known, data in self._events if known > number]

    def take(self, reader: object) -> None:
        """Let somebody else write to the client from now on."""
        self.reader, self.away_since = reader, 0.0
        self.tell()

    def release(self, reader: object) -> None:
        """The client is away; whoever read before has no say any more."""
        if self.reader is reader:
            self.reader, self.away_since = None, time.monotonic()

    def end(self) -> None:
        """Nothing more follows."""
        self.ended_at = time.monotonic()
        self.tell()

    def tell(self) -> None:
        """Wake whoever waits for news."""
        news, self.news = self.news, asyncio.Event()
        news.set()

    @property
    def gone_too_long(self) -> bool:
        """Whether the client has been away for longer than a call waits."""
        return bool(self.away_since) and time.monotonic() - self.away_since >= AWAY_SECONDS


_logs: "OrderedDict[str, EventLog]" = OrderedDict()
_loop: asyncio.AbstractEventLoop | None = None


def begin(session_digest: str, request_id: bytes) -> EventLog:
    """Begin the log of a stream that opens.

    Raises:
        VaultError: there is no usable key.
    """
    global _loop
    _loop = asyncio.get_running_loop()
    log = EventLog(session_digest, event_ids.new_token(session_digest, request_id))
    _logs[name_of(log.token)] = log
    _make_room()
    return log


def restore(session_digest: str, token: str, number: int, events: Events) -> EventLog:
    """Go on with the log of a process that died, after the event ``number``."""
    log = EventLog(session_digest, token)
    log.number, log.has_ids = number, True
    log.away_since = time.monotonic()
    log.keep(events)
    _logs[name_of(token)] = log
    _make_room()
    return log


def find(session_digest: str, name: str) -> EventLog | None:
    """Return a log of this process by its name, if it belongs to this session."""
    log = _logs.get(name)
    return log if log is not None and log.session_digest == session_digest else None


def drop(log: EventLog) -> None:
    """Forget a stream that another process has now."""
    if _logs.get(name_of(log.token)) is log:
        del _logs[name_of(log.token)]


def loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that this process's streams are on, if there were any."""
    return _loop


def forget_session(session_digest: str) -> None:
    """Drop what was said in a session that has ended; from any thread."""
    if _loop is not None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its streams with it
            _loop.call_soon_threadsafe(_forget, session_digest)


def _forget(session_digest: str) -> None:
    for name, log in list(_logs.items()):
        if log.session_digest == session_digest:
            _logs.pop(name, None)
            log.tell()


def name_of(token: str) -> str:
    """Return how a stream is named between processes."""
    return hashlib.sha256(token.encode()).hexdigest()[:40]


def _make_room() -> None:
    """Drop logs that ended a while ago, and the oldest ones when there are too many."""
    now, size = time.monotonic(), 0
    for name, log in list(_logs.items()):
        if log.ended_at and now - log.ended_at >= AWAY_SECONDS:
            del _logs[name]
        else:
            size += log.size
    while len(_logs) > MOST_LOGS or (size > MOST_BYTES_OF_ALL and len(_logs) > 1):
        size -= _logs.popitem(last=False)[1].size


def newest(log: EventLog) -> Events:
    """Return as much of what was said last as processes leave each other."""
    events = log.after(0)
    while len(events) > 1 and sum(len(data) for _, data in events) > MOST_SHARED_BYTES:
        events.pop(0)
    return events


async def keep_for_all(log: EventLog) -> None:
    """Leave what an absent client has not seen where every process finds it; best effort."""
    events = newest(log)
    try:
        content = msgspec.msgpack.encode(events)
        if len(content) <= 2 * MOST_SHARED_BYTES:
            await shared_notes.put(_key(log.session_digest, log.token), content, AWAY_SECONDS)
    except Exception:
        logger.exception("the answer of a client that is away could not be kept")


async def kept_for_all(session_digest: str, token: str) -> Events | None:
    """Return what ``keep_for_all`` left, None for nothing.

    Raises:
        django.db.Error, VaultError: it can't be read.
    """
    content = await shared_notes.get(_key(session_digest, token))
    return None if content is None else _events.decode(content)


def _key(session_digest: str, token: str) -> str:
    return f"events:{name_of(session_digest + token)}"
