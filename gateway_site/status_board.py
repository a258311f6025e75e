"""What the admin's first page shows: queries only, no decisions."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Q
from django.utils import timezone

from gateway_site.models import AuditEvent
from oauthserver.client_review import MOST_WAITING
from oauthserver.models import OAuthClient
from upstreams.health_words import health_line
from upstreams.models import CredentialKind, Upstream, UpstreamAccount
from virtualmcp.models import CallRecord, ToolDefinition, VirtualMcp

SHOWN_EVENTS = 12


@dataclass(frozen=True, slots=True)
class VirtualMcpLine:
    """One Virtual MCP and its last day."""

    pk: int
    title: str
    address: str
    enabled: bool
    upstreams: int
    calls: int
    failed: int


@dataclass(frozen=True, slots=True)
class UpstreamLine:
    """One upstream, how it does, and how many people have an account on it."""

    pk: int
    title: str
    state: str
    state_words: str
    detail: str
    revision: str
    checked_at: datetime | None
    # Whether there are accounts at all; else one key, or none, serves everybody.
    has_accounts: bool
    connected: int
    to_reconnect: int


@dataclass(frozen=True, slots=True)
class EventLine:
    """One audit event in words."""

    at: datetime
    sentence: str
    actor: str


@dataclass(frozen=True, slots=True)
class Board:
    """Everything on the page; numbers are of the last 24 hours."""

    virtual_mcps: list[VirtualMcpLine]
    upstreams: list[UpstreamLine]
    events: list[EventLine]
    calls: int
    failed: int
    people: int
    waiting_clients: int
    to_review: int

    @property
    def list_is_full(self) -> bool:
        """Whether no more clients can ask for approval."""
        return self.waiting_clients >= MOST_WAITING


def read_board() -> Board:
    """Read the board in a handful of queries."""
    since = timezone.now() - timedelta(hours=24)
    failed = ~Q(outcome="ok")
    records = CallRecord.objects.filter(at__gte=since)
    per_server: dict[str, dict[str, int]] = {
        row["virtual_mcp"]: {"calls": row["calls"], "failed": row["failed"]}
        for row in records.values("virtual_mcp")
        .annotate(calls=Count("pk"), failed=Count("pk", filter=failed))
        .order_by()
    }
    return Board(
        virtual_mcps=[
            _virtual_mcp_line(server, per_server.get(server.slug, {}))
            for server in VirtualMcp.objects.annotate(upstream_count=Count("choices"))
        ],
        upstreams=_upstream_lines(),
        events=[
            EventLine(event.at, str(event), event.actor)
            for event in AuditEvent.objects.all()[:SHOWN_EVENTS]
        ],
        calls=sum(row["calls"] for row in per_server.values()),
        failed=sum(row["failed"] for row in per_server.values()),
        waiting_clients=OAuthClient.objects.filter(review=OAuthClient.Review.WAITING).count(),
        people=records.exclude(user_id=None).aggregate(n=Count("user_id", distinct=True))["n"],
        to_review=ToolDefinition.objects.filter(state=ToolDefinition.State.WAITING).count(),
    )


def _virtual_mcp_line(server: VirtualMcp, numbers: dict[str, int]) -> VirtualMcpLine:
    return VirtualMcpLine(
        pk=server.pk,
        title=server.title,
        address=f"{settings.PUBLIC_URL}/v1/mcp/{server.slug}",
        enabled=server.enabled,
        upstreams=int(getattr(server, "upstream_count", 0)),
        calls=numbers.get("calls", 0),
        failed=numbers.get("failed", 0),
    )


def _upstream_lines() -> list[UpstreamLine]:
    status = UpstreamAccount.Status
    rows = Upstream.objects.select_related("health").annotate(
        connected=Count("accounts", filter=Q(accounts__status=status.CONNECTED)),
        to_reconnect=Count("accounts", filter=Q(accounts__status=status.NEEDS_RECONNECT)),
    )
    return [_upstream_line(row) for row in rows]


def _upstream_line(row: Upstream) -> UpstreamLine:
    health = health_line(row)
    return UpstreamLine(
        pk=row.pk,
        title=row.title,
        state=health.state,
        state_words=health.words,
        detail=health.detail,
        revision=row.detected_revision,
        checked_at=health.checked_at,
        has_accounts=row.credential_kind not in (CredentialKind.NONE, CredentialKind.FIXED),
        connected=int(getattr(row, "connected", 0)),
        to_reconnect=int(getattr(row, "to_reconnect", 0)),
    )
