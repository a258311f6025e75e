"""One listening stream per upstream and credential, shared by everybody who wants to hear of it.

    part = await change_streams.subscribe(user_id, facts, client, interest, heard)
    honoured = await part.settled(2.0)      # what the upstream agreed to
    part.change(other_interest)
    part.close()                            # the last one to leave ends the stream

A stateless upstream is sent one ``subscriptions/listen`` with everything that anybody here wants;
when that changes, the new one is acknowledged before the old one is closed. Of several processes
one listens for all, where they can agree on which (``share_with``). A stateful upstream
has one stream in each pooled session, so that the credential, the person and what the client
declared are part of the key there (protocol.md 2.3.6, D9).

A stream that broke is opened again after a growing pause with jitter. What may have been missed
meanwhile is made up for by one notice of each kind.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from typing import Any, Final, Protocol

from upstreams import change_interest, credentials, legacy_listening, mcp_client, modern_listening
from upstreams.call_answer import SessionGone
from upstreams.canonical_call import ClientFacts
from upstreams.change_interest import Interest
from upstreams.credentials import Credential
from upstreams.errors import (
    CredentialRefused,
    NeedsConnection,
    ScopeInsufficient,
    SetupFailed,
    UpstreamError,
)
from upstreams.models import CredentialKind
from upstreams.modern_listening import ListeningRefused
from upstreams.revisions import Era
from upstreams.shared_interest import Heard, SharedInterest, Subscription, stop
from upstreams.upstream_facts import UpstreamFacts

log = logging.getLogger(__name__)

MOST_STREAMS: Final = 5_000
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
# An upstream that can't be listened to, or an account that is refused, is asked again this late.
REFUSED_PAUSE: Final = 300.0

_Key = tuple[Any, ...]


class TooManyStreams(Exception):
    """This process listens to as many upstream streams as it may."""


class Sharing(Protocol):
    """How the processes agree on which of them listens with a credential, for all of them."""

    async def lead(self) -> bool:
        """Become or stay the one who listens; False while another process is."""

    async def follow(self) -> None:
        """Hear by the other process; returns when there is none any more."""

    def end(self) -> None:
        """Nobody in this process listens any more."""


# Called with the stream's name, what is wanted here, and what has the stream begin anew.
Share = Callable[[str, SharedInterest, Callable[[], None]], Sharing]


class ChangeStream:
    """What is listened to with one credential at one upstream."""

    def __init__(
        self,
        key: _Key,
        facts: UpstreamFacts,
        credential_id: str,
        client: ClientFacts,
        share: Share | None,
    ) -> None:
        self.key = key
        self.facts = facts
        self.credential_id = credential_id
        self.shared = SharedInterest(self._tell_of_lists)
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        # Whether the credential was renewed since the upstream last took one.
        self._renewed = False
        self._sharing = None if share is None else share(_name(key), self.shared, self.reopen)

    def _tell_of_lists(self) -> None:
        for lists_changed in _when_lists_change:
            lists_changed(self.facts.id, self.credential_id)

    def _heard_for_all(self, method: str, params: bytes) -> None:
        self.shared.deliver(method, params)
        for heard in _when_heard_for_all:
            heard(self.facts.id, self.credential_id, method, params)

    def join(self, user_id: int, interest: Interest, heard: Heard, owner: str = "") -> Subscription:
        """Take a listener in; the first one opens the stream."""
        part = Subscription(
            self.shared, user_id, self.credential_id, interest, heard, self._leave, owner
        )
        self.shared.parts.add(part)
        self.shared.wish()
        if self._task is None:
            self._task = self._loop.create_task(self._keep_listening())
        return part

    def _leave(self, part: Subscription) -> None:
        self.shared.parts.discard(part)
        self.shared.wish()
        if not self.shared.parts:
            self.end()

    def end(self) -> None:
        """Stop listening."""
        streams = _streams.get(self._loop, {})
        if streams.get(self.key) is self:
            del streams[self.key]
        stop(self._task)
        if self._sharing is not None:
            self._sharing.end()

    def reopen(self) -> None:
        """Begin anew, as when the credential has another value; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_anew)

    def _begin_anew(self) -> None:
        if self._task is not None and self.shared.parts:
            stop(self._task)
            self.shared.missed = True
            self._task = self._loop.create_task(self._keep_listening())

    async def _keep_listening(self) -> None:
        failures = 0
        while True:
            pause = 0.0
            try:
                if self._sharing is not None and not await self._sharing.lead():
                    await self._sharing.follow()
                    continue
                await self._listen()
                failures = 0
            except (CredentialRefused, NeedsConnection, SetupFailed, ListeningRefused) as refused:
                log.info("%s cannot be listened to: %s", self.facts.key, refused)
                pause = REFUSED_PAUSE
            except SessionGone:
                failures += 1
            except UpstreamError as error:
                log.info("listening to %s broke off: %s", self.facts.key, error.detail)
                failures += 1
            except Exception:
                log.exception("listening to %s failed", self.facts.key)
                failures += 3
            self.shared.lost()
            await self._pause(pause or _back_off(failures))

    async def _pause(self, seconds: float) -> None:
        """Wait; who joins meanwhile learns at once that nothing is agreed to now."""
        ends = self._loop.time() + seconds
        while (left := ends - self._loop.time()) > 0:
            if await self.shared.wished_within(left):
                self.shared.settle(self.shared.wanted(), Interest())

    async def _listen(self) -> None:
        """Follow a stream to its end; a token that is refused is renewed once.

        Raises:
            UpstreamError: it can't be opened, or broke off.
        """
        user_id = next(iter(self.shared.parts)).user_id
        credential = await self._credential(user_id)
        try:
            await self._follow(credential, user_id)
        except ScopeInsufficient:
            raise
        except CredentialRefused:
            self._renewed = self._renewed and not self.shared.honoured
            # A key is left to the calls: only what they are told ends one.
            if self._renewed or self.facts.credential_kind == CredentialKind.USER_KEY:
                raise
            self._renewed = True
            await credentials.renew(user_id, self.facts, credential)
        else:
            self._renewed = False

    async def _follow(self, credential: Credential, user_id: int) -> None:
        """Open the stream in the manner of the era and follow it to its end."""
        facts, principal = self.facts, str(user_id)
        opened = await mcp_client.opening(facts, credential, self._client, principal=principal)
        era, _ = await mcp_client.era_of(facts, credential)
        if era is Era.MODERN:
            capabilities = change_interest.capabilities_in(opened)
            heard = self.shared.deliver if self._sharing is None else self._heard_for_all
            await modern_listening.follow(
                self.shared, facts, credential, self._client, capabilities, heard
            )
        else:
            await legacy_listening.follow(
                self.shared, facts, credential, self._client, principal, self._heard_for_all
            )

    async def _credential(self, user_id: int) -> Credential:
        credential = await credentials.credential_for(user_id, self.facts)
        if credential.id != self.credential_id:
            # Another grant: whoever listens with it has a stream of its own.
            raise CredentialRefused(f"The account at {self.facts.title} is another one now.")
        return credential


