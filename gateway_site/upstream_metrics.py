"""Metrics of upstreams, read when they are scraped.

``circuit_open``, ``calls_in_flight`` and ``unrelated_questions`` are of this process; ``up`` and
the rest come from the database, so that every process says the same.
"""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from upstreams import call_gate, unrelated_questions
from upstreams.models import UpstreamHealth


class UpstreamCollector(Collector):  # type: ignore[misc]
    """Gauges by upstream; blocking, as it reads the database."""

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Say nothing in advance: registering must not read the database."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Return the metrics as they are now."""
        in_flight = self._gauge("calls_in_flight", "Calls running at the moment, in this process.")
        opened = self._gauge(
            "circuit_open",
            "1 while this process leaves the upstream alone because it keeps failing.",
        )
        for gate in call_gate.gates():
            in_flight.add_metric([gate.facts.key], gate.in_flight)
            opened.add_metric([gate.facts.key], int(gate.breaker.opened))
        up = self._gauge("up", "1 if the last probe found the upstream working, 0 if failing.")
        seconds = self._gauge("probe_seconds", "How long the upstream took to answer the probe.")
        age = self._gauge("last_success_timestamp_seconds", "When a probe last found it working.")
        for health in UpstreamHealth.objects.select_related("upstream"):
            labels = [health.upstream.key]
            if health.status != UpstreamHealth.Status.UNKNOWN:
                up.add_metric(labels, int(health.status == UpstreamHealth.Status.WORKING))
            if health.latency_ms is not None:
                seconds.add_metric(labels, health.latency_ms / 1000)
            if health.last_success_at is not None:
                age.add_metric(labels, health.last_success_at.timestamp())
        return [in_flight, opened, up, seconds, age, self._questions()]

    @staticmethod
    def _questions() -> CounterMetricFamily:
        questions = CounterMetricFamily(
            "gateway_upstream_unrelated_questions",
            "Questions of upstreams outside of their calls' streams, by how they ended.",
            labels=["upstream", "outcome"],
        )
        for labels, count in unrelated_questions.ended.copy().items():
            questions.add_metric(list(labels), count)
        return questions

    @staticmethod
    def _gauge(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"gateway_upstream_{name}", text, labels=["upstream"])
