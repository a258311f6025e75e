"""How many calls may be in flight to one upstream at a time (security.md section 3).

A full upstream makes callers wait for a second and then turns them away, so that one
slow server cannot hold everybody's calls (bulkhead).
"""

import asyncio
from collections import deque
from typing import Final

from upstreams.errors import UpstreamBusy
from upstreams.upstream_facts import UpstreamFacts

MOST_IN_FLIGHT: Final = 200
QUEUE_SECONDS: Final = 1.0
MOST_WAITING: Final = 1000


class CallGate:
    """The places for one upstream in one event loop."""

    __slots__ = ("_limit", "_waiting", "in_flight")

    def __init__(self, limit: int = MOST_IN_FLIGHT) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    def try_enter(self) -> bool:
        """Take a place if one is free."""
        if self.in_flight >= self._limit:
            return False
        self.in_flight += 1
        return True

    async def enter(self, facts: UpstreamFacts) -> None:
        """Take a place, waiting a second for it.

        Raises:
            UpstreamBusy: none became free.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise busy(facts)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await place
        except TimeoutError as error:
            self._give_up(place)
            raise busy(facts) from error
        except asyncio.CancelledError:
            self._give_up(place)
            raise

    def enter_again(self) -> None:
        """Take a place back that was left while a person thought; it is owed, so it never waits."""
        self.in_flight += 1

    def _give_up(self, place: asyncio.Future[None]) -> None:
        if place.done() and not place.cancelled():
            self.leave()
        elif place in self._waiting:
            self._waiting.remove(place)

    def leave(self) -> None:
        """Give the place back, to whoever waits longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.in_flight -= 1


def busy(facts: UpstreamFacts) -> UpstreamBusy:
    """Return the error for a full upstream."""
    return UpstreamBusy(
        f"{facts.title} is busy; try again later.",
        detail=f"{MOST_IN_FLIGHT} calls in flight",
        retry_after=QUEUE_SECONDS,
    )


_gates: dict[asyncio.AbstractEventLoop, dict[int, CallGate]] = {}


def gate_for(upstream_id: int) -> CallGate:
    """Return the running loop's gate of an upstream."""
    loop = asyncio.get_running_loop()
    gates = _gates.get(loop)
    if gates is None:
        for other in [known for known in _gates if known.is_closed()]:
            del _gates[other]
        gates = _gates[loop] = {}
    gate = gates.get(upstream_id)
    if gate is None:
        gate = gates[upstream_id] = CallGate()
    return gate
