"""Listening to a stateful upstream: the GET stream of a pooled session, and its subscriptions.

An upstream without such a stream (405) is still heard where it tells of changes on the streams of
calls. What it asks there is ``unrelated_questions``'s.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from upstreams import (
    change_interest,
    json_rpc,
    legacy_sessions,
    session_stream,
    session_wishes,
)
from upstreams.call_answer import SessionGone
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.change_interest import Interest
from upstreams.errors import UpstreamError
from upstreams.legacy_exchange import LegacyCall
from upstreams.session_opening import LegacySession
from upstreams.session_stream import Listener
from upstreams.shared_interest import Heard, SharedInterest
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

SUBSCRIBE_SECONDS: Final = 5.0


async def subscribe(session: LegacySession, uri: str, *, wanted: bool = True) -> bool:
    """Subscribe to a resource, or take that back; returns whether the upstream agreed.

    Raises:
        SessionGone: the upstream no longer knows the session.
    """
    call = CanonicalCall(
        method="resources/subscribe" if wanted else "resources/unsubscribe",
        params=json_rpc.object_of({"uri": uri}),
        facts=ClientFacts(),
        timeout=SUBSCRIBE_SECONDS,
    )
    request = LegacyCall(session, session.credential, call, SilentSink(), may_be_gone=True)
    try:
        outcome, _ = await request.run()
    except SessionGone:
        raise
    except UpstreamError:
        return False
    return not outcome.error


async def unsubscribe_all(session: LegacySession, uris: frozenset[str]) -> None:
    """Take subscriptions back that nobody needs any more, best effort."""
    for uri in uris:
        try:
            await _unsubscribe(session, uri)
        except SessionGone:
            return


async def _unsubscribe(session: LegacySession, uri: str) -> None:
    """Take a subscription back unless somebody wants it in this session (again).

    Raises:
        SessionGone: the upstream no longer knows the session.
    """
    async with session.subscribing:
        if any(uri in wanted for wanted in session.wanted.values()):
            return
        if await session_wishes.wanted_elsewhere(session, uri):
            return
        await subscribe(session, uri, wanted=False)
        if await session_wishes.wanted_elsewhere(session, uri):
            # Another process wanted it at that moment.
            await subscribe(session, uri)


async def follow(
    shared: SharedInterest,
    facts: UpstreamFacts,
    credential: "Credential",
    client: ClientFacts,
    principal: str,
    heard: Heard,
) -> None:
    """Listen in the person's session for what everybody wants together, until that ends.

    Raises:
        UpstreamError: there is no session, or its stream broke off.
    """
    pool = legacy_sessions.sessions()
    session = await pool.take(facts, credential, client, principal)
    session.in_use += 1
    listener = Listener(heard, shared.miss, lambda: {part.owner for part in shared.parts})
    stream = session_stream.listen(session, listener)
    subscribed: frozenset[str] = frozenset()
    try:
        await stream.known()
        capabilities = change_interest.capabilities_in(session.opened)
        while True:
            wanted = shared.wanted()
            possible = wanted.within(capabilities)
            uris = possible.uris if stream.offered else frozenset()
            session.wanted[listener] = uris
            subscribed = await _subscribed(session, subscribed, uris)
            shared.settle(wanted, Interest(possible.lists, subscribed))
            if await shared.ended_or_wished(stream.task if stream.offered else None):
                return
    except SessionGone:
        subscribed = frozenset()
        pool.drop(session)
        raise
    finally:
        session.in_use -= 1
        session.wanted.pop(listener, None)
        stream.leave(listener)
        if subscribed:
            pool.run(unsubscribe_all(session, subscribed))


async def _subscribed(
    session: LegacySession, before: frozenset[str], wanted: frozenset[str]
) -> frozenset[str]:
    """Bring a session's subscriptions in line with what is wanted; returns those that stand.

    Raises:
        SessionGone: the upstream no longer knows the session.
    """
    new = sorted(wanted - before)
    async with session.subscribing:
        for uri in new:
            await session_wishes.want(session, uri)
        agreed = await asyncio.gather(*(subscribe(session, uri) for uri in new))
    for uri in before - wanted:
        await _unsubscribe(session, uri)
    return (before & wanted) | {uri for uri, yes in zip(new, agreed, strict=True) if yes}
