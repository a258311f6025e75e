"""The gateway as MCP client: one door for calls to upstreams of either era.

    outcome = await mcp_client.call(facts, credential, call, sink)

Which era an upstream speaks is found out and remembered by ``upstream_era``; the two
exchanges turn the canonical call into what that era understands. ``authorized_call`` adds
whose credential is used.
"""

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from upstreams import (
    json_rpc,
    legacy_exchange,
    legacy_sessions,
    modern_exchange,
    relay_client,
    stream_turns,
    upstream_era,
)
from upstreams.call_answer import NoMessage
from upstreams.call_gate import gate_for
from upstreams.canonical_call import CallSink, CanonicalCall, ClientFacts, Outcome, SilentSink
from upstreams.errors import UpstreamAnswerInvalid, UpstreamError
from upstreams.json_rpc import NotJsonRpc
from upstreams.revisions import Era
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential
    from upstreams.sent_call import SentCall

OPENING_SECONDS: Final = 60.0
MOST_OPENINGS: Final = 2000
_openings: OrderedDict[tuple[int, str, str, str, str], tuple[float, bytes]] = OrderedDict()


async def call(
    facts: UpstreamFacts,
    credential: "Credential",
    call: CanonicalCall,
    sink: CallSink,
    sent: "SentCall | None" = None,
) -> Outcome:
    """Make one call, or go on with the one that was sent, which has its place in the gate.

    Cancelling the awaiting task cancels the call at the upstream: a stateless one loses the
    stream, a stateful one is sent ``notifications/cancelled``.

    Raises:
        UpstreamError: it could not be made, or its answer is not MCP; see ``errors``.
    """
    gate = gate_for(facts)
    if sent is None:
        if gate.breaker.troubled:
            gate.check()
        if not gate.try_enter():
            await gate.enter(facts)
    try:
        era = upstream_era.known_era(facts) if sent is None else sent.era
        if era is None:
            era = await upstream_era.find_out(facts, credential, call.facts, call.principal)
        send = _modern if era is Era.MODERN else _legacy
        outcome = await send(facts, credential, call, sink, sent)
        if gate.breaker.troubled:
            gate.succeeded()
        return outcome
    except UpstreamError as error:
        gate.failed(call.method, error)
        raise
    except NotJsonRpc as error:
        raise UpstreamAnswerInvalid(
            f"The request could not be passed on to {facts.title}.", detail=str(error)
        ) from error
    finally:
        gate.leave()


async def _modern(
    facts: UpstreamFacts,
    credential: "Credential",
    call: CanonicalCall,
    sink: CallSink,
    sent: "SentCall | None" = None,
) -> Outcome:
    """Call a stateless upstream; make sure of the era if its answer speaks against it.

    Only answers that show that nothing was carried out lead to a second call.
    """
    try:
        outcome, status = await modern_exchange.exchange(facts, credential, call, sink, sent)
        if not upstream_era.contradicts_modern(outcome.error, status):
            return outcome
        problem: UpstreamError | None = None
    except NoMessage as error:
        if error.status not in upstream_era.CONTRADICTING:
            raise
        problem, outcome = error, Outcome()
    era = await upstream_era.find_out_again(
        facts, credential, call.facts, call.principal, Era.MODERN
    )
    if era is Era.LEGACY:
        return (await legacy_exchange.exchange(facts, credential, call, sink))[0]
    if problem is not None:
        raise problem
    return outcome


async def _legacy(
    facts: UpstreamFacts,
    credential: "Credential",
    call: CanonicalCall,
    sink: CallSink,
    sent: "SentCall | None" = None,
) -> Outcome:
    """Call a stateful upstream; make sure of the era if it opens no session."""
    try:
        outcome, _ = await legacy_exchange.exchange(facts, credential, call, sink, sent)
        upstream_era.look_for_modern(facts, credential, call.facts, call.principal)
        return outcome
    except UpstreamError as error:
        if not upstream_era.contradicts_legacy(error):
            raise
        era = await upstream_era.find_out_again(
            facts, credential, call.facts, call.principal, Era.LEGACY
        )
        if era is not Era.MODERN:
            raise
    return (await modern_exchange.exchange(facts, credential, call, sink))[0]


