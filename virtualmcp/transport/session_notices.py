"""What a stateful session is told of in this process, over whichever GET streams it has here."""

import asyncio
import logging
from typing import Final

from upstreams.change_interest import LISTS, UPDATED
from upstreams.revisions import Era
from virtualmcp import session_subscriptions
from virtualmcp.eras.era_in import Session
from virtualmcp.raw_members import write
from virtualmcp.routing import question_policy
from virtualmcp.routing.change_listener import METHODS, ChangeListener
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.notice_stream import NoticeStream

logger = logging.getLogger(__name__)

AGREE_SECONDS: Final = 2.0


class SessionNotices:
    """One session's listener and its streams, the newest last."""

    def __init__(self, exchange: Exchange, session: Session) -> None:
        self.session = session
        self.streams: list[NoticeStream] = []
        self.loop = asyncio.get_running_loop()
        client = question_policy.declared_here(exchange.server, session.facts)
        request = ClientRequest(
            exchange.server,
            exchange.holder,
            Era.LEGACY,
            "GET",
            client=client,
            session=session.digest,
        )
        self.listener = ChangeListener(request, LISTS, self.tell)
        self._opening: asyncio.Task[frozenset[str]] | None = None

    def tell(self, method: str, params: bytes) -> None:
        """Say it on one stream only (a24)."""
        if self.streams:
            self.streams[-1].tell(method, params)

    async def begin(self, *, catch_up: bool) -> None:
        """Listen for what the session has subscribed to so far.

        ``catch_up``: its client was away; it is told that anything may have changed.
        """
        try:
            uris = await session_subscriptions.of_session(self.session.digest)
        except Exception:
            logger.exception("the subscriptions of a session could not be read")
            uris = frozenset()
        if self._opening is None:
            # Not a part of the stream that came first: others need it when that one leaves.
            opening = self.listener.open(uris, AGREE_SECONDS)
            self._opening = self.loop.create_task(opening)
        await asyncio.shield(self._opening)
        if not catch_up:
            return
        for method in METHODS.values():
            self.tell(method, b"{}")
        for uri in uris:
            self.tell(UPDATED, write({"uri": uri}))

    def close(self) -> None:
        """Listen no more."""
        if self._opening is not None:
            self._opening.cancel()
        self.listener.close()

    async def refresh(self) -> None:
        """Take in what another process wrote for this session."""
        uris = await session_subscriptions.of_session(self.session.digest)
        await self.listener.keep_only(uris, AGREE_SECONDS)


_notices: dict[tuple[asyncio.AbstractEventLoop, str], SessionNotices] = {}
_refreshing: set[asyncio.Task[None]] = set()


def of_session(digest: str) -> SessionNotices | None:
    """Return what the session is told of over streams of the running loop."""
    return _notices.get((asyncio.get_running_loop(), digest))


def loops_of(digest: str) -> list[asyncio.AbstractEventLoop]:
    """Return the event loops of this process on which a session has streams; from any thread."""
    return [loop for loop, known in list(_notices) if known == digest and not loop.is_closed()]


def join(stream: NoticeStream, exchange: Exchange, session: Session) -> SessionNotices:
    """Let a GET stream have the session's notices from now on."""
    key = (asyncio.get_running_loop(), session.digest)
    found = _notices.get(key)
    if found is None:
        found = _notices[key] = SessionNotices(exchange, session)
    found.streams.append(stream)
    stream.listener = found.listener
    return found


def leave(stream: NoticeStream, notices: SessionNotices) -> None:
    """A GET stream has ended; with the last one nobody listens any more."""
    notices.streams.remove(stream)
    if not notices.streams:
        notices.close()
        _notices.pop((notices.loop, notices.session.digest), None)


def hear(digest: str) -> None:
    """A session's subscriptions were changed by some process; from any thread."""
    for loop, known in list(_notices):
        if known == digest and not loop.is_closed():
            loop.call_soon_threadsafe(_begin_refresh, _notices[(loop, known)])


def _begin_refresh(notices: SessionNotices) -> None:
    task = notices.loop.create_task(_refresh(notices))
    _refreshing.add(task)
    task.add_done_callback(_refreshing.discard)


async def _refresh(notices: SessionNotices) -> None:
    try:
        await notices.refresh()
    except Exception:
        logger.exception("the subscriptions of a session could not be read")