def _back_off(failures: int) -> float:
    """Return how long to wait: half a second after an orderly end, then longer, with jitter."""
    longest = min(FIRST_PAUSE * float(1 << min(failures, 12)), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


_share: Share | None = None
_when_lists_change: list[Callable[[int, str], None]] = []
_when_heard_for_all: list[Callable[[int, str, str, bytes], None]] = []
_streams: dict[asyncio.AbstractEventLoop, dict[_Key, ChangeStream]] = {}


def _streams_here() -> dict[_Key, ChangeStream]:
    """Return the running loop's streams."""
    loop = asyncio.get_running_loop()
    found = _streams.get(loop)
    if found is None:
        for other in [known for known in _streams if known.is_closed()]:
            del _streams[other]
        found = _streams[loop] = {}
    return found


async def subscribe(
    user_id: int,
    facts: UpstreamFacts,
    client: ClientFacts,
    interest: Interest,
    heard: Heard,
    owner: str = "",
) -> Subscription:
    """Hear of an upstream on behalf of a person, with what their client can do.

    ``owner`` names that client, as ``CanonicalCall.owner`` does.
    Returns before the upstream has agreed to anything; see ``Subscription.settled``.

    Raises:
        NeedsConnection: the person has no account there.
        UpstreamError: their credential can't be used.
        TooManyStreams: this process listens to enough.
    """
    credential = credentials.cached_credential(user_id, facts)
    if credential is None:
        credential = await credentials.credential_for(user_id, facts)
    key = await _key(user_id, facts, credential, client)
    streams = _streams_here()
    stream = streams.get(key)
    if stream is None:
        if len(streams) >= MOST_STREAMS:
            raise TooManyStreams
        share = _share if key == (*address_of(facts), credential.id) else None
        stream = streams[key] = ChangeStream(key, facts, credential.id, client, share)
    return stream.join(user_id, interest, heard, owner)


async def _key(
    user_id: int, facts: UpstreamFacts, credential: Credential, client: ClientFacts
) -> _Key:
    """Return what a stream may be shared by.

    Where the era can't be found out yet, the stream is the person's own, which suits both.
    """
    address = (*address_of(facts), credential.id)
    try:
        era, _ = await mcp_client.era_of(facts, credential)
    except UpstreamError:
        era = Era.LEGACY
    if era is Era.MODERN:
        return address
    return (*address, user_id, client.fingerprint)


def address_of(facts: UpstreamFacts) -> _Key:
    """Return what a stream depends on; with another one, it has to be opened anew."""
    placed = (facts.credential_placement, facts.credential_name, facts.credential_prefix)
    return (facts.id, facts.url, facts.era, facts.private_network, *placed)


def _name(key: _Key) -> str:
    """Return how all processes call a stream."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:40]


def share_with(share: Share | None) -> None:
    """Have streams to stateless upstreams that open from now on be one for all processes."""
    global _share
    _share = share


def when_lists_change(call: Callable[[int, str], None]) -> None:
    """Have ``call(upstream id, credential id)`` made before listeners hear of changed lists."""
    if call not in _when_lists_change:
        _when_lists_change.append(call)


def when_heard_for_all(call: Callable[[int, str, str, bytes], None]) -> None:
    """Have ``call(upstream id, credential id, method, params)`` made for each notice that other
    processes hear of only by this one."""
    if call not in _when_heard_for_all:
        _when_heard_for_all.append(call)


def deliver(upstream_id: int, credential_id: str, method: str, params: bytes) -> None:
    """Pass on a notice that came another way: on the stream of a call, or from another process."""
    for stream in list(_streams_here().values()):
        if stream.facts.id == upstream_id and stream.credential_id == credential_id:
            stream.shared.deliver(method, params)


def deliver_anywhere(upstream_id: int, credential_id: str, method: str, params: bytes) -> None:
    """Do as ``deliver`` on every event loop of the process; from any thread."""
    for loop in list(_streams):
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, upstream_id, credential_id, method, params)


def make_up(upstream_id: int, credential_id: str) -> None:
    """Tell every listener that each resource it subscribed to may have changed."""
    for stream in list(_streams_here().values()):
        if stream.facts.id == upstream_id and stream.credential_id == credential_id:
            stream.shared.make_up_resources()


def make_up_anywhere(upstream_id: int, credential_id: str) -> None:
    """Do as ``make_up`` on every event loop of the process; from any thread."""
    for loop in list(_streams):
        if not loop.is_closed():
            loop.call_soon_threadsafe(make_up, upstream_id, credential_id)


def restart(upstream_id: int | None = None) -> None:
    """Open streams anew whose credential has another value now, of one upstream or of all.

    May be called from any thread.
    """
    for streams in list(_streams.values()):
        for stream in list(streams.values()):
            if upstream_id in (None, stream.facts.id):
                stream.reopen()


def open_streams() -> int:
    """Return how many streams the running loop keeps."""
    return len(_streams_here())


def close_all() -> None:
    """Stop listening on the running loop; call it when the process ends."""
    for stream in list(_streams_here().values()):
        stream.end()
