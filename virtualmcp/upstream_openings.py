"""What upstreams said of themselves when they were opened, kept in memory per credential."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upstreams import authorized_call, call_gate, credentials
from upstreams.canonical_call import ClientFacts
from upstreams.errors import UpstreamError, UpstreamTimeout
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import raw_members
from virtualmcp.raw_members import NotAnObject

logger = logging.getLogger(__name__)

FRESH = 300.0
MOST_OPENINGS = 20_000
_Key = tuple[int, str, str, str]


@dataclass(slots=True, frozen=True)
class UpstreamOpening:
    """Capabilities as declared, and instructions. ``personal`` tells whether it was said to this
    person; of others only what the server can do is known."""

    capabilities: Mapping[str, Any] = field(default_factory=dict)
    instructions: str = ""
    personal: bool = True


class Openings:
    """Openings of all upstreams; one instance per process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, tuple[float, UpstreamOpening]] = OrderedDict()
        self._shared: OrderedDict[tuple[int, str], UpstreamOpening] = OrderedDict()
        self._reading: dict[_Key, asyncio.Task[UpstreamOpening | None]] = {}
        self._generation = 0

    def known(
        self, user_id: int, facts: UpstreamFacts, client: ClientFacts
    ) -> UpstreamOpening | None:
        """Return what is in memory; what is old is renewed in the background."""
        key = _key(user_id, facts, client)
        found = self._kept.get(key) if key is not None else None
        if key is None or found is None:
            return None
        if time.monotonic() - found[0] > FRESH:
            self._flight(key, user_id, facts, client)
        return found[1]

    def shared(self, facts: UpstreamFacts) -> UpstreamOpening | None:
        """Return what the server can do, as last said to anybody."""
        return self._shared.get((facts.id, facts.url))

    async def read(
        self, user_id: int, facts: UpstreamFacts, client: ClientFacts
    ) -> UpstreamOpening | None:
        """Ask the upstream; ``None`` if it can't be asked. A caller who goes away stops nothing."""
        try:
            await credentials.credential_for(user_id, facts)
        except UpstreamError:
            return None
        key = _key(user_id, facts, client)
        return (
            None if key is None else await asyncio.shield(self._flight(key, user_id, facts, client))
        )

    def _flight(
        self, key: _Key, user_id: int, facts: UpstreamFacts, client: ClientFacts
    ) -> "asyncio.Task[UpstreamOpening | None]":
        loop = asyncio.get_running_loop()
        task = self._reading.get(key)
        if task is None or task.done() or task.get_loop() is not loop:
            task = loop.create_task(self._read(key, user_id, facts, client))
            self._reading[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    def _landed(self, key: _Key, task: "asyncio.Task[UpstreamOpening | None]") -> None:
        if self._reading.get(key) is task:
            del self._reading[key]

    async def _read(
        self, key: _Key, user_id: int, facts: UpstreamFacts, client: ClientFacts
    ) -> UpstreamOpening | None:
        generation = self._generation
        try:
            async with asyncio.timeout(facts.list_timeout):
                raw = await authorized_call.opening_as(user_id, facts, client)
            opening = _understood(raw)
        except TimeoutError:
            late = UpstreamTimeout(f"{facts.title} did not answer in time.")
            call_gate.note_timeout(facts, "server/discover", late)
            return None
        except (UpstreamError, NotAnObject) as error:
            logger.info("%s could not be opened: %s", facts.key, type(error).__name__)
            return None
        if generation == self._generation:
            self._keep(key, opening)
        return opening

    def _keep(self, key: _Key, opening: UpstreamOpening) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (time.monotonic(), opening)
        shared = (key[0], key[1])
        self._shared.pop(shared, None)
        self._shared[shared] = UpstreamOpening(opening.capabilities, personal=False)
        for shelf in (self._kept, self._shared):
            while len(shelf) > MOST_OPENINGS:
                shelf.popitem(last=False)

    def forget(self) -> None:
        """Drop everything; readings under way are not kept either."""
        self._generation += 1
        self._kept.clear()
        self._shared.clear()
        self._reading.clear()


def _key(user_id: int, facts: UpstreamFacts, client: ClientFacts) -> _Key | None:
    credential = credentials.cached_credential(user_id, facts)
    if credential is None:
        return None
    return (facts.id, facts.url, credential.id, client.fingerprint)


def _understood(raw: bytes) -> UpstreamOpening:
    found = raw_members.value(raw)
    if not isinstance(found, dict):
        raise NotAnObject("not an object")
    capabilities, instructions = found.get("capabilities"), found.get("instructions")
    return UpstreamOpening(
        capabilities if isinstance(capabilities, dict) else {},
        instructions if isinstance(instructions, str) else "",
    )


openings = Openings()


def forget(key: str = "") -> None:
    """Drop every opening of this process; ``key`` of the change is not looked at."""
    openings.forget()
