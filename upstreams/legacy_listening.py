"""Listening to a stateful upstream: the GET stream of a pooled session, and its subscriptions.

The stream is resumed by ``Last-Event-ID`` where the upstream gives event ids (protocol.md b8).
An upstream without such a stream (405) is still heard where it tells of changes on the streams of
calls. Its questions outside of calls have nobody to go to and are refused; pings are answered
(2.3.5, b22).
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from upstreams import change_interest, http_verdict, json_rpc, legacy_sessions, relay_client
from upstreams.call_answer import SessionGone
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.change_interest import LIST_METHODS, UPDATED, Interest
from upstreams.errors import UpstreamAnswerInvalid, UpstreamError
from upstreams.event_stream import EventStream, EventTooLarge
from upstreams.json_rpc import Message, NotJsonRpc
from upstreams.legacy_exchange import LegacyCall, refusal
from upstreams.legacy_sessions import LegacySession
from upstreams.modern_listening import LONGEST_SECONDS, MOST_EVENT_BYTES
from upstreams.relay_client import RelayExchange
from upstreams.shared_interest import Heard, Pace, SharedInterest, stop
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

OPENED_SECONDS: Final = 5.0
SUBSCRIBE_SECONDS: Final = 5.0
SIDE_SECONDS: Final = 5.0
MOST_REFUSAL_BYTES: Final = 64 * 1024
LONGEST_PAUSE: Final = 30.0
SHORT_PAUSE: Final = 1.0
_EVENTS_ONLY: Final = (b"Accept", b"text/event-stream")
_REFUSED_STREAM: Final = (405, 406, 415, 501)


class SessionStream:
    """The GET stream of one session; ``opened`` is set once it is known whether there is one.

    ``missed`` is called when the stream stands again after a time in which something may have
    been missed. ``offered`` is False where the upstream has no such stream.
    """

    def __init__(self, session: LegacySession, heard: Heard, missed: Callable[[], None]) -> None:
        self._session = session
        self._heard = heard
        self._missed = missed
        self._gap = False
        self._last_event_id = b""
        self._retry = SHORT_PAUSE
        self.opened = asyncio.Event()
        self.offered = True

    async def run(self, credential: "Credential") -> None:
        """Read the stream, opening it again whenever the upstream ends it in an orderly way.

        Returns when the upstream has no such stream.

        Raises:
            SessionGone: the upstream no longer knows the session.
            UpstreamError: it broke off, and cannot be resumed.
        """
        while True:
            if not await self._once(credential):
                self.offered = False
                self.opened.set()
                return
            self._gap = not self._last_event_id and self._retry > 2 * SHORT_PAUSE
            await asyncio.sleep(min(self._retry, LONGEST_PAUSE))

    async def known(self, task: "asyncio.Task[None]") -> None:
        """Wait until it is known whether there is such a stream.

        Raises:
            UpstreamError: it failed.
        """
        opened = asyncio.ensure_future(self.opened.wait())
        await asyncio.wait(
            (opened, task), timeout=OPENED_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        opened.cancel()
        if task.done():
            task.result()

    async def _once(self, credential: "Credential") -> bool:
        session = self._session
        headers = (_EVENTS_ONLY, *session.headers[2:])
        if self._last_event_id:
            headers += ((b"Last-Event-ID", self._last_event_id),)
        async with RelayExchange(
            b"GET",
            session.facts,
            credential,
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
                        self._message(json_rpc.read(event.data))
        except (NotJsonRpc, EventTooLarge) as error:
            raise UpstreamAnswerInvalid(
                f"{self._session.facts.title} gave an answer that is not MCP.",
                detail=f"GET stream: {error}",
            ) from error

    def _message(self, message: Message) -> None:
        if message.method is None:
            return
        if message.is_request:
            answer = (
                json_rpc.response(message.id)
                if message.method == "ping"
                else refusal(message, "no client can be asked outside of a call")
            )
            legacy_sessions.sessions().run(self._post(answer))
        elif message.method in (UPDATED, *LIST_METHODS):
            self._heard(message.method, bytes(message.params))

    async def _post(self, body: bytes) -> None:
        session = self._session
        async with relay_client.post(
            session.facts, session.credential, session.headers, body, timeout=SIDE_SECONDS
        ) as answer:
            await answer.read(64 * 1024)


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
        if not any(uri in wanted for wanted in session.wanted.values()):
            await subscribe(session, uri, wanted=False)


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
    stream = SessionStream(session, heard, shared.miss)
    task = asyncio.get_running_loop().create_task(stream.run(credential))
    subscribed: frozenset[str] = frozenset()
    try:
        await stream.known(task)
        capabilities = change_interest.capabilities_in(session.opened)
        while True:
            wanted = shared.wanted()
            possible = wanted.within(capabilities)
            uris = possible.uris if stream.offered else frozenset()
            session.wanted[stream] = uris
            subscribed = await _subscribed(session, subscribed, uris)
            shared.settle(wanted, Interest(possible.lists, subscribed))
            if await shared.ended_or_wished(task if stream.offered else None):
                return
    except SessionGone:
        subscribed = frozenset()
        pool.drop(session)
        raise
    finally:
        session.in_use -= 1
        session.wanted.pop(stream, None)
        stop(task)
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
        agreed = await asyncio.gather(*(subscribe(session, uri) for uri in new))
    for uri in before - wanted:
        await _unsubscribe(session, uri)
    return (before & wanted) | {uri for uri, yes in zip(new, agreed, strict=True) if yes}
