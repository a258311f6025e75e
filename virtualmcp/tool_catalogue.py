"""What upstreams list, kept in memory per upstream and credential.

A list is *fresh* for as long as its upstream says, within bounds; then *stale*: still served at
once while a new one is read in the background; after that it is only a *last good* list, served
when the upstream can't be read, for a day at most (security.md R3). A list read with one
credential is never served for another; the same grant refreshed is the same credential.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from virtualmcp.listed_entries import Kind, ListContent

DEFAULT_FRESH = 60.0
# Many servers send ttlMs 0 by default; reading them at each request would multiply their load.
LEAST_FRESH = 5.0
MOST_FRESH = 300.0
STALE = 600.0
LAST_GOOD = 24 * 3600.0
MOST_ENTRIES = 20_000
MOST_BYTES = 96 * 1024 * 1024


class CatalogueKey(NamedTuple):
    """Whose list it is. ``fingerprint`` is that of the client's capabilities: servers may offer
    tools by what the client can do."""

    upstream_id: int
    url: str
    credential_id: str
    fingerprint: str
    kind: Kind

    @property
    def context(self) -> "CatalogueKey":
        """The same authorization context, whatever the client can do."""
        return CatalogueKey(self.upstream_id, self.url, self.credential_id, "", self.kind)

    @property
    def owner(self) -> tuple[int, str]:
        """The upstream and the credential, of which notices tell."""
        return (self.upstream_id, self.credential_id)

    def concerns(self, upstream_id: int | None, credential_id: str | None) -> bool:
        """Tell whether it is of these; ``None`` is any."""
        return upstream_id in (None, self.upstream_id) and credential_id in (
            None,
            self.credential_id,
        )


@dataclass(slots=True, frozen=True)
class Kept:
    """A list and how old it is; times are of ``time.monotonic``."""

    content: ListContent
    read_at: float
    fresh_until: float

    @property
    def remaining(self) -> float:
        """Seconds it stays fresh; 0 once it is stale."""
        return max(0.0, self.fresh_until - time.monotonic())

    @property
    def usable(self) -> bool:
        """Fresh, or stale within the time in which it is renewed in the background."""
        return time.monotonic() < self.fresh_until + STALE

    @property
    def last_good(self) -> bool:
        """Young enough to stand in for an upstream that can't be read."""
        return time.monotonic() < self.read_at + LAST_GOOD


Reading = Callable[[], Awaitable[tuple[ListContent, float | None]]]


