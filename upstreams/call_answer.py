"""Reading the answer to one request: JSON, or a stream of events with the answer at its end.

Shared by both eras. What an era does differently comes in by ``on_request``: a stateful
upstream may ask questions on its stream; a stateless one may not, and its requests are
dropped (security.md #199). Messages for other requests are ignored (#191, #200).
"""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from upstreams import http_verdict, json_rpc
from upstreams.canonical_call import CallSink, CanonicalCall, Outcome
from upstreams.errors import UpstreamAnswerInvalid, UpstreamError
from upstreams.event_stream import MAX_EVENT_BYTES, EventStream, EventTooLarge
from upstreams.json_rpc import Message, NotJsonRpc
from upstreams.relay_client import RelayExchange
from upstreams.result_heads import cut_out
from upstreams.upstream_facts import UpstreamFacts

log = logging.getLogger(__name__)

# security.md section 3: no call outlives this, whatever progress it reports.
HARD_LIMIT_SECONDS: Final = 600.0
MOST_OF_A_LIST: Final = 2 * 1024 * 1024
_MOST_OF_A_REFUSAL: Final = 256 * 1024
# RFC 5424 6.2.1, least urgent first.
LEVELS: Final = {
    level: rank
    for rank, level in enumerate(
        ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
    )
}


# How most servers write it; ``AwaitedAnswer.read`` knows every form.
JSON: Final = frozenset((b"application/json", b"application/json; charset=utf-8"))


class NoMessage(UpstreamAnswerInvalid):
    """An HTTP answer without a JSON-RPC message; ``status`` is its HTTP status."""

    def __init__(self, error: UpstreamError, status: int) -> None:
        super().__init__(error.message, detail=error.detail)
        self.status = status


class SessionGone(UpstreamAnswerInvalid):
    """The upstream does not know our session; the request was not carried out."""


def token_for(call: CanonicalCall, request_id: str) -> str:
    """Return our own progress token for a request, "" where the client gave none."""
    return request_id if call.progress_token else ""


def seconds_for(facts: UpstreamFacts, call: CanonicalCall) -> float:
    """Return how long the upstream may take."""
    return min(call.timeout or facts.call_timeout, HARD_LIMIT_SECONDS)


