"""Which calls may go out to one upstream: how many at a time, and none while it keeps failing.

A full upstream makes callers wait for a second and then turns them away, so that one
slow server cannot hold everybody's calls (bulkhead, security.md section 3). One that keeps
failing is left alone for a while (``circuit_breaker``). Both are kept per process.
"""

import asyncio
from collections import deque
from typing import Final

from upstreams.circuit_breaker import CircuitBreaker, speaks_against
from upstreams.errors import (
    CircuitOpen,
    EgressRefused,
    HeldBack,
    UpstreamBusy,
    UpstreamError,
    UpstreamTimeout,
)
from upstreams.running_loop import running_loop
from upstreams.signals import changed, circuit_changed
from upstreams.upstream_facts import UpstreamFacts

QUEUE_SECONDS: Final = 1.0
MOST_WAITING: Final = 1000


class CallGate:
    """The places for one upstream in one event loop, and its circuit breaker."""

    __slots__ = ("_waiting", "breaker", "facts", "in_flight")

    def __init__(self, facts: UpstreamFacts) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.facts = facts
        self.breaker = CircuitBreaker()
        self.in_flight = 0

    def check(self) -> None:
        """Let a call pass, or not; asked only while the breaker is troubled.

        Raises:
            CircuitOpen: it has failed too often in a row.
        """
        seconds = self.breaker.wait()
        if seconds:
            raise CircuitOpen(
                f"{self.facts.title} has failed several times in a row.",
                detail=f"not asked for another {seconds:.0f} s",
                retry_after=seconds,
            )

    def failed(self, method: str, error: UpstreamError) -> None:
        """Note how a call failed."""
        if isinstance(error, UpstreamBusy):
            # "Come back later" opens no circuit, and closes none.
            if not self.breaker.opened:
                return
        elif not speaks_against(error, method):
            # It answered, if only with a refusal.
            if self.breaker.troubled and not isinstance(error, UpstreamTimeout | EgressRefused):
                self.succeeded()
            return
        if self.breaker.failed():
            changed.send(sender=CallGate, kind="health", key=f"{self.facts.id}:open")
            circuit_changed.send(
                sender=CallGate, upstream_id=self.facts.id, opened=True, error=error
            )

    def succeeded(self) -> None:
        """Note that it works; asked only while the breaker is troubled."""
        if self.breaker.succeeded():
            changed.send(sender=CallGate, kind="health", key=f"{self.facts.id}:closed")
            circuit_changed.send(
                sender=CallGate, upstream_id=self.facts.id, opened=False, error=None
            )

    def try_enter(self) -> bool:
        """Take a place if one is free."""
        if self.in_flight >= self.facts.max_in_flight:
            return False
        self.in_flight += 1
        return True

    async def enter(self, facts: UpstreamFacts) -> None:
        """Take a place, waiting a second for it.

        Raises:
            HeldBack: none became free.
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


def busy(facts: UpstreamFacts) -> HeldBack:
    """Return the error for a full upstream."""
    return HeldBack(
        f"{facts.title} is busy; try again later.",
        detail=f"{facts.max_in_flight} calls in flight",
        retry_after=QUEUE_SECONDS,
    )


_gates: dict[asyncio.AbstractEventLoop, dict[int, CallGate]] = {}


def gate_for(facts: UpstreamFacts) -> CallGate:
    """Return the running loop's gate of an upstream."""
    loop = running_loop()
    gates = _gates.get(loop)
    if gates is None:
        for other in [known for known in _gates if known.is_closed()]:
            del _gates[other]
        gates = _gates[loop] = {}
    gate = gates.get(facts.id)
    if gate is None:
        gate = gates[facts.id] = CallGate(facts)
    elif gate.facts is not facts:
        if gate.facts.url != facts.url:
            gate.breaker = CircuitBreaker()
        gate.facts = facts
    return gate


def note_timeout(facts: UpstreamFacts, method: str, error: UpstreamTimeout) -> None:
    """Note that a caller with a deadline of its own, which a call does not know, gave up."""
    gate_for(facts).failed(method, error)


def gates() -> list[CallGate]:
    """Return the gates of this process, for metrics; may be called from any thread."""
    return [gate for known in list(_gates.values()) for gate in list(known.values())]


def hear_health(key: str) -> None:
    """Take the hint of another process: ``7:open`` or ``7:closed``; others say nothing."""
    upstream, _, word = key.partition(":")
    for gate in gates():
        if str(gate.facts.id) == upstream:
            if word == "open":
                gate.breaker.suspect()
            else:
                gate.breaker.try_soon()
