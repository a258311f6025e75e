"""The GET stream of a stateful session: one, for all who listen and for what the upstream asks.

It is open while somebody listens to changes, and in sessions whose client can be asked something:
widely used servers put the questions of a running call there. It is resumed by ``Last-Event-ID``
where the upstream gives event ids (protocol.md b8), and opened again when the upstream ends it.
An upstream without such a stream (405) is left alone. Of the processes that share a session one
holds its stream at a time (``stream_turns``); the others hear by it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from upstreams import http_verdict, json_rpc, legacy_sessions
from upstreams.call_answer import SessionGone
from upstreams.change_interest import LIST_METHODS, UPDATED
from upstreams.errors import UpstreamAnswerInvalid, UpstreamError
from upstreams.event_stream import EventStream, EventTooLarge
from upstreams.json_rpc import Message, NotJsonRpc
from upstreams.modern_listening import LONGEST_SECONDS, MOST_EVENT_BYTES
from upstreams.relay_client import RelayExchange
from upstreams.session_opening import LegacySession
from upstreams.shared_interest import Heard, Pace
from upstreams.stream_turns import StreamTurn
from upstreams.unrelated_questions import COMPLETE, questions_of

if TYPE_CHECKING:
    from upstreams.credentials import Credential

log = logging.getLogger(__name__)

OPENED_SECONDS: Final = 5.0
# A session's first call waits so long, so that what it has asked on the stream is heard.
FIRST_CALL_SECONDS: Final = 0.5
# A stream that failed, and that nobody listens by, is tried again with a call after so long.
AGAIN_SECONDS: Final = 30.0
SIDE_SECONDS: Final = 5.0
MOST_REFUSAL_BYTES: Final = 64 * 1024
LONGEST_PAUSE: Final = 30.0
SHORT_PAUSE: Final = 1.0
_EVENTS_ONLY: Final = (b"Accept", b"text/event-stream")
_REFUSED_STREAM: Final = (405, 406, 415, 501)


class Listener:
    """One who hears of changes by a stream.

    ``missed`` is called when the stream stands again after a time in which something may have
    been missed. ``owners`` returns whose clients listen.
    """

    def __init__(
        self, heard: Heard, missed: Callable[[], None], owners: Callable[[], Iterable[str]]
    ) -> None:
        self.heard = heard
        self.missed = missed
        self.owners = owners


class SessionStream:
    """The stream of one session; ``opened`` is set once it is known whether there is one.

    ``offered`` is False where the upstream has no such stream. ``task`` ends when there is none,
    when nobody needs it any more, or with what went wrong.
    """

    def __init__(self, session: LegacySession) -> None:
        self._session = session
        self._gap = False
        self._last_event_id = b""
        self._retry = SHORT_PAUSE
        self._ending = False
        self.credential: Credential = session.credential
        self.listeners: set[Listener] = set()
        self.opened = asyncio.Event()
        self.offered = True
        self.began_at = time.monotonic()
        self.ended_at = 0.0
        self._turn = StreamTurn(session, self.stop)
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(self._ended)

    async def _run(self) -> None:
        """Read the stream, opening it again whenever the upstream ends it in an orderly way.

        Raises:
            SessionGone: the upstream no longer knows the session.
            UpstreamError: it broke off, and cannot be resumed.
        """
        try:
            # Who waits for its turn hears by the process that has it.
            self._gap = await self._turn.comes(self.opened.set)
            while await self._once():
                self._gap = not self._last_event_id and self._retry > 2 * SHORT_PAUSE
                await asyncio.sleep(min(self._retry, LONGEST_PAUSE))
            self.offered = False
            self.opened.set()
        except asyncio.CancelledError:
            if not self._ending:
                raise
        finally:
            self._turn.end()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.ended_at = time.monotonic()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SessionGone):
            legacy_sessions.sessions().drop(self._session)
        elif error is not None:
            log.info("the stream of a session with %s ended: %s", self._session.facts.key, error)

    @property
    def over(self) -> bool:
        """Whether it has ended, or is about to, and another one can be opened."""
        return self._ending or (self.task.done() and self.offered)

    def stop(self) -> None:
        """End it in an orderly way."""
        self._ending = True
        self.task.cancel()

    def leave(self, listener: Listener) -> None:
        """Somebody listens no more; a stream that nobody needs ends."""
        self.listeners.discard(listener)
        if not self.listeners and not self._session.askable:
            self.stop()

    async def known(self, seconds: float = OPENED_SECONDS) -> None:
        """Wait until it is known whether there is such a stream, at most so long.

        Raises:
            UpstreamError: it failed.
        """
        opened = asyncio.ensure_future(self.opened.wait())
        await asyncio.wait(
            (opened, self.task), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        opened.cancel()
        if self.task.done() and not self.task.cancelled():
            self.task.result()

    async def _once(self) -> bool:
        session = self._session
        headers = (_EVENTS_ONLY, *session.headers[2:])
        if self._last_event_id:
            headers += ((b"Last-Event-ID", self._last_event_id),)
        async with RelayExchange(
            b"GET",
            session.facts,
            self.credential,
            headers,
            b"",
            timeout=LONGEST_SECONDS,
            # Some servers send no head before their first event.
            first_byte=LONGEST_SECONDS,
            resend=True,
        ) as answer:
            kind = answer.headers.get(b"content-type", b"").lower()
            if answer.status == 200 and kind.startswith(b"text/event-stream"):
                self.opened.set()
                if self._gap:
                    self._missed()
                await self._read(answer)
                return True
            body = await self._refusal(answer) if answer.status == 400 else b""
            return self._refused(answer.status, answer.headers, body)

    def _missed(self) -> None:
        for listener in list(self.listeners):
            listener.missed()
        if not self.listeners:
            for method in LIST_METHODS:
                self._tell_others(method, b"{}")

    def _tell_others(self, method: str, params: bytes) -> None:
        """Have a notice heard in the processes that hear by this one; a listener here does so."""
        session = self._session
        for tell in _when_heard_for_others if session.shared else ():
            tell(session.facts.id, session.credential.id, method, params)

    @staticmethod
    async def _refusal(answer: RelayExchange) -> bytes:
        answer.extend(SIDE_SECONDS)
        body = b""
        while len(body) < MOST_REFUSAL_BYTES and (part := await answer.chunk()):
            body += part
        return body

    def _refused(self, status: int, headers: dict[bytes, bytes], body: bytes) -> bool:
        """Say what an answer without a stream means: never again, later, or a failure."""
        session = self._session
        title = session.facts.title
        # 404 is the rule (b7); widely used servers say 400 and speak of the session. Any other
        # 400 is of a server that knows no GET: a new session would be answered the same.
        lost = status == 404 or (status == 400 and b"ession" in body)
        if lost and session.id:
            raise SessionGone(f"{title} lost the session.", detail=f"HTTP {status} to GET")
        if status in _REFUSED_STREAM or status in (200, 400, 404):
            return False
        refused = http_verdict.credential_verdict(title, status, headers)
        busy = http_verdict.busy_verdict(title, status, headers)
        raise refused or busy or http_verdict.failure(title, status)

    async def _read(self, answer: RelayExchange) -> None:
        events, pace = EventStream(MOST_EVENT_BYTES), Pace()
        try:
            while data := await answer.chunk():
                found = events.feed(data)
                await pace.keep(len(found))
                for event in found:
                    if event.id is not None:
                        self._last_event_id = event.id
                    if event.retry is not None:
                        self._retry = event.retry / 1000
                    if event.data and event.event in (b"message", b""):
                        for message in json_rpc.read_some(event.data):
                            self._message(message)
        except (NotJsonRpc, EventTooLarge) as error:
            raise UpstreamAnswerInvalid(
                f"{self._session.facts.title} gave an answer that is not MCP.",
                detail=f"GET stream: {error}",
            ) from error

    def _message(self, message: Message) -> None:
        try:
            self._heard(message)
        except NotJsonRpc as error:
            # The stream goes on: others listen on it as well.
            key = self._session.facts.key
            log.info("a %s of %s is malformed: %s", message.method, key, error)

    def _heard(self, message: Message) -> None:
        if message.method is None:
            return
        if message.is_request:
            questions_of(self._session).asked(message)
        elif message.method in (UPDATED, *LIST_METHODS):
            for listener in list(self.listeners):
                listener.heard(message.method, bytes(message.params))
            if not self.listeners:
                self._tell_others(message.method, bytes(message.params))
        elif message.method == "notifications/cancelled":
            found = json_rpc.members_of(message.params or b"{}").get("requestId")
            if found is not None:
                questions_of(self._session).withdrawn(json_rpc.plain(found))
        elif message.method == COMPLETE:
            questions_of(self._session).page_done(bytes(message.params))


_when_heard_for_others: list[Callable[[int, str, str, bytes], None]] = []


def when_heard_for_others(call: Callable[[int, str, str, bytes], None]) -> None:
    """Have ``call(upstream id, credential id, method, params)`` made for each notice that nobody
    here listens for, but perhaps a client of another process that shares the session."""
    if call not in _when_heard_for_others:
        _when_heard_for_others.append(call)


def listen(session: LegacySession, listener: Listener) -> SessionStream:
    """Hear of changes by a session's stream, which is opened if it does not stand.

    A stream with an older value of the credential makes room for a new one; whoever listens by
    it sees its orderly end.
    """
    stream = session.stream
    if stream is not None and stream.credential != session.credential:
        stream.stop()
        stream = None
    if stream is None or stream.over:
        stream = session.stream = SessionStream(session)
    stream.listeners.add(listener)
    return stream


async def ready_for(session: LegacySession) -> None:
    """See that a call in this session can be asked something on the session's stream.

    Waits only for a stream that was opened just now, and never fails: a call goes on without.
    """
    stream = session.stream
    if stream is None:
        stream = session.stream = SessionStream(session)
    elif stream.over:
        if time.monotonic() - stream.ended_at < AGAIN_SECONDS:
            return
        stream = session.stream = SessionStream(session)
    if stream.opened.is_set():
        return
    left = stream.began_at + FIRST_CALL_SECONDS - time.monotonic()
    if left > 0:
        try:
            await stream.known(left)
        except UpstreamError as error:
            log.debug("a call goes on without its session's stream: %s", error.detail)
