"""One call to a stateful upstream (2025-11-25 and before) inside a pooled session.

The upstream may ask the client something on the call's stream, may be told that the call
is cancelled, may forget the session (then the call is made once more in a new one) and
may end the stream to have it resumed (protocol.md b7, b8, b15, b17, b22).
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from upstreams import (
    json_rpc,
    legacy_sessions,
    relay_client,
    session_stream,
    session_wishes,
)
from upstreams.call_answer import LEVELS, AwaitedAnswer, SessionGone, seconds_for, token_for
from upstreams.call_gate import gate_for
from upstreams.canonical_call import (
    CallSink,
    CallTakenOver,
    CanonicalCall,
    HandOver,
    Outcome,
    QuestionNotPossible,
    QuestionOrigin,
)
from upstreams.errors import UpstreamAnswerInvalid, UpstreamError, UpstreamTimeout
from upstreams.json_rpc import Message
from upstreams.models import SessionScope
from upstreams.modern_exchange import REPEATABLE
from upstreams.relay_client import RelayExchange
from upstreams.revisions import (
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_VERSION,
)
from upstreams.session_opening import LegacySession
from upstreams.unrelated_questions import PERSON_SECONDS, questions_of
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential
    from upstreams.sent_call import SentCall

log = logging.getLogger(__name__)

SIDE_SECONDS: Final = 5.0
MOST_QUESTIONS: Final = 16
MOST_RESUMES: Final = 20
MOST_LOOKS: Final = 3
LONGEST_PAUSE: Final = 10.0
_OURS: Final = (META_VERSION, META_CLIENT_INFO, META_CLIENT_CAPABILITIES, META_LOG_LEVEL)


def legacy_params(call: CanonicalCall, token: str) -> bytes:
    """Return the params without the stateless revision's keys, with our progress token (2.3.3)."""
    if not token and b"_meta" not in call.params and b"\\u" not in call.params:
        return call.params
    members = json_rpc.members_of(call.params or b"{}")
    found = members.pop("_meta", None)
    meta = json_rpc.members_of(found) if found is not None else {}
    for name in (*_OURS, "progressToken"):
        meta.pop(name, None)
    if token:
        meta["progressToken"] = json_rpc.Raw(json_rpc.encode(token))
    if meta:
        members["_meta"] = json_rpc.Raw(json_rpc.object_of(meta))
    return json_rpc.object_of(members)


def request(
    session: LegacySession, credential: "Credential", call: CanonicalCall, request_id: str
) -> RelayExchange:
    """Return the exchange that makes the call in its session; nothing is sent yet."""
    params = legacy_params(call, token_for(call, request_id))
    return relay_client.post(
        session.facts,
        credential,
        session.headers,
        json_rpc.request(request_id, call.method, params),
        timeout=seconds_for(session.facts, call),
        resend=call.method in REPEATABLE,
    )


async def exchange(
    facts: UpstreamFacts,
    credential: "Credential",
    call: CanonicalCall,
    sink: CallSink,
    sent: "SentCall | None" = None,
) -> tuple[Outcome, int]:
    """Make the call, or go on with the one that was sent; returns how it ended and the HTTP status.

    Raises:
        UpstreamError: see ``call_answer.AwaitedAnswer.outcome``, ``legacy_sessions`` and
            ``relay_client``.
    """
    if facts.session_scope == SessionScope.CALL:
        session = await legacy_sessions.alone(facts, credential, call.facts, call.principal)
        return await LegacyCall(session, credential, call, sink, alone=True).run()
    pool = legacy_sessions.sessions()
    if sent is not None and sent.session is not None:
        session = sent.session
    else:
        session = await pool.take(facts, credential, call.facts, call.principal, call.owner)
    may_be_gone, last = True, False
    while True:
        made = LegacyCall(session, credential, call, sink, may_be_gone=may_be_gone, sent=sent)
        try:
            return await made.run()
        except SessionGone:
            pool.drop(session)
        session = await pool.take(facts, credential, call.facts, call.principal, call.owner)
        # One that another process opened in its place may be gone by now as well.
        may_be_gone, last, sent = session.adopted and not last, True, None