class AwaitedAnswer:
    """One request's answer.

    ``in_session``: an answer may mean that the upstream lost the session it was sent in.
    ``on_resumable`` is called once, when the stream's first event with an id was dealt with.
    ``request_id``: that of a request that went out already, with the token ``token_for`` gives.

    Attributes:
        status: HTTP status of the answer that was read last.
        last_event_id: id of the last event of the stream, for resuming it; None if without.
        retry_ms: how long the upstream asks to wait before resuming.
        token: our own progress token for the request, ``""`` for none.
    """

    __slots__ = (
        "_call",
        "_cancelled",
        "_ends_by",
        "_facts",
        "_in_session",
        "_modern",
        "_on_request",
        "_on_resumable",
        "_sink",
        "last_event_id",
        "request_id",
        "retry_ms",
        "seconds",
        "status",
        "token",
    )

    def __init__(
        self,
        facts: UpstreamFacts,
        call: CanonicalCall,
        sink: CallSink,
        *,
        modern: bool,
        in_session: bool = False,
        on_request: Callable[[Message], None] | None = None,
        on_cancelled: Callable[[object], None] | None = None,
        on_resumable: Callable[[], Awaitable[None]] | None = None,
        request_id: str = "",
    ) -> None:
        self._facts = facts
        self._call = call
        self._sink = sink
        self._modern = modern
        self._in_session = in_session
        self._on_request = on_request
        self._cancelled = on_cancelled
        self._on_resumable = on_resumable
        self.request_id = request_id or json_rpc.new_id()
        self.token = token_for(call, self.request_id)
        self.seconds = seconds_for(facts, call)
        self._ends_by = time.monotonic() + HARD_LIMIT_SECONDS
        self.status = 0
        self.last_event_id: bytes | None = None
        self.retry_ms: int | None = None

    async def outcome(self, answer: RelayExchange) -> Outcome:
        """Read the answer to its end.

        Raises:
            UpstreamError: see ``http_verdict`` and ``relay_client``; ``NoMessage`` where the
                answer is no JSON-RPC message, or its stream ends without one.
        """
        found = await self.read(answer)
        if found is None:
            message = f"{self._facts.title} ended its answer before the result."
            raise NoMessage(UpstreamAnswerInvalid(message), answer.status)
        return found

    async def read(self, answer: RelayExchange) -> Outcome | None:
        """Do as ``outcome``, but return None when a stream ends without the final response."""
        self.status = answer.status
        try:
            if answer.status == 200:
                kind = answer.headers.get(b"content-type", b"").lower()
                if kind.startswith(b"application/json"):
                    return self._document(await answer.read(self._most()))
                if kind.startswith(b"text/event-stream"):
                    return await self._stream(answer)
            return await self._refusal(answer)
        except NotJsonRpc as error:
            raise self._invalid(str(error)) from error

    def at_once(self, answer: RelayExchange) -> Outcome | None:
        """Do as ``read`` where the answer is a JSON document that is here already; else None.

        Raises:
            UpstreamError: as ``outcome``.
        """
        if answer.status != 200:
            return None
        if answer.headers.get(b"content-type") not in JSON:
            return None
        body = answer.at_hand(self._most())
        if body is None:
            return None
        self.status = 200
        try:
            return self._document(body)
        except NotJsonRpc as error:
            raise self._invalid(str(error)) from error

    def _document(self, body: bytes) -> Outcome:
        cut = cut_out(body, self.request_id)
        if cut is not None:
            return Outcome(cut[0], b"", self._modern, cut[1])
        for message in self._messages(body):
            # In an array there may be others, which are of no call that is waited for here.
            if message.method is None and message.id == self.request_id:
                return self._final(message)
        raise NotJsonRpc("the answer has another id than the request")

    def _messages(self, data: bytes) -> list[Message]:
        return [json_rpc.read(data)] if self._modern else json_rpc.read_some(data)

    def _most(self) -> int:
        most = self._facts.max_answer_bytes
        return min(MOST_OF_A_LIST, most) if self._call.method.endswith("/list") else most

    def _invalid(self, detail: str) -> UpstreamAnswerInvalid:
        return UpstreamAnswerInvalid(
            f"{self._facts.title} gave an answer that is not MCP.", detail=detail
        )

    def _final(self, message: Message) -> Outcome:
        """Check a response: it is ours, and has a result or an error, not both (#190)."""
        if message.method is not None or message.id != self.request_id:
            raise NotJsonRpc("the answer has another id than the request")
        result, error = bytes(message.result), bytes(message.error)
        if result and not error:
            if not result.startswith(b"{"):
                raise NotJsonRpc("the result is not an object")
            return Outcome(result=result, modern=self._modern)
        if not error or result:
            raise NotJsonRpc("an answer has either a result or an error")
        json_rpc.error_of(error)
        return Outcome(error=error, modern=self._modern)

    async def _refusal(self, answer: RelayExchange) -> Outcome:
        """Read an answer other than 200."""
        title, status, headers = self._facts.title, answer.status, answer.headers
        refused = http_verdict.credential_verdict(title, status, headers)
        busy = http_verdict.busy_verdict(title, status, headers)
        if refused is not None:
            raise refused
        if busy is not None:
            raise busy
        kind = headers.get(b"content-type", b"")
        body = await answer.read(_MOST_OF_A_REFUSAL) if status >= 400 else b""
        # 404 is the rule (b7); widely used servers say 400 and speak of the session.
        if self._in_session and (status == 404 or (status == 400 and b"ession" in body)):
            raise SessionGone(f"{title} lost the session.", detail=f"HTTP {status} in a session")
        error = self._error_in(body) if b"json" in kind.lower() else b""
        if error:
            return Outcome(error=error, modern=self._modern)
        raise NoMessage(http_verdict.failure(title, status, kind), status)

    def _error_in(self, body: bytes) -> bytes:
        """Return the JSON-RPC error of a refusal, whose id may be unknown, else ``b""``."""
        try:
            message = json_rpc.read(body)
            error = bytes(message.error)
            foreign = isinstance(message.id, str | int) and message.id != self.request_id
            if not error or foreign:
                return b""
            json_rpc.error_of(error)
        except NotJsonRpc:
            return b""
        return error

    # Streams --------------------------------------------------------------------------------
    async def _stream(self, answer: RelayExchange) -> Outcome | None:
        events = EventStream(min(MAX_EVENT_BYTES, self._most()))
        try:
            while data := await answer.chunk():
                for event in events.feed(data):
                    if event.id is not None:
                        self.last_event_id = event.id
                    if event.retry is not None:
                        self.retry_ms = event.retry
                    if event.data and event.event in (b"message", b""):
                        outcome = None
                        for message in self._messages(event.data):
                            outcome = await self._message(answer, message) or outcome
                        if outcome is not None:
                            answer.finish()
                            return outcome
                    if event.id and self._on_resumable is not None:
                        tell, self._on_resumable = self._on_resumable, None
                        await tell()
        except EventTooLarge as error:
            raise UpstreamAnswerInvalid(
                f"The answer of {self._facts.title} is too large.",
                detail="one event over the limit",
            ) from error
        return None

    async def _message(self, answer: RelayExchange, message: Message) -> Outcome | None:
        if message.method is None:
            return self._final(message) if message.id == self.request_id else None
        if message.is_request:
            if self._on_request is not None:
                self._on_request(message)
        else:
            try:
                await self._notice(answer, message)
            except NotJsonRpc as error:
                # The tool runs on; its result is not given up for a notice that nobody can read.
                log.info("a %s of %s is malformed: %s", message.method, self._facts.key, error)
        return None

    async def _notice(self, answer: RelayExchange, message: Message) -> None:
        """Pass on or act on what an upstream tells while the call runs.

        Raises:
            NotJsonRpc: its params are not what they should be.
        """
        assert message.method is not None
        if message.method == "notifications/progress":
            await self._progress(answer, message)
        elif message.method == "notifications/message":
            await self._log(message)
        elif message.method == "notifications/cancelled":
            if self._cancelled is not None:
                found = json_rpc.members_of(message.params or b"{}").get("requestId")
                self._cancelled(None if found is None else json_rpc.plain(found))
        elif not self._modern:
            await self._sink.notify(message.method, bytes(message.params))

    async def _progress(self, answer: RelayExchange, message: Message) -> None:
        """Give the client's token back and let the call go on, up to the hard limit (b16, b17)."""
        if not self.token:
            return
        members = json_rpc.members_of(message.params or b"{}")
        token = members.get("progressToken")
        if token is None or json_rpc.plain(token) != self.token:
            return
        self.allow(answer, self.seconds)
        members["progressToken"] = json_rpc.Raw(self._call.progress_token)
        await self._sink.notify("notifications/progress", json_rpc.object_of(members))

    def allow(self, answer: RelayExchange, seconds: float) -> None:
        """Let the upstream go on for so long from now, within the hard limit."""
        answer.extend(max(min(seconds, self._ends_by - time.monotonic()), 0.0))

    def wait_for_person(self, seconds: float) -> None:
        """Time spent on a question does not count against the hard limit (protocol.md 2.3.4)."""
        self._ends_by += seconds

    async def _log(self, message: Message) -> None:
        """Pass on what the client's level asks for (2.3.4). A stateful server writes without being
        asked, and who reads the call's answer knows what a client without a level gets (a41)."""
        wanted = LEVELS.get(self._call.log_level, None if self._modern else 0)
        if wanted is None:
            return
        level = json_rpc.members_of(message.params or b"{}").get("level")
        found = LEVELS.get(json_rpc.plain(level)) if level is not None else None
        if found is not None and found >= wanted:
            await self._sink.notify("notifications/message", bytes(message.params))