async def era_of(facts: UpstreamFacts, credential: "Credential") -> tuple[Era, str]:
    """Return the upstream's era and revision, asking the upstream if nobody knows.

    Raises:
        UpstreamError: as for ``upstream_era.find_out``.
    """
    era = upstream_era.known_era(facts)
    if era is None:
        era = await upstream_era.find_out(facts, credential)
    return era, upstream_era.known_revision(facts, era)


async def opening(
    facts: UpstreamFacts,
    credential: "Credential",
    client_facts: ClientFacts,
    *,
    principal: str = "",
) -> bytes:
    """Return the raw ``server/discover`` or ``initialize`` result, at most a minute old.

    Raises:
        UpstreamError: the upstream did not say.
    """
    key = (facts.id, facts.url, credential.id, principal, client_facts.fingerprint)
    cached = _openings.get(key)
    if cached is not None and time.monotonic() - cached[0] < OPENING_SECONDS:
        return cached[1]
    gate = gate_for(facts)
    if gate.breaker.troubled:
        gate.check()
    try:
        result, asked = await _opened(facts, credential, client_facts, principal)
    except UpstreamError as error:
        gate.failed("server/discover", error)
        raise
    if gate.breaker.troubled:
        if asked:
            gate.succeeded()
        else:
            gate.breaker.end_trial()
    _openings[key] = (time.monotonic(), result)
    _openings.move_to_end(key)
    while len(_openings) > MOST_OPENINGS:
        _openings.popitem(last=False)
    return result


async def _opened(
    facts: UpstreamFacts, credential: "Credential", client_facts: ClientFacts, principal: str
) -> tuple[bytes, bool]:
    """Ask for the opening in the upstream's era, making sure of the era if need be.

    Returns it, and whether the upstream was asked just now.

    Raises:
        UpstreamError: the upstream did not say.
    """
    era = upstream_era.known_era(facts)
    if era is None:
        era = await upstream_era.find_out(facts, credential, client_facts, principal)
    try:
        return await _open(facts, credential, client_facts, principal, era)
    except UpstreamError as error:
        if not upstream_era.contradicts_opening(error):
            raise
        found = await upstream_era.find_out_again(facts, credential, client_facts, principal, era)
        if found is era:
            raise
        return await _open(facts, credential, client_facts, principal, found)


async def _open(
    facts: UpstreamFacts,
    credential: "Credential",
    client_facts: ClientFacts,
    principal: str,
    era: Era,
) -> tuple[bytes, bool]:
    """Ask for the opening in the manner of the era; an open session already knows it.

    Returns it, and whether the upstream was asked just now.

    Raises:
        UpstreamError: the upstream did not say.
    """
    if era is Era.LEGACY:
        pool, began = legacy_sessions.sessions(), time.monotonic()
        session = await pool.take(facts, credential, client_facts, principal)
        return session.opened, session.opened_at >= began
    ask = CanonicalCall(method="server/discover", facts=client_facts, timeout=facts.list_timeout)
    outcome, status = await modern_exchange.exchange(facts, credential, ask, SilentSink())
    if outcome.error:
        code = json_rpc.error_of(outcome.error).code
        refused = UpstreamAnswerInvalid(
            f"{facts.title} does not say what it offers.", detail=f"server/discover: error {code}"
        )
        raise NoMessage(refused, status)
    return outcome.result, True


def forget(upstream_id: int | None = None) -> None:
    """Drop what is remembered of one upstream, or of all: its era and its opening."""
    upstream_era.forget(upstream_id)
    for key in [key for key in _openings if upstream_id in (None, key[0])]:
        del _openings[key]


async def close_all() -> None:
    """End sessions and connections of the running loop; call it when the process ends."""
    await legacy_sessions.close_all()
    await stream_turns.close()
    await relay_client.close_all()
