"""Going on with a call of a process that died, or ending it (protocol.md 2.4.3).

The order matters: the upstream's stream is resumed first, and only when it is there are answers
posted. An answer that is posted into a call whose result nobody can collect runs the tool for
nothing.

An answer that the dead process may or may not have posted is posted once more, unless the call ends
within a moment of being resumed: its result may be on its way. That is safe where a request would
not be. The upstream waits for one response to each of its requests, whose ids are never used twice
in a session; one that has come ends that wait, and another with its id is a response to nothing,
which is dropped. Not to post it would lose the call where the first never arrived.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from upstreams import (
    json_rpc,
    legacy_sessions,
    relay_client,
    session_opening,
    session_sharing,
)
from upstreams.canonical_call import CallSink, CanonicalCall, Outcome
from upstreams.errors import UpstreamAnswerInvalid, UpstreamError
from upstreams.json_rpc import Message
from upstreams.legacy_exchange import SIDE_SECONDS, LegacyCall
from upstreams.models import SessionScope
from upstreams.session_opening import LegacySession, SessionKey
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

# How long a call that was resumed may end by an answer of which nobody knows whether it was posted.
DOUBT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class HeldQuestion:
    """A question that the upstream asked and has no answer to; ``id`` is raw. ``doubtful``: the
    dead process was about to post one, and may have."""

    id: bytes
    method: str
    params: bytes = field(repr=False)
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class HeldCall:
    """A call in a session that another process opened; of a task, what fetches its result."""

    request_id: str
    session_id: bytes = field(repr=False)
    revision: str
    last_event_id: bytes
    questions: tuple[HeldQuestion, ...]
    task_id: str = ""


class _TakenOver(LegacyCall):
    """The rest of a call: its stream from the last event that was seen."""

    def __init__(
        self,
        session: LegacySession,
        credential: "Credential",
        call: CanonicalCall,
        sink: CallSink,
        held: HeldCall,
    ) -> None:
        # A session for this call alone ends with it, wherever that is.
        alone = session.facts.session_scope == SessionScope.CALL
        super().__init__(session, credential, call, sink, alone=alone)
        self._held = held
        self._awaited.request_id = held.request_id
        self._awaited.token = held.request_id if call.progress_token else ""
        self._awaited.last_event_id = held.last_event_id

    async def _first_answer(self) -> Outcome | None:
        headers = (*self._session.headers[1:], (b"Last-Event-ID", self._held.last_event_id))
        async with relay_client.get(
            self._facts, self._credential, headers, timeout=self._awaited.seconds
        ) as answer:
            kind = answer.headers.get(b"content-type", b"").lower()
            if answer.status != 200 or not kind.startswith(b"text/event-stream"):
                raise UpstreamAnswerInvalid(
                    f"{self._facts.title} could not go on with the call after a process of the "
                    f"gateway ended. {self._what_is_known()}",
                    detail=f"resuming the stream: HTTP {answer.status}",
                )
            self._stream = answer
            await self._tell_resumable()
            for question in self._held.questions:
                self._asked(
                    Message(
                        jsonrpc="2.0",
                        id=json_rpc.plain(question.id),
                        method=question.method,
                        params=msgspec.Raw(question.params),
                    ),
                    DOUBT_SECONDS if question.doubtful else 0.0,
                )
            return await self._awaited.read(answer)

    def _what_is_known(self) -> str:
        if self._held.questions:
            return "The answer was not passed on."
        return "Whether it was carried out is not known: look before you repeat it."


async def take_over(
    facts: UpstreamFacts,
    credential: "Credential",
    call: CanonicalCall,
    sink: CallSink,
    held: HeldCall,
) -> Outcome:
    """Resume the call's stream, have its open questions answered, and see it to its end.

    Raises:
        UpstreamError: as ``legacy_exchange.exchange``. Where the stream is not resumed, the call
            was cancelled and nothing was posted.
    """
    session = _session(facts, credential, call.principal, held)
    try:
        async with session_sharing.used_for_call(session):
            return (await _TakenOver(session, credential, call, sink, held).run())[0]
    except UpstreamError:
        await legacy_sessions.quietly(give_up(facts, credential, held))
        raise
    finally:
        if session.handed_over:
            # This process may use the same session for other calls, and must not end it either.
            legacy_sessions.sessions().hand_over(facts.id, session.id)


async def give_up(facts: UpstreamFacts, credential: "Credential", held: HeldCall) -> None:
    """Cancel the call at the upstream; a task by ``tasks/cancel``, as is the rule.

    Raises:
        UpstreamError: it could not be told.
    """
    session = _session(facts, credential, "", held)
    params = json_rpc.object_of(
        {"requestId": held.request_id, "reason": "the process that waited for it ended"}
    )
    body = json_rpc.notification("notifications/cancelled", params)
    if held.task_id:
        task = json_rpc.object_of({"taskId": held.task_id})
        body = json_rpc.request(json_rpc.new_id(), "tasks/cancel", task)
    async with relay_client.post(
        facts, credential, session.headers, body, timeout=SIDE_SECONDS
    ) as answer:
        await answer.read(64 * 1024)


def _session(
    facts: UpstreamFacts, credential: "Credential", principal: str, held: HeldCall
) -> LegacySession:
    """Return the dead process's session; it stays out of the pool."""
    key = SessionKey(facts.id, facts.url, credential.id, principal, b"")
    headers = session_opening.headers_for(held.session_id, held.revision)
    return LegacySession(key, facts, credential, held.session_id, held.revision, b"", headers)
