"""GET with ``Last-Event-ID``: going on with the answer to a call (protocol.md 2.3.7, a25).

The call may run in this process, or in another one, which then sends what it says by mail; or it
has ended while its client was away. Where its process died over a question, this one goes on with
it (``call_takeover``). When nobody knows it any more, its stream ends with an error that says so:
whether the call was carried out is not known, and it is never made again.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Any, Final

import msgspec
from django.db import Error as DatabaseFailure

from upstreams.database_calls import in_thread
from upstreams.token_vault import VaultError
from virtualmcp.eras.era_in import Session
from virtualmcp.errors import INTERNAL_ERROR
from virtualmcp.routing import node_mail
from virtualmcp.signals import changed
from virtualmcp.transport import call_notes, call_takeover, event_log
from virtualmcp.transport.event_ids import Position
from virtualmcp.transport.event_log import EventLog, Events
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import error_body, event, start_of_stream

logger = logging.getLogger(__name__)

# Kind of change by which a process asks for a stream that another one has.
ASKED: Final = "stream"
KEEP_ALIVE_SECONDS: Final = 15.0
# The owner hears of the wish within a second, and says at least every so often that it is there.
OWNER_SECONDS: Final = 4.0
SIGN_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 10.0
LAST_WORDS_SECONDS: Final = 2.0
_LOST: Final = (
    "The connection to this call was lost, and the process that ran it has ended or no longer "
    "keeps its answer. Whether it was carried out is not known: look before you repeat it."
)


class _Mail(msgspec.Struct, array_like=True, gc=False):
    events: Events
    ended: bool


_mail = msgspec.msgpack.Decoder(_Mail)


class ResumedStream:
    """The stream that goes on where another one broke off; an ``open_streams.OpenStream``."""

    def __init__(self, exchange: Exchange, session: Session, position: Position) -> None:
        self._exchange = exchange
        self._session = session
        self._position = position
        self._number = position.number
        self._leaving: asyncio.Task[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._started = self._ending = False
        self._last_words: bytes | None = b""
        self.user_id = exchange.holder.user_id
        self.token_digest = exchange.holder.token_digest
        self.session_digest = session.digest
        # It keeps itself alive.
        self.written_at = self.writing_since = self.checked_at = 0.0
        self.changed = False

    async def run(self) -> None:
        """Write what followed the last event the client has, and go on to the end."""
        self._task = asyncio.current_task()
        try:
            if not self._ending:
                await self._go_on()
                return
        except asyncio.CancelledError:
            if not self._ending or self._task is None or self._task.uncancel():
                raise
        except (DatabaseFailure, VaultError) as failure:
            if not self._started:
                raise
            # The client comes back by the last event it has.
            logger.warning("a resumed stream ends early: %s", type(failure).__name__)
            self._last_words = event_log.COME_BACK
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._say_last()

    async def _go_on(self) -> None:
        known = await self._known()
        await self._start()
        await self._send(b": resumed\n\n")
        self._leaving = asyncio.get_running_loop().create_task(self._until_gone())
        try:
            if known is None:
                await self._from_elsewhere()
            else:
                await self._replay(known)
        finally:
            self._leaving.cancel()

    async def _known(self) -> EventLog | Events | None:
        """Return the stream's log if it is here, or else what was left of it for all."""
        digest, token = self._session.digest, self._position.token
        log = event_log.find(digest, event_log.name_of(token))
        return await event_log.kept_for_all(digest, token) if log is None else log

    async def _replay(self, known: EventLog | Events) -> None:
        if isinstance(known, EventLog):
            await self._follow(known)
        else:
            await self._write(known)
            await self._close()

    async def _from_elsewhere(self) -> None:
        """Find who has the stream; where its process died, go on with the call if that may be."""
        name = event_log.name_of(self._position.token)
        while not self._gone:
            log = await call_takeover.take_over(self._exchange, self._session, self._position)
            if log is not None:
                await self._follow(log)
                return
            if await self._fetch():
                return
            # A process that died may seem to live for as long as its lease.
            if not await call_notes.may_be_left(name):
                # Somebody may have seen it to its end meanwhile.
                known = await self._known()
                await (self._say_lost() if known is None else self._replay(known))
                return
            await self._send(b": waiting\n\n")

    async def _follow(self, log: EventLog) -> None:
        """Write a log of this process, as it grows."""
        log.take(self)
        try:
            while not self._gone:
                news = log.news
                await self._write(log.after(self._number))
                if log.ended_at or log.reader is not self:
                    await self._close()
                    return
                if not await self._wait(news, KEEP_ALIVE_SECONDS):
                    await self._send(b": waiting\n\n")
        finally:
            log.release(self)

    async def _fetch(self) -> bool:
        """Have another process send its log by mail; False if none does."""
        reply = f"stream:{secrets.token_hex(16)}"
        name = event_log.name_of(self._position.token)
        digest = self._session.digest
        async with node_mail.mailbox(reply) as box:
            await in_thread(_ask, f"{reply} {digest} {name} {self._number}")
            patience = OWNER_SECONDS
            try:
                while not self._gone:
                    mail = _mail.decode(await self._receive(box, patience))
                    patience = SILENT_SECONDS
                    await self._write(mail.events)
                    if mail.ended:
                        await self._close()
                        return True
                    if not mail.events:
                        await self._send(b": waiting\n\n")
            except TimeoutError:
                return False
            finally:
                if self._gone or self._ending:
                    await in_thread(_ask, f"{reply} stop")
        return True

    async def _receive(self, box: node_mail.Mailbox, seconds: float) -> bytes:
        """Return the next mail.

        Raises:
            TimeoutError: none came; or the client has left.
        """
        receiving = asyncio.ensure_future(box.receive(seconds))
        assert self._leaving is not None
        await asyncio.wait((receiving, self._leaving), return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            receiving.cancel()
            raise TimeoutError
        return receiving.result()

    async def _say_lost(self) -> None:
        if self._gone:
            return
        body = error_body(self._position.request_id, INTERNAL_ERROR, _LOST)
        await self._write([(self._number + 1, event(body))])
        await self._close()

    async def _write(self, events: Events) -> None:
        for number, data in events:
            if number > self._number and not self._gone:
                await self._send(data)
                self._number = number

    async def _start(self) -> None:
        self._started = True
        await self._exchange.send(start_of_stream(self._exchange.extra))

    async def _send(self, data: bytes) -> None:
        self.writing_since = time.monotonic()
        await self._exchange.send({"type": "http.response.body", "body": data, "more_body": True})
        self.writing_since = 0.0

    async def _close(self) -> None:
        if not self._gone:
            await self._exchange.send({"type": "http.response.body", "body": b""})

    @property
    def _gone(self) -> bool:
        return self._leaving is not None and self._leaving.done()

    async def _wait(self, news: asyncio.Event, seconds: float) -> bool:
        """Wait for news or for the client to leave; False if neither came in time."""
        waiting = asyncio.ensure_future(news.wait())
        assert self._leaving is not None
        done, _ = await asyncio.wait(
            (waiting, self._leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        return bool(done)

    async def _until_gone(self) -> None:
        while (await self._exchange.receive())["type"] != "http.disconnect":
            continue

    # How it ends before the call does: the client may come back for the rest --------------------
    def keep_alive(self) -> None:
        """Nothing to do: it writes comments itself."""

    def stall(self) -> None:
        """Give up on a client that does not read."""
        self._end(None)

    def drain(self) -> None:
        """End in an orderly way: this process is about to stop."""
        self._end(event_log.COME_BACK)

    def end_session(self) -> None:
        """End because the session it belongs to has ended."""
        self._end(b"")

    async def recheck(self, *, changed: bool) -> None:
        """End if access has ended."""
        if self._session.expires_at <= time.time() or not await self._exchange.still_allowed():
            self._end(b"")

    def _end(self, last_words: bytes | None) -> None:
        if self._ending:
            return
        self._ending, self._last_words = True, last_words
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def _say_last(self) -> None:
        """End the answer, so that nobody waits for more; a client that stalled takes nothing."""
        if self._last_words is None or self._gone:
            return
        if not self._started:
            await self._start()
        await self._exchange.send({"type": "http.response.body", "body": self._last_words})


def _ask(key: str) -> None:
    changed.send(sender=ResumedStream, kind=ASKED, key=key)


# The process that has the stream ---------------------------------------------------------------
_serving: dict[str, asyncio.Task[None]] = {}


def hear(key: str) -> None:
    """Another process asks for a stream, or no longer needs it; from any thread."""
    loop = event_log.loop()
    if key and loop is not None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its streams with it
            loop.call_soon_threadsafe(_heard, loop, key)


def _heard(loop: asyncio.AbstractEventLoop, key: str) -> None:
    reply, _, rest = key.partition(" ")
    if rest == "stop":
        task = _serving.get(reply)
        if task is not None:
            task.cancel()
        return
    words = rest.split(" ")
    # The same wish is heard more than once, and also by the process that has it.
    if len(words) != 3 or reply in _serving or not words[2].isdecimal():
        return
    log = event_log.find(words[0], words[1])
    if log is not None:
        task = loop.create_task(_serve(log, reply, int(words[2])))
        _serving[reply] = task
        task.add_done_callback(lambda _: loop.call_later(60, _serving.pop, reply, None))


async def _serve(log: EventLog, reply: str, number: int) -> None:
    """Send a log by mail as it grows."""
    log.take(reply)
    try:
        while log.reader is reply:
            news = log.news
            events, ended = log.after(number), bool(log.ended_at)
            await node_mail.send(reply, msgspec.msgpack.encode(_Mail(events, ended)))
            if ended:
                return
            number = events[-1][0] if events else number
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), SIGN_SECONDS)
        await node_mail.send(reply, msgspec.msgpack.encode(_Mail([], True)))
    except Exception:
        logger.exception("a stream could not be sent to another process")
    finally:
        log.release(reply)
