"""One ``subscriptions/listen`` to a stateless upstream, from its opening to its end.

The upstream acknowledges what it will tell of before it tells anything, and puts our request's
id on every message (protocol.md b23, 2.3.6). It may end the stream by a result or by
``notifications/cancelled``; both are accepted (section 6, 1).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from upstreams import change_interest, json_rpc
from upstreams.call_answer import AwaitedAnswer
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.change_interest import LIST_METHODS, TASK_CHANGED, UPDATED, Interest
from upstreams.errors import UpstreamAnswerInvalid
from upstreams.event_stream import EventStream, EventTooLarge
from upstreams.json_rpc import Message, NotJsonRpc
from upstreams.modern_exchange import mirror_headers, modern_params
from upstreams.relay_client import RelayExchange
from upstreams.revisions import META_PREFIX
from upstreams.shared_interest import Heard, Pace, SharedInterest, stop
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

METHOD: Final = "subscriptions/listen"
SUBSCRIPTION_ID: Final = META_PREFIX + "subscriptionId"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
CANCELLED: Final = "notifications/cancelled"
FIRST_BYTE_SECONDS: Final = 10.0
# A stream is opened anew after this long, so that no connection is for ever.
LONGEST_SECONDS: Final = 24 * 3600.0
ACKNOWLEDGE_SECONDS: Final = 10.0
MOST_EVENT_BYTES: Final = 256 * 1024
# What each kind of notice is about.
_NOTICES: Final[Mapping[str, Callable[[bytes], str]]] = {
    **dict.fromkeys(LIST_METHODS, lambda _: ""),
    UPDATED: change_interest.uri_in,
    TASK_CHANGED: change_interest.task_in,
}


class ModernListening:
    """One listening request.

    Args:
        interest: what to ask for, in the upstream's terms.
        acknowledged: called once, with what the upstream agreed to.
        heard: called with method and raw params of each notice that was agreed to.
        most_event_bytes: the largest message; a notice about a task holds its result.
    """

    def __init__(
        self,
        facts: UpstreamFacts,
        client: ClientFacts,
        interest: Interest,
        acknowledged: Callable[[Interest], None],
        heard: Heard,
        *,
        most_event_bytes: int = MOST_EVENT_BYTES,
    ) -> None:
        self._most_event_bytes = most_event_bytes
        self._facts = facts
        self._client = client
        self._interest = interest
        self._acknowledged = acknowledged
        self._heard = heard
        self._agreed: Interest | None = None
        self._id = ""

    async def run(self, credential: "Credential") -> None:
        """Listen until the upstream ends the stream in an orderly way.

        Raises:
            UpstreamError: it refused, broke off, or spoke no MCP.
        """
        params = json_rpc.object_of({"notifications": self._interest.as_filter()})
        call = CanonicalCall(method=METHOD, params=params, facts=self._client)
        awaited = AwaitedAnswer(self._facts, call, SilentSink(), modern=True)
        self._id = awaited.request_id
        body = json_rpc.request(self._id, METHOD, modern_params(call, ""))
        async with RelayExchange(
            b"POST",
            self._facts,
            credential,
            mirror_headers(METHOD, ""),
            body,
            timeout=LONGEST_SECONDS,
            first_byte=FIRST_BYTE_SECONDS,
            resend=True,
        ) as answer:
            kind = answer.headers.get(b"content-type", b"").lower()
            if answer.status != 200 or not kind.startswith(b"text/event-stream"):
                await self._refused(awaited, answer)
                return
            try:
                await self._read(answer)
            except (NotJsonRpc, EventTooLarge) as error:
                raise self._invalid(str(error) or "one event over the limit") from error

    async def _refused(self, awaited: AwaitedAnswer, answer: RelayExchange) -> None:
        """Read an answer that is no stream: it listens to nothing, and may say why."""
        outcome = await awaited.outcome(answer)
        code = json_rpc.error_of(outcome.error).code if outcome.error else 0
        raise ListeningRefused(self._facts.title, code)

    async def _read(self, answer: RelayExchange) -> None:
        events, pace = EventStream(self._most_event_bytes), Pace()
        while data := await answer.chunk():
            found = events.feed(data)
            await pace.keep(len(found))
            for event in found:
                if not event.data or event.event not in (b"message", b""):
                    continue
                if self._ends(json_rpc.read(event.data)):
                    answer.finish()
                    return
        if self._agreed is None:
            raise self._invalid("the stream ended before its acknowledgement")

    def _ends(self, message: Message) -> bool:
        """Act on one message; True if it ends the stream."""
        if message.method is None:
            if message.id == self._id and bytes(message.error):
                raise ListeningRefused(self._facts.title, json_rpc.error_of(message.error).code)
            return bool(message.id == self._id)
        if message.is_request or not self._is_ours(message):
            return False
        if message.method == ACKNOWLEDGED:
            self._acknowledge(message)
        elif self._agreed is not None and message.method in _NOTICES:
            params = bytes(message.params)
            if self._agreed.covers(message.method, _NOTICES[message.method](params)):
                self._heard(message.method, params)
        return message.method == CANCELLED

    def _is_ours(self, message: Message) -> bool:
        members = json_rpc.members_of(message.params or b"{}")
        if message.method == CANCELLED:
            found = members.get("requestId")
        else:
            meta = members.get("_meta")
            found = None if meta is None else json_rpc.members_of(meta).get(SUBSCRIPTION_ID)
        return found is not None and bool(json_rpc.plain(found) == self._id)

    def _acknowledge(self, message: Message) -> None:
        if self._agreed is not None:
            return
        found = json_rpc.members_of(message.params or b"{}").get("notifications")
        try:
            agreed = change_interest.from_filter({} if found is None else json_rpc.plain(found))
        except ValueError as error:
            raise NotJsonRpc(str(error)) from error
        self._agreed = agreed & self._interest
        self._acknowledged(self._agreed)

    def _invalid(self, detail: str) -> UpstreamAnswerInvalid:
        return UpstreamAnswerInvalid(
            f"{self._facts.title} cannot be listened to.", detail=f"{METHOD}: {detail}"
        )


class ListeningRefused(UpstreamAnswerInvalid):
    """The upstream answered ``subscriptions/listen`` without a stream; ``code`` may be 0."""

    def __init__(self, title: str, code: int) -> None:
        super().__init__(f"{title} cannot be listened to.", detail=f"{METHOD}: error {code}")
        self.error_code = code


async def follow(
    shared: SharedInterest,
    facts: UpstreamFacts,
    credential: "Credential",
    client: ClientFacts,
    capabilities: Mapping[str, Any],
    heard: Heard,
) -> None:
    """Listen for what everybody wants together until the upstream ends the stream.

    Raises:
        UpstreamError: it can't be opened, or broke off.
    """
    current: asyncio.Task[None] | None = None
    asked: Interest | None = None
    try:
        while True:
            wanted = shared.wanted()
            possible = wanted.within(capabilities)
            if not possible:
                stop(current)
                current = None
                shared.settle(wanted, possible)
            elif possible != asked:
                following, agreed = await _opened(facts, credential, client, possible, heard)
                stop(current)
                current = following
                shared.settle(wanted, agreed)
            else:
                shared.settle(wanted, shared.honoured)
            asked = possible
            if await shared.ended_or_wished(current):
                return
    finally:
        stop(current)


async def _opened(
    facts: UpstreamFacts,
    credential: "Credential",
    client: ClientFacts,
    interest: Interest,
    heard: Heard,
) -> "tuple[asyncio.Task[None], Interest]":
    """Open one stream; returns it once it is acknowledged, with what was agreed to.

    Raises:
        UpstreamError: it is not.
    """
    loop = asyncio.get_running_loop()
    agreed: asyncio.Future[Interest] = loop.create_future()
    request = ModernListening(facts, client, interest, agreed.set_result, heard)
    task = loop.create_task(request.run(credential))
    try:
        await asyncio.wait(
            (task, agreed), timeout=ACKNOWLEDGE_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        if agreed.done():
            return task, agreed.result()
        if task.done():
            task.result()
        raise ListeningRefused(facts.title, 0)
    except BaseException:
        stop(task)
        raise