class Catalogue:
    """The lists of all upstreams; one instance per process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[CatalogueKey, Kept] = OrderedDict()
        self._last: OrderedDict[CatalogueKey, Kept] = OrderedDict()
        # What is kept of each upstream and credential, so that its news touch nothing else.
        self._own: dict[tuple[int, str], set[CatalogueKey]] = {}
        self._flights: dict[CatalogueKey, asyncio.Task[Kept]] = {}
        # Readings under way that began before what they read was said to be another one.
        self._outdated: dict[asyncio.Task[Kept], CatalogueKey] = {}
        self._users: dict[bytes, int] = {}
        self._bytes = 0

    def peek(self, key: CatalogueKey) -> Kept | None:
        """Return the list to answer with, ``None`` if it must be read first."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.usable else None

    def last_good(self, key: CatalogueKey) -> Kept | None:
        """Return what may stand in while the upstream can't be read."""
        kept = self._kept.get(key) or self._last.get(key.context)
        return kept if kept is not None and kept.last_good else None

    def names_of(self, upstream_id: int) -> set[str]:
        """Return the tools an upstream is known to have, as seen by anybody."""
        kept = [value for key, value in self._kept.items() if key.upstream_id == upstream_id]
        tools = (value.content for value in kept if value.content.kind is Kind.TOOLS)
        return {name for content in tools for name in content.by_identity}

    async def read(self, key: CatalogueKey, reading: Reading) -> Kept:
        """Read a list now; callers who want the same one share one reading.

        A caller who goes away does not stop the reading for the others.

        Raises:
            UpstreamError: as ``reading`` does.
        """
        return await asyncio.shield(self._flight(key, reading))

    def renew(self, key: CatalogueKey, reading: Reading) -> None:
        """Read a list in the background; a failure leaves the old one in place."""
        self._flight(key, reading)

    def _flight(self, key: CatalogueKey, reading: Reading) -> "asyncio.Task[Kept]":
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        if flight is None or flight.done() or flight.get_loop() is not loop:
            flight = loop.create_task(self._read(key, reading))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: CatalogueKey, flight: "asyncio.Task[Kept]") -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        self._outdated.pop(flight, None)
        if not flight.cancelled():
            # Whoever waited has it; a background reading has nobody and must not warn.
            flight.exception()

    async def _read(self, key: CatalogueKey, reading: Reading) -> Kept:
        content, ttl = await reading()
        now = time.monotonic()
        fresh = DEFAULT_FRESH if ttl is None else min(max(ttl, LEAST_FRESH), MOST_FRESH)
        kept = Kept(content, now, now + fresh)
        flight = asyncio.current_task()
        if self._flights.get(key) is flight:
            self._keep(key, kept)
        elif flight in self._outdated and key not in self._kept:
            # As a last good one it is better than none.
            self._keep(key, _expired(kept))
        return kept

    def _keep(self, key: CatalogueKey, kept: Kept) -> None:
        before = self._kept.pop(key, None)
        self._count(kept, 1)
        if before is not None:
            self._count(before, -1)
        self._kept[key] = kept
        self._own.setdefault(key.owner, set()).add(key)
        self._last.pop(key.context, None)
        self._last[key.context] = kept
        while len(self._kept) > MOST_ENTRIES or (self._bytes > MOST_BYTES and len(self._kept) > 1):
            gone_key, gone = self._kept.popitem(last=False)
            self._count(gone, -1)
            self._disown(gone_key)
            if self._last.get(gone_key.context) is gone:
                del self._last[gone_key.context]

    def _count(self, kept: Kept, change: int) -> None:
        """Keep account of the bytes held; equal lists of several people are held once."""
        digest, before = kept.content.digest, self._users.get(kept.content.digest, 0)
        after = before + change
        if after:
            self._users[digest] = after
        else:
            self._users.pop(digest, None)
        if not before or not after:
            self._bytes += kept.content.size * change

    def _disown(self, key: CatalogueKey) -> None:
        own = self._own.get(key.owner)
        if own is not None:
            own.discard(key)
            if not own:
                self._own.pop(key.owner, None)

    def forget(self, *, upstream_id: int | None = None, credential_id: str | None = None) -> None:
        """Drop lists, all of them without arguments; readings under way are not kept either."""
        for key in list(self._flights):
            if key.concerns(upstream_id, credential_id):
                self._flights.pop(key, None)
        for flight, key in list(self._outdated.items()):
            if key.concerns(upstream_id, credential_id):
                self._outdated.pop(flight, None)
        for shelf in (self._kept, self._last):
            for key in list(shelf):
                if not key.concerns(upstream_id, credential_id):
                    continue
                gone = shelf.pop(key)
                if shelf is self._kept:
                    self._count(gone, -1)
                    self._disown(key)

    def expire(self, *, upstream_id: int | None = None, credential_id: str | None = None) -> None:
        """Have lists read again at the next use; until then they stay as last good ones.

        Readings of them under way began before the change, so what they bring is not fresh.
        """
        for key, flight in list(self._flights.items()):
            if key.concerns(upstream_id, credential_id):
                self._flights.pop(key, None)
                self._outdated[flight] = key
        if upstream_id is not None and credential_id is not None:
            concerned = list(self._own.get((upstream_id, credential_id), ()))
        else:
            concerned = [
                key for key in list(self._kept) if key.concerns(upstream_id, credential_id)
            ]
        for key in concerned:
            before = self._kept.get(key)
            if before is None:
                continue
            self._kept[key] = _expired(before)
            if self._last.get(key.context) is before:
                self._last[key.context] = self._kept[key]


def _expired(kept: Kept) -> Kept:
    return Kept(kept.content, kept.read_at, time.monotonic() - STALE - 1)


catalogue = Catalogue()


def forget(key: str = "") -> None:
    """Have every list of this process read again; ``key`` of the change is not looked at.

    Last good lists stay: a change in the admin must not take away what stands in for an upstream
    that is down.
    """
    catalogue.expire()
