"""How much one person may ask of this process at once, so that nobody takes all of it.

Counters of one process: a deployment with several nodes allows that many times more, which still
bounds what one person can do to each of them. Reading and writing them takes no lock, because
they belong to the event loop's thread.
"""

import time
from collections import OrderedDict
from functools import cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

RETRY_AFTER_SECONDS = 1
_MOST_BUCKETS = 10_000

_in_flight: dict[int, int] = {}


class TokenBuckets:
    """A bucket per person: ``rate`` calls a second on average (0 = no limit), ``burst`` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._buckets: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def take(self, user_id: int) -> bool:
        """Take one call out of the person's bucket; False if it is empty."""
        if not self._rate:
            return True
        now = time.monotonic()
        level, at = self._buckets.get(user_id, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        allowed = level >= 1.0
        self._buckets[user_id] = (level - 1.0 if allowed else level, now)
        self._buckets.move_to_end(user_id)
        if len(self._buckets) > _MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return allowed


_calls = TokenBuckets(
    settings.GATEWAY_CALLS_PER_SECOND_PER_USER, 2 * settings.GATEWAY_CALLS_PER_SECOND_PER_USER
)


@cache
def _most_in_flight() -> int:
    return int(settings.GATEWAY_CALLS_IN_FLIGHT_PER_USER)


def _settings_changed(**_: Any) -> None:
    _most_in_flight.cache_clear()


setting_changed.connect(_settings_changed, dispatch_uid="rate_limits.most_in_flight")


def enter(user_id: int) -> bool:
    """Count a call in; False (and nothing counted) when the person has too many.

    Whoever got True calls ``leave`` when the call ended, however it ended.
    """
    running = _in_flight.get(user_id, 0)
    if running >= _most_in_flight() or not _calls.take(user_id):
        return False
    _in_flight[user_id] = running + 1
    return True


def leave(user_id: int) -> None:
    """Count a call out."""
    running = _in_flight.get(user_id, 0)
    if running > 1:
        _in_flight[user_id] = running - 1
    else:
        _in_flight.pop(user_id, None)


def in_flight(user_id: int) -> int:
    """Return how many calls of a person run in this process now."""
    return _in_flight.get(user_id, 0)
