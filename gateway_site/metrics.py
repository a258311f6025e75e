"""Prometheus metrics of this process, in one place, and the page that shows them.

``/metrics`` opens for a signed-in administrator or for the bearer token ``METRICS_TOKEN``:
names of upstreams and clients are nobody else's business.
"""

import hmac
from collections.abc import Sequence

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from gateway_site.call_durations import CallDurations

registry = CollectorRegistry()
ProcessCollector(registry=registry)
PlatformCollector(registry=registry)
GCCollector(registry=registry)
upstreams_shown = False

CALLS = Counter(
    "gateway_calls_total",
    "Calls relayed or refused, by Virtual MCP, method and outcome.",
    ["virtual_mcp", "method", "outcome"],
    registry=registry,
)
CALL_SECONDS = CallDurations()
registry.register(CALL_SECONDS)
KNOWN_METHODS = frozenset(
    (
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
        "prompts/get",
        "completion/complete",
    )
)
AUDIT_EVENTS = Counter(
    "gateway_audit_events_total", "Audit events, by kind.", ["kind"], registry=registry
)
LOST_RECORDS = Counter(
    "gateway_call_records_lost_total",
    "Call records dropped because they could not be written in time.",
    registry=registry,
)


def count_calls(virtual_mcp: str, method: str, outcome: str, seconds: Sequence[float]) -> None:
    """Count calls that ended alike; ``seconds`` is how long each took."""
    # A client may send any text as a method; each label value costs memory for good.
    method = method if method in KNOWN_METHODS else "other"
    CALLS.labels(virtual_mcp, method, outcome).inc(len(seconds))
    CALL_SECONDS.observe(virtual_mcp, method, seconds)


def _may_read(request: HttpRequest) -> bool:
    user = getattr(request, "user", None)
    if user is not None and user.is_active and user.is_superuser:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    expected = settings.METRICS_TOKEN
    return (
        bool(expected)
        and scheme.lower() == "bearer"
        and hmac.compare_digest(token.strip().encode(), expected.encode())
    )


@require_safe
def metrics_view(request: HttpRequest) -> HttpResponse:
    """Answer in the Prometheus text format, or 403."""
    if not _may_read(request):
        return HttpResponse(
            "Sign in as an administrator, or send the token set as METRICS_TOKEN.\n",
            status=403,
            content_type="text/plain",
        )
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
