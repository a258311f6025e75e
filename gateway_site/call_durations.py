"""How long calls took, as a Prometheus histogram that takes a second's worth of them at once.

``prometheus_client.Histogram`` takes two locks for each value; thousands of calls a second would
spend more on being counted than on being logged.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# Upper ends in seconds, as Prometheus counts: a value belongs to the first that is not below it.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_NAMES = (*map(floatToGoString, BOUNDS), "+Inf")


class _Counted:
    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * len(_NAMES)
        self.total = 0.0


class CallDurations(Collector):  # type: ignore[misc]
    """The histogram ``gateway_call_seconds``; written by one thread, read by any."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str], _Counted] = {}

    def observe(self, virtual_mcp: str, method: str, seconds: Sequence[float]) -> None:
        """Count calls of one Virtual MCP and method."""
        counted = self._counted.get((virtual_mcp, method))
        if counted is None:
            counted = self._counted[(virtual_mcp, method)] = _Counted()
        buckets = counted.buckets
        for value in seconds:
            buckets[bisect_left(BOUNDS, value)] += 1
        counted.total += sum(seconds)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Give the figures of all calls so far."""
        family = HistogramMetricFamily(
            "gateway_call_seconds",
            "Time from the request to the end of its answer.",
            labels=("virtual_mcp", "method"),
        )
        for labels, counted in list(self._counted.items()):
            up_to, cumulative = 0, []
            for name, count in zip(_NAMES, counted.buckets, strict=True):
                up_to += count
                cumulative.append((name, up_to))
            family.add_metric(labels, cumulative, sum_value=counted.total)
        yield family