class LegacyCall:
    """One request in one session, with everything that belongs to it."""

    def __init__(
        self,
        session: LegacySession,
        credential: "Credential",
        call: CanonicalCall,
        sink: CallSink,
        *,
        may_be_gone: bool = False,
        alone: bool = False,
        sent: "SentCall | None" = None,
    ) -> None:
        self._session = session
        self._facts = session.facts
        self._credential = credential
        self._call = call
        self.sink = sink
        self.owner = call.owner
        self._over: asyncio.Future[bool] | None = None
        self._questions: dict[object, asyncio.Task[None]] = {}
        self._stream: RelayExchange | None = None
        self._thinking = 0
        self._sent = sent
        self._alone = alone
        self._hand_over = HandOver()
        self._awaited = AwaitedAnswer(
            session.facts,
            call,
            sink,
            modern=False,
            in_session=may_be_gone and bool(session.id),
            on_request=self._asked,
            on_cancelled=self.withdrawn,
            on_resumable=self._tell_resumable,
            request_id="" if sent is None else sent.request_id,
        )

    async def run(self) -> tuple[Outcome, int]:
        """Send the request and see it to its end.

        Raises:
            SessionGone: the session is unknown and nothing was done.
            UpstreamError: as for ``exchange``.
        """
        session, answered = self._session, False
        session.in_use += 1
        asks = session.askable and bool(self.owner)
        try:
            if asks:
                questions_of(session).begin(self)
                await session_stream.ready_for(session)
            if self._sent is None and asks_for_log(session, self._call):
                await legacy_sessions.quietly(self._ask_for_log())
            outcome = await self._send()
            answered = True
            return outcome, self._awaited.status
        except UpstreamTimeout:
            raise
        except UpstreamError:
            answered = True
            raise
        finally:
            if self._hand_over.done:
                session.handed_over = True
            elif self._alone or not answered:
                legacy_sessions.sessions().run(self._leave(answered))
            session.in_use -= 1
            if asks:
                questions_of(session).end(self)
            if self._over is not None and not self._over.done():
                self._over.set_result(answered)
            for task in self._questions.values():
                task.cancel()

    async def _send(self) -> Outcome:
        outcome = await self._first_answer()
        pauses = 0
        while outcome is None:
            outcome = await self._resume(pauses)
            pauses += 1
        return outcome

    async def _first_answer(self) -> Outcome | None:
        """Send the request; returns None when its stream ends before the response."""
        awaited, sent = self._awaited, self._sent
        if sent is None:
            made = request(self._session, self._credential, self._call, awaited.request_id)
        else:
            made = sent.exchange
        async with made as answer:
            self._stream = answer
            return awaited.at_once(answer) or await awaited.read(answer)

    async def _resume(self, pauses: int) -> Outcome | None:
        """Go on with a stream the upstream ended before the answer (b8)."""
        awaited = self._awaited
        last = awaited.last_event_id
        if not last or pauses >= MOST_RESUMES:
            message = f"{self._facts.title} ended its answer before the result."
            raise UpstreamAnswerInvalid(message, detail="the event stream cannot be resumed")
        wait = 1.0 if awaited.retry_ms is None else awaited.retry_ms / 1000
        await asyncio.sleep(min(wait, LONGEST_PAUSE))
        headers = (*self._session.headers[1:], (b"Last-Event-ID", last))
        async with relay_client.get(
            self._facts, self._credential, headers, timeout=awaited.seconds
        ) as answer:
            self._stream = answer
            return await awaited.read(answer)

    # Questions ------------------------------------------------------------------------------
    def _asked(self, message: Message, after: float = 0.0) -> None:
        """Answer a request of the upstream beside the stream, which goes on; begin in so many
        seconds."""
        key = str(message.id)
        if len(self._questions) >= MOST_QUESTIONS or key in self._questions:
            return
        task = asyncio.get_running_loop().create_task(self._answer_quietly(message, after))
        self._questions[key] = task
        task.add_done_callback(lambda _: self._questions.pop(key, None))

    def withdrawn(self, request_id: object) -> None:
        """The upstream takes a question back."""
        task = self._questions.get(str(request_id))
        if task is not None:
            task.cancel()

    async def _answer_quietly(self, message: Message, after: float) -> None:
        # Made within the task: the call may end, and the task with it, before it begins.
        await legacy_sessions.quietly(self._answer(message, after))

    async def _answer(self, message: Message, after: float) -> None:
        """Put the question to the client and post what it says.

        Raises:
            UpstreamError: the answer could not be delivered.
        """
        if message.method == "ping":
            await self._post(json_rpc.response(message.id))
            return
        if after:
            await asyncio.sleep(after)
        started = asyncio.get_running_loop().time()
        self.person_asked()
        try:
            outcome = await self._ask_person(message)
            answer = json_rpc.response(message.id, result=outcome.result, error=outcome.error)
        except CallTakenOver:
            return
        except QuestionNotPossible as impossible:
            answer = json_rpc.refusal(
                message.id, str(impossible) or "the client cannot be asked this"
            )
        except TimeoutError:
            answer = json_rpc.refusal(message.id, "nobody answered in time")
        except Exception:  # whatever went wrong on the client's side, the upstream must not hang
            log.exception("a question of %s could not be put to the client", self._facts.key)
            answer = json_rpc.refusal(message.id, "the client could not be asked")
        self.person_answered(asyncio.get_running_loop().time() - started)
        # An answer that comes twice is dropped: nobody waits for its id any more.
        if await self._post(answer, resend=True) < 300:
            await self.sink.answered(json_rpc.encode(message.id))

    def person_asked(self) -> None:
        """Give the call time for a person to answer."""
        if self._stream is not None:
            self._stream.extend(PERSON_SECONDS + self._awaited.seconds)

    def person_answered(self, seconds: float) -> None:
        """Go on as before; what the person took does not count."""
        self._awaited.wait_for_person(seconds)
        if self._stream is not None:
            self._awaited.allow(self._stream, self._awaited.seconds)

    async def ask_beside(self, message: Message) -> Outcome | None:
        """Put a question that came outside of this call's stream to its client all the same.

        Returns None when the call is answered first: the question may be of something else.

        Raises:
            QuestionNotPossible: the client can't be asked, or the call was given up.
            TimeoutError: nobody answered in time.
            CallTakenOver: another process goes on with the call, and with this question.
        """
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        asking = asyncio.ensure_future(self._ask_person(message))
        try:
            await asyncio.wait((asking, self._over), return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
        finally:
            asking.cancel()
        if self._hand_over.done:
            raise CallTakenOver
        if not self._over.result():
            raise QuestionNotPossible("the call was cancelled")
        return None

    async def _ask_person(self, message: Message) -> Outcome:
        """Ask; the upstream's place in the gate is free meanwhile.

        Raises:
            QuestionNotPossible, TimeoutError, CallTakenOver: as ``CallSink.ask``.
        """
        params = bytes(message.params) or b"{}"
        questions_of(self._session).opens_page(params, self.owner)
        origin = self._origin(json_rpc.encode(message.id))
        gate = gate_for(self._facts)
        self._thinking += 1
        if self._thinking == 1:
            gate.leave()
        try:
            async with asyncio.timeout(PERSON_SECONDS):
                return await self.sink.ask(str(message.method), params, origin)
        except CallTakenOver:
            self._hand_over.done = True
            raise
        finally:
            self._thinking -= 1
            if not self._thinking:
                gate.enter_again()

    def _origin(self, question_id: bytes = b"") -> QuestionOrigin:
        return QuestionOrigin(
            question_id,
            self._awaited.request_id,
            self._session.id,
            self._session.revision,
            self._awaited.last_event_id,
            self._facts.id,
            self._call.name if self._call.method == "tasks/result" else "",
            self._hand_over,
        )

    async def _tell_resumable(self) -> None:
        await self.sink.resumable(self._origin())

    # Side requests --------------------------------------------------------------------------
    async def _ask_for_log(self) -> None:
        """Make the session as talkative as this call wants; each call filters for itself (2.3.4).

        Raises:
            UpstreamError: the upstream could not be asked.
        """
        session, wanted = self._session, self._call.log_level
        # What can't be read may stand there all the same; then the upstream is asked once more.
        for _ in range(MOST_LOOKS):
            found = await session_wishes.level_of(session)
            if found in LEVELS and LEVELS[found] <= LEVELS[wanted]:
                # Another process has asked for that, or for more.
                session.log_level = found
                return
            if await session_wishes.ask_for_level(session, found, wanted):
                break
        session.log_level = wanted
        await self._ask_for_level(wanted)
        found = await session_wishes.level_of(session)
        if found in LEVELS and LEVELS[found] < LEVELS[wanted]:
            # What was asked for meanwhile may have come first.
            session.log_level = found
            await self._ask_for_level(found)

    async def _ask_for_level(self, level: str) -> None:
        params = json_rpc.object_of({"level": level})
        await self._post(json_rpc.request(json_rpc.new_id(), "logging/setLevel", params))

    async def _leave(self, answered: bool) -> None:
        """Tell the upstream what it would not know: the call is cancelled, or its session over.

        Raises:
            UpstreamError: it could not be told.
        """
        if not answered:
            await legacy_sessions.quietly(self._cancel())
        if self._alone:
            await legacy_sessions.end(self._session)

    async def _cancel(self) -> None:
        """Tell the upstream that nobody waits any more: closing alone does not cancel there.

        Raises:
            UpstreamError: it could not be told.
        """
        reason = {"requestId": self._awaited.request_id, "reason": "the client cancelled"}
        params = json_rpc.object_of(reason)
        await self._post(json_rpc.notification("notifications/cancelled", params))

    async def _post(self, body: bytes, *, resend: bool = False) -> int:
        async with relay_client.post(
            self._facts,
            self._credential,
            self._session.headers,
            body,
            timeout=SIDE_SECONDS,
            resend=resend,
        ) as answer:
            await answer.read(64 * 1024)
            return answer.status


def asks_for_log(session: LegacySession, call: CanonicalCall) -> bool:
    """Tell whether the session has to become more talkative for this call."""
    wanted = call.log_level
    if not session.can_log or wanted not in LEVELS:
        return False
    return not session.log_level or LEVELS[session.log_level] > LEVELS[wanted]
