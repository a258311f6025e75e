"""The answer to one request: a JSON document, or a stream of events once there is more to say.

An answer that comes quickly and alone is one JSON document. The first interim message, or five
seconds of silence, opens an event stream instead, kept alive by comments (protocol.md 2.3.3).
What is written waits until the connection has taken it, and only then is the upstream read on.

A stateless client that goes away ends its call, as is the rule (a22). A stateful one does not:
its call goes on for ``event_log.AWAY_SECONDS``, and what its stream said is kept, so that the
client can come back for it by the id of the last event it has (``resumption``). Answers that are
one JSON document, and streams of stateless clients, have nothing to do with that.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from upstreams.canonical_call import (
    CallTakenOver,
    Origin,
    Outcome,
    QuestionNotPossible,
    QuestionOrigin,
)
from upstreams.running_loop import running_loop
from virtualmcp.eras import era_in
from virtualmcp.eras.era_in import Session
from virtualmcp.errors import INTERNAL_ERROR
from virtualmcp.routing.client_request import Answer
from virtualmcp.transport import call_notes, event_log
from virtualmcp.transport.call_ends import ELSEWHERE, UNSAID, End
from virtualmcp.transport.client_questions import ClientQuestions
from virtualmcp.transport.event_log import EventLog
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.held_calls import HeldCall
from virtualmcp.transport.http_answers import (
    PIECE_BYTES,
    Header,
    error_body,
    event,
    result_body,
    send_json,
    start_of_stream,
)
from virtualmcp.transport.overdue import Deadlines
from virtualmcp.transport.token_challenges import wider_scope
from virtualmcp.transport.wanted_notices import NO_PROGRESS, loud_enough, progress_of
from virtualmcp.transport.wire_validation import Call

# Calls that end sooner are never watched: a watcher costs more than most calls take.
WATCH_AFTER_SECONDS = 0.05
OPEN_AFTER_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 15.0
STALLED_SECONDS = 60.0
# How long the connection may take to take why a call ended early.
LAST_WORDS_SECONDS = 2.0
# How long an answer goes on after its token or access was withdrawn (security.md #134).
RECHECK_SECONDS = 15.0


_unwatched = Deadlines(every=0.025)


class AnswerStream:
    """Sends one request's interim messages and its answer; the ``CallSink`` of its call.

    Args:
        exchange: the HTTP request that is answered.
        call: the message in it.
        session: that of a stateful client; it knows which log messages are wanted.
    """

    __slots__ = (
        "_accepts",
        "_away_since",
        "_call",
        "_ended",
        "_exchange",
        "_held",
        "_last_begun",
        "_last_progress",
        "_last_write",
        "_log",
        "_open",
        "_questions",
        "_resumable",
        "_send",
        "_sending_since",
        "_session",
        "_started",
        "_task",
        "_watch",
        "_writing",
    )

    def __init__(self, exchange: Exchange, call: Call, session: Session | None) -> None:
        self._exchange = exchange
        self._call = call
        self._session = session
        self._send = exchange.send
        self._accepts = exchange.accepts
        self._ended: End | None = None
        self._open = self._last_begun = False
        self._last_progress = NO_PROGRESS
        self._last_write = self._sending_since = self._started = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._writing: asyncio.Lock | None = None
        self._questions: ClientQuestions | None = None
        self._log: EventLog | None = None
        self._held: HeldCall | None = None
        self._resumable: QuestionOrigin | None = None
        self._away_since = 0.0

    async def carry(self, answering: Coroutine[Any, Any, Answer]) -> Answer | End:
        """Await the answer and send it; returns it, or why it was not sent.

        Cancels ``answering`` when the client goes away, cancels or stops reading.
        """
        self._task = asyncio.current_task(running_loop())
        _unwatched.add(self, WATCH_AFTER_SECONDS)
        try:
            answer = await answering
            await self._finish(answer)
            if self._log is not None:
                await self._end_log()
        except (asyncio.CancelledError, CallTakenOver):
            if self._ended is None or self._task is None or self._task.uncancel():
                if self._log is not None:
                    self._log.end()
                if self._held is not None:
                    self._held.let_go()
                raise
        else:
            return answer
        finally:
            _unwatched.discard(self)
            if self._watch is not None:
                self._watch.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._finish_early(self._ended)
        await self._end_log()
        return self._ended

    async def fail(self, fault: Answer) -> None:
        """Send an answer in place of one that could not be made, unless one has begun."""
        if not self._last_begun:
            await self._finish(fault)
        await self._end_log()

    def cancel(self) -> None:
        """End the call because the client asked for it."""
        self._end(End.CANCELLED)

    async def notify(self, method: str, params: bytes) -> None:
        """Pass an interim message on if it belongs on this stream and the client wants it.

        Waits until the connection has taken it.
        """
        if not self._accepts.events or not self._wanted(method, params):
            return
        name = msgspec.json.encode(method)
        message = b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (name, params or b"{}")
        await self._put(message=message, again=True)

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Put an upstream's question to a stateful client on this stream (protocol.md 2.4).

        Raises:
            QuestionNotPossible: a stateless client, or one that can't be asked this.
            TimeoutError: nobody answered in time.
            CallTakenOver: another process goes on with the call; here it ends without a word.
        """
        if self._session is None or not self._accepts.events:
            raise QuestionNotPossible("the client cannot be asked on this request")
        if self._questions is None:
            self._questions = ClientQuestions(self._session, self._write, self._held_call)
        try:
            return await self._questions.ask(method, params, origin)
        except CallTakenOver:
            self._end(End.TAKEN_OVER)
            raise

    async def answered(self, question_id: bytes) -> None:
        """The upstream has an answer to its question."""
        if self._held is not None:
            await self._held.answered(question_id)

    def _held_call(self) -> HeldCall | None:
        if self._held is None and self._log is not None:
            message = self._call.message
            note = call_notes.begun(message.method, message.params)
            self._held = HeldCall(self._log, note, self)
        return self._held

    async def resumable(self, origin: QuestionOrigin | None) -> None:
        """Leave word of the call for other processes, now or when the client can come back."""
        self._resumable = origin
        if origin is not None:
            self._leave_word()
        elif self._held is not None:
            await self._held.withdraw()

    def _leave_word(self) -> None:
        held = self._held_call()
        if held is not None and self._resumable is not None:
            held.leave(self._resumable)

    def lost(self) -> None:
        """Another process has the call."""
        if self._held is not None:
            self._held.fall_silent()
        self._end(End.TAKEN_OVER)

    def hand_over(self) -> None:
        """The process is about to stop: let another one go on, if the client can go there too."""
        log, held = self._log, self._held
        if log is None or held is None or self._last_begun or self._ended:
            return
        if log.has_ids and held.hand_over():
            self._end(End.HANDED_OVER)

    @property
    def last_progress(self) -> float:
        """How far the client was told the call is."""
        return self._last_progress

    def take_over(self, log: EventLog, held: HeldCall) -> None:
        """Go on with a call of a process that died: its client reads the log, if it does."""
        self._log, self._held, self._open = log, held, True
        self._last_progress, self._away_since = held.note.progress, log.away_since

    def _wanted(self, method: str, params: bytes) -> bool:
        if method == "notifications/progress":
            return bool(self._call.progress_token) and self._rises(params)
        if method == "notifications/message":
            return loud_enough(params, self._wanted_level())
        # Nothing else is related to a single request (a20), but that a page it asked for is done.
        return self._questions is not None and self._questions.announced(method, params)

    def _wanted_level(self) -> str:
        """Stateless clients hear only what this request asked for (a41)."""
        if self._session is None:
            return self._call.log_level
        return era_in.log_level(self._session)

    def _rises(self, params: bytes) -> bool:
        """Progress is strictly increasing over the whole answer (a42)."""
        progress = progress_of(params)
        if progress <= self._last_progress:
            return False
        self._last_progress = progress
        return True

    async def _write(self, message: bytes) -> None:
        """Send one message as an event, opening the stream with the first."""
        await self._put(message=message)

    async def _put(self, data: bytes = b"", message: bytes = b"", *, again: bool = False) -> None:
        if self._writing is None:
            self._writing = asyncio.Lock()
        async with self._writing:
            if not self._open:
                self._open = True
                data = self._begin_log() + data
                if not self._away:
                    await self._send(start_of_stream(self._exchange.extra))
            if message:
                log = self._log
                data += event(message) if log is None else log.add(message, again=again)
            if self._away:
                return
            self._sending_since = time.monotonic()
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            self._last_write = time.monotonic()
            self._sending_since = 0.0

    # Clients that come back ------------------------------------------------------------------
    def _begin_log(self) -> bytes:
        """Keep what a stateful client is told from here on; returns how its stream begins."""
        if self._session is None or self._last_begun or self._away_since:
            return b""
        self._log = event_log.begin(self._session.digest, self._call.message.id)
        self._log.take(self)
        self._leave_word()
        return self._log.priming(self._session.revision)

    @property
    def _away(self) -> bool:
        """Whether this connection leads to the client no more: it left, or came back on another."""
        if self._away_since:
            return True
        return self._log is not None and self._log.reader is not self

    def _leave(self) -> bool:
        """The connection is gone; False if that ends the call."""
        if self._session is None:
            return False
        self._away_since = time.monotonic()
        if self._log is not None:
            self._log.release(self)
        return True

    def _gone_too_long(self, now: float) -> bool:
        if self._log is not None:
            return self._log.gone_too_long
        return bool(self._away_since) and now - self._away_since >= event_log.AWAY_SECONDS

    async def _end_log(self) -> None:
        log = self._log
        if log is not None:
            log.end()
            if log.reader is None and self._ended is None:
                await event_log.keep_for_all(log)
            if self._held is not None:
                await self._held.end()

    async def _finish(self, answer: Answer) -> None:
        if self._questions is not None:
            await self._questions.withdraw_all()
        error = answer.error
        if error is None:
            await self._send_last(200, result_body(self._call.message.id, *answer.pieces()))
            return
        body = error_body(self._call.message.id, error.code, error.message, error.data)
        scope = wider_scope(self._exchange.server, error.scope)
        await self._send_last(error.http_status, body, scope)

    async def _send_last(self, status: int, body: bytes, headers: tuple[Header, ...] = ()) -> None:
        self._last_begun = True
        if self._open or (status == 200 and not self._accepts.json):
            await self._write(body)
            if not self._away:
                await self._send({"type": "http.response.body", "body": b""})
            return
        if self._away:
            return
        self._sending_since = time.monotonic()
        # From here on the watcher must not open a stream.
        self._open = True
        await send_json(self._send, status, body, (*headers, *self._exchange.extra))

    async def _finish_early(self, ended: End) -> None:
        # Half an answer can't be completed with another one.
        if ended in UNSAID or self._last_begun:
            if self._questions is not None:
                self._questions.drop_all()
            if ended in ELSEWHERE and self._log is not None:
                # The client comes back, and then hears of it by the process that has it.
                event_log.drop(self._log)
                if self._open and not self._away:
                    await self._send({"type": "http.response.body", "body": event_log.COME_BACK})
            return
        if self._questions is not None:
            await self._questions.withdraw_all()
        if ended is End.UNAUTHORIZED:
            message = "Access to this server ended while the call ran. Authorize again."
            await self._send_last(200, error_body(self._call.message.id, INTERNAL_ERROR, message))
        elif self._accepts.events:
            # A cancelled request gets no response: the stream just ends.
            await self._put()
            if not self._away:
                await self._send({"type": "http.response.body", "body": b""})
        else:
            message = "The client cancelled this request."
            await self._send_last(200, error_body(self._call.message.id, INTERNAL_ERROR, message))

    def _end(self, why: End) -> None:
        if self._ended is None and self._task is not None and not self._task.done():
            self._ended = why
            if self._questions is not None and why in UNSAID:
                # Taking them back would be written where nobody reads.
                self._questions.drop_all()
            self._task.cancel()

    def overdue(self) -> None:
        """Begin to watch a call that takes longer."""
        self._started = time.monotonic() - WATCH_AFTER_SECONDS
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def _keep_watch(self) -> None:
        """Notice that the client left; break the silence; end what may no longer go on."""
        leaving = asyncio.ensure_future(self._until_gone())
        checked = self._started
        try:
            while True:
                duty = self._until_next_duty(checked)
                if self._away_since:
                    await asyncio.sleep(duty)
                elif (await asyncio.wait((leaving,), timeout=duty))[0] and not self._leave():
                    self._end(End.GONE)
                    return
                now = time.monotonic()
                if self._gone_too_long(now):
                    self._end(End.GONE)
                    return
                if self._sending_since:
                    if now - self._sending_since >= STALLED_SECONDS:
                        self._end(End.STALLED)
                        return
                elif self._silent_too_long(now):
                    await self._keep_alive()
                if now - checked >= RECHECK_SECONDS:
                    checked = now
                    if not await self._exchange.still_allowed():
                        self._end(End.UNAUTHORIZED)
                        return
        finally:
            leaving.cancel()

    def _until_next_duty(self, checked: float) -> float:
        due = checked + RECHECK_SECONDS
        if self._away_since:
            # Who came back on another connection and reads there is not away.
            away = self._log.away_since if self._log is not None else self._away_since
            if away:
                due = min(due, away + event_log.AWAY_SECONDS)
            return max(0.01, due - time.monotonic())
        if self._accepts.events and not self._sending_since and not self._away:
            due = min(due, self._next_keep_alive())
        return max(0.01, due - time.monotonic())

    def _next_keep_alive(self) -> float:
        if self._open:
            return self._last_write + KEEP_ALIVE_SECONDS
        return self._started + OPEN_AFTER_SECONDS

    def _silent_too_long(self, now: float) -> bool:
        return self._accepts.events and not self._away and now >= self._next_keep_alive()

    async def _keep_alive(self) -> None:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await self._put(b": waiting\n\n")
        except TimeoutError:
            self._end(End.STALLED)

    async def _until_gone(self) -> None:
        while True:
            message = await self._exchange.receive()
            if message["type"] == "http.disconnect":
                return
