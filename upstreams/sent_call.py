"""A warm call that goes out without a task: written at once, finished where its answer is read.

    sent = sent_call.send(user_id, facts, call, may_go, told)
    ...                      # told() is called
    outcome = sent.outcome() # None: hand ``sent`` to ``authorized_call.call_as``, which goes on
    sent.end()

It is for the calls for which nothing has to be awaited: the era, the credential, a place in the
gate, an open connection and, for a stateful upstream, an open session are at hand. What cannot be
finished in one step is not begun again: ``call_as`` takes over the exchange as it stands, so that
no tool runs twice.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from upstreams import (
    credentials,
    json_rpc,
    legacy_exchange,
    legacy_sessions,
    modern_exchange,
    upstream_era,
)
from upstreams.call_answer import JSON
from upstreams.call_gate import CallGate, gate_for
from upstreams.canonical_call import CanonicalCall, Outcome
from upstreams.errors import UpstreamError
from upstreams.json_rpc import NotJsonRpc
from upstreams.models import SessionScope
from upstreams.relay_client import RelayExchange
from upstreams.result_heads import cut_out
from upstreams.revisions import Era
from upstreams.session_opening import LegacySession
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential


class SentCall:
    """One call that is under way, with its place in the gate of its upstream."""

    __slots__ = (
        "call",
        "credential",
        "era",
        "exchange",
        "facts",
        "gate",
        "request_id",
        "session",
    )

    def __init__(
        self,
        facts: UpstreamFacts,
        credential: "Credential",
        call: CanonicalCall,
        gate: CallGate,
        request_id: str,
        exchange: RelayExchange,
        session: LegacySession | None,
    ) -> None:
        self.facts = facts
        self.credential = credential
        self.call = call
        self.gate = gate
        self.request_id = request_id
        self.exchange = exchange
        self.session = session
        self.era = Era.MODERN if session is None else Era.LEGACY

    def outcome(self) -> Outcome | None:
        """Return the result if it is here, whole and plainly written; else None, and nothing is
        decided."""
        body = self.exchange.document(JSON)
        if body is None or len(body) > self.facts.max_answer_bytes:
            return None
        cut = cut_out(body, self.request_id)
        return None if cut is None else Outcome(cut[0], b"", self.session is None, cut[1])

    def end(self) -> None:
        """Give back what the call held, after its outcome."""
        self.exchange.end()
        gate, session = self.gate, self.session
        if session is not None:
            call = self.call
            upstream_era.look_for_modern(self.facts, self.credential, call.facts, call.principal)
        if gate.breaker.troubled:
            gate.succeeded()
        gate.leave()

    def give_up(self) -> None:
        """End a call that nobody goes on with: its connection is closed."""
        self.exchange.end()
        self.gate.leave()


def send(
    user_id: int,
    facts: UpstreamFacts,
    call: CanonicalCall,
    may_go: Callable[[], bool],
    told: Callable[[], None],
) -> SentCall | None:
    """Send a call if all that it needs is at hand; None if not, and nothing was sent.

    ``may_go`` is asked last. ``told`` is called once, when there is an answer or a failure.
    """
    gate = gate_for(facts)
    credential = credentials.cached_credential(user_id, facts)
    if credential is None or gate.breaker.troubled:
        return None
    request_id, session = json_rpc.new_id(), None
    era = upstream_era.known_era(facts)
    if era is Era.LEGACY:
        if facts.session_scope == SessionScope.CALL:
            return None
        pool = legacy_sessions.sessions()
        session = pool.standing(facts, credential, call.facts, call.principal, call.owner)
        if session is None or session.askable or legacy_exchange.asks_for_log(session, call):
            # What it may ask needs somebody who answers while the call runs.
            return None
    elif era is None:
        return None
    if not gate.try_enter():
        return None
    sent = False
    try:
        if session is None:
            exchange = modern_exchange.request(facts, credential, call, request_id)
        else:
            exchange = legacy_exchange.request(session, credential, call, request_id)
        sent = exchange.start(may_go, told)
    except (UpstreamError, NotJsonRpc):
        # Whoever makes the call in full says what is wrong with it.
        return None
    finally:
        if not sent:
            gate.leave()
    return SentCall(facts, credential, call, gate, request_id, exchange, session) if sent else None
