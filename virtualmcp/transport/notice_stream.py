"""One open stream of notices to a client: a GET stream, or the answer to subscriptions/listen.

An idle one is a single task that waits for the client to leave. What is to be said is put down
and written by a short-lived task, so that whoever has news never waits for a client; equal news
that a slow client has not taken yet is said once.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final

from upstreams import json_rpc
from virtualmcp.eras.era_in import Session
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing.change_listener import ChangeListener, with_subscription
from virtualmcp.routing.task_listener import TaskListener
from virtualmcp.transport.exchange import Exchange, Standing
from virtualmcp.transport.http_answers import SSE_HEADERS, event, result_body

logger = logging.getLogger(__name__)

SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
# News a client has not taken yet; beyond, further resources are left out.
MOST_PENDING: Final = 1_000
MOST_ASKED: Final = 64
LAST_WORDS_SECONDS: Final = 2.0
RECONNECT_MILLISECONDS: Final = 1_000
_KEEP_ALIVE: Final = b": keep-alive\n\n"
_ASKING: Final = "ask "
# Called before a question is written: its id, its message, and the event it will be.
BeforeAsking = Callable[[str, bytes, int], Awaitable[None]]


class StreamEnd(Enum):
    """Why a stream ended."""

    GONE = "client_gone"
    STALLED = "client_stalled"
    DRAINED = "drained"
    ACCESS = "access_ended"
    SESSION = "session_ended"


class NoticeStream:
    """Writes one stream.

    Args:
        exchange: the request that opened it; only its token is kept of the headers.
        request_id: raw id of ``subscriptions/listen``; ``b""`` for a GET stream.
        session: that of a stateful client.
        server_info: raw ``serverInfo`` for the result that ends a listen stream.
    """

    __slots__ = (
        "_ending",
        "_event_number",
        "_exchange",
        "_pending",
        "_pump",
        "_server_info",
        "_session",
        "_task",
        "asked",
        "before_asking",
        "changed",
        "checked_at",
        "event_token",
        "listener",
        "request_id",
        "session_digest",
        "tasks",
        "token_digest",
        "user_id",
        "writing_since",
        "written_at",
    )

    def __init__(
        self,
        exchange: Exchange,
        *,
        request_id: bytes = b"",
        session: Session | None = None,
        server_info: bytes = b"",
    ) -> None:
        self._exchange = Exchange(
            exchange.receive,
            exchange.send,
            {b"authorization": exchange.headers.get(b"authorization", b"")},
            exchange.extra,
            exchange.server,
            exchange.holder,
            exchange.accepts,
        )
        self.request_id = request_id
        self._session = session
        self._server_info = server_info
        self._pending: dict[str, bytes] = {}
        self._pump: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._ending: StreamEnd | None = None
        self._event_number = 0
        self.listener: ChangeListener | None = None
        self.tasks: TaskListener | None = None
        self.event_token = ""
        # The ids of the questions it carries, and of some that were answered.
        self.asked: dict[str, None] = {}
        self.before_asking: BeforeAsking | None = None
        self.user_id = exchange.holder.user_id
        self.token_digest = exchange.holder.token_digest
        self.session_digest = session.digest if session is not None else ""
        self.written_at = self.writing_since = self.checked_at = 0.0
        self.changed = False

    async def run(self, first: bytes) -> StreamEnd:
        """Open the stream with a first piece, and keep it open until it has to end."""
        self._task = asyncio.current_task()
        try:
            if self._ending is None:
                await self._begin(first)
                while (await self._exchange.receive())["type"] != "http.disconnect":
                    continue
                return StreamEnd.GONE
        except asyncio.CancelledError:
            if self._ending is None or self._task is None or self._task.uncancel():
                raise
        finally:
            if self._pump is not None:
                self._pump.cancel()
        assert self._ending is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._last_words(self._ending)
        return self._ending

    async def _begin(self, first: bytes) -> None:
        exchange = self._exchange
        headers = [*SSE_HEADERS, *exchange.extra]
        await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
        await exchange.send({"type": "http.response.body", "body": first, "more_body": True})
        self.written_at = time.monotonic()
        if self._pending:
            self._start_pump()

    async def _last_words(self, why: StreamEnd) -> None:
        body = b""
        if self.request_id and why is not StreamEnd.STALLED:
            body = event(result_body(self.request_id, self._result()))
        elif why is StreamEnd.DRAINED:
            body = b"retry: %d\n\n" % RECONNECT_MILLISECONDS
        if not self.written_at:
            await self._begin(b"")
        await self._exchange.send({"type": "http.response.body", "body": body})

    def _result(self) -> bytes:
        """Say that the subscription is over (a45)."""
        meta = b'"%s":%b,"io.modelcontextprotocol/serverInfo":%b'
        meta = meta % (SUBSCRIPTION_ID.encode(), self.request_id, self._server_info)
        return b'{"resultType":"complete","_meta":{%b}}' % meta

    # What is said -----------------------------------------------------------------------------
    def tell(self, method: str, params: bytes, about: str = "") -> None:
        """Say that something changed; never waits. Of equal news, or news ``about`` the same,
        only the last is said."""
        try:
            params = with_subscription(params, SUBSCRIPTION_ID, self.request_id or None)
        except NotAnObject:
            return
        message = b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (method.encode(), params)
        self._put(f"{method} {about or _uri_of(params)}", message)

    def ask(self, question: str, message: bytes) -> None:
        """Put a request to the client; ``question`` is its id."""
        self.asked[question] = None
        if len(self.asked) > MOST_ASKED:
            del self.asked[next(iter(self.asked))]
        self._put(_ASKING + question, message)

    def take_back(self, question: str) -> None:
        """Take a request back; one that was not written yet never is."""
        self.asked.pop(question, None)
        if self._pending.pop(_ASKING + question, None) is None:
            params = json_rpc.object_of({"requestId": question, "reason": "no longer needed"})
            message = json_rpc.notification("notifications/cancelled", params)
            self._put(f"cancelled {question}", message)

    async def current(self) -> Standing | None:
        """Return who reads this stream and what they may see, now; None if they may no more.

        Raises:
            django.db.Error: that can't be found out.
        """
        return await self._exchange.current()

    def _put(self, key: str, message: bytes) -> None:
        known = self._pending.pop(key, None)
        if known is None and len(self._pending) >= MOST_PENDING:
            return
        self._pending[key] = message
        if self.written_at:
            self._start_pump()

    def keep_alive(self) -> None:
        """Write a comment, so that nobody on the way takes the silence for an end."""
        self._put(":", b"")

    def _start_pump(self) -> None:
        if self._pump is None and self._ending is None:
            self._pump = asyncio.get_running_loop().create_task(self._write_pending())

    async def _write_pending(self) -> None:
        try:
            while self._pending:
                key = next(iter(self._pending))
                message = self._pending.pop(key)
                if key.startswith(_ASKING) and self.before_asking is not None:
                    question = key.removeprefix(_ASKING)
                    await self.before_asking(question, message, self._event_number + 1)
                body = self._event(message) if message else _KEEP_ALIVE
                self.writing_since = time.monotonic()
                await self._exchange.send(
                    {"type": "http.response.body", "body": body, "more_body": True}
                )
                self.writing_since = 0.0
                self.written_at = time.monotonic()
        except Exception as failure:
            # The server tells by ``receive`` that the client is gone.
            logger.debug("a stream could not be written: %s", type(failure).__name__)
        finally:
            self._pump = None

    def _event(self, message: bytes) -> bytes:
        if not self.event_token:
            return event(message)
        self._event_number += 1
        return b"id: %b.%d\n" % (self.event_token.encode(), self._event_number) + event(message)

    # How it ends ------------------------------------------------------------------------------
    def stall(self) -> None:
        """Give up on a client that does not read."""
        self._end(StreamEnd.STALLED)

    def drain(self) -> None:
        """End in an orderly way: this process is about to stop."""
        self._end(StreamEnd.DRAINED)

    def end_session(self) -> None:
        """End because the session it belongs to has ended."""
        self._end(StreamEnd.SESSION)

    def _end(self, why: StreamEnd) -> None:
        if self._ending is not None:
            return
        self._ending = why
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def recheck(self, *, changed: bool) -> None:
        """End if access has ended; have the listener take in what changed."""
        try:
            current = await self._exchange.current()
        except Exception as failure:
            logger.warning("access could not be checked again: %s", type(failure).__name__)
            if time.time() >= self._exchange.holder.expires_at:
                self._end(StreamEnd.ACCESS)
            return
        over = self._session is not None and self._session.expires_at <= time.time()
        if current is None or over:
            self._end(StreamEnd.SESSION if over else StreamEnd.ACCESS)
        elif changed:
            if self.listener is not None:
                self.listener.begin_update(current.server, current.holder)
            if self.tasks is not None:
                self.tasks.update(current.server, current.holder)


def _uri_of(params: bytes) -> str:
    """Return what tells equal news from other; the params are short."""
    return params.decode("utf-8", "replace") if b'"uri"' in params else ""
