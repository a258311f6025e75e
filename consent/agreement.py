"""What a yes was about, and whether it still covers what there is now (protocol.md 5.1, d14).

A person agrees to a client as it described itself, to a Virtual MCP with the upstreams it had,
and to scopes. When one of these grows, the next refresh is refused, the client authorizes again
and the page says what is new. The administrator decides per Virtual MCP what counts.
"""

from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from consent.models import ConsentRecord
from consent.signals import audit
from oauthserver import redirect_uris
from oauthserver.authorization import client_host
from oauthserver.models import OAuthClient
from virtualmcp.definition_review import approved
from virtualmcp.models import ToolDefinition, UpstreamChoice, VirtualMcp

LOOPBACK = "this computer"
NEVER_GIVEN = "The person has not agreed to this, or has taken it back. Authorize again."


def offered(slug: str, client: OAuthClient) -> dict[str, Any]:
    """Return what a yes would be about now, as it is kept in the record and the audit trail.

    Tools are those known to the gateway so far, as their number and one digest over all their
    definitions.
    """
    choices = UpstreamChoice.objects.filter(virtual_mcp__slug=slug, upstream__enabled=True)
    server = VirtualMcp.objects.filter(slug=slug).only("pk").first()
    digest, _ = approved(server.pk) if server is not None else ("", 0)
    tools = ToolDefinition.objects.filter(
        virtual_mcp=server,
        subject=ToolDefinition.Subject.TOOL,
        state=ToolDefinition.State.APPROVED,
    )
    count = tools.values("upstream_id", "name").distinct().order_by().count()
    return {
        "client": {
            "name": client.name,
            "host": client_host(client),
            "source": str(client.registration_source),
            "redirect_hosts": _redirect_hosts(client),
        },
        "upstreams": sorted(choices.values_list("upstream__key", flat=True)),
        "tools": {"count": count, "digest": digest},
    }


def news(record: ConsentRecord, client: OAuthClient | None = None) -> list[str]:
    """Return what has come since a person agreed, in sentences for them; [] for nothing.

    Args:
        client: the client as it is now, if it was brought up to date already.
    """
    agreed = record.agreed
    server = VirtualMcp.objects.filter(slug=record.virtual_mcp_slug).first()
    if not agreed or server is None or server.ask_again == VirtualMcp.AskAgain.NEVER:
        return []
    now = offered(record.virtual_mcp_slug, client or record.client)
    found = _news_of_client(agreed["client"], now["client"])
    added = sorted(set(now["upstreams"]) - set(agreed["upstreams"]))
    if added:
        found.append(f"It reaches more services now: {', '.join(added)}.")
    if server.ask_again == VirtualMcp.AskAgain.TOOLS:
        changed = _changed_tools(server, record.given_at)
        if changed:
            names = ", ".join(changed[:5]) + (" and others" if len(changed) > 5 else "")
            found.append(f"What these tools do is described differently now: {names}.")
    return found


def why_ask_again(user: Any, client: OAuthClient, resource: str) -> str:
    """Return "" or why a refresh is refused; the rule of ``oauthserver.consent_check``."""
    record = ConsentRecord.objects.filter(user=user, client=client, resource=resource).first()
    if record is None or record.revoked_at is not None:
        return NEVER_GIVEN
    sentences = news(record, client)
    if not sentences:
        return ""
    if record.outgrown_at is None:
        record.outgrown_at = timezone.now()
        record.save(update_fields=["outgrown_at"])
        audit.send(
            sender=ConsentRecord,
            kind="consent.outgrown",
            user=user,
            target=record.virtual_mcp_slug,
            details={"client_id": client.client_id, "news": sentences},
            address="",
        )
    return f"The person has to agree again. {' '.join(sentences)}"


def _news_of_client(agreed: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    if now["name"] != agreed["name"]:
        found.append(f"The program calls itself {now['name'] or 'nothing'} now.")
    hosts = sorted(set(now["redirect_hosts"]) - set(agreed["redirect_hosts"]))
    if hosts:
        found.append(f"The program may send you to other places now: {', '.join(hosts)}.")
    return found


def _redirect_hosts(client: OAuthClient) -> list[str]:
    return sorted(
        {
            LOOPBACK if redirect_uris.is_loopback(uri) else redirect_uris.host_for_people(uri)
            for uri in client.redirect_uris.split()
        }
    )


def _changed_tools(server: VirtualMcp, since: datetime) -> list[str]:
    """Name the tools that were worded anew; a first wording is no change."""
    earlier = ToolDefinition.objects.filter(
        virtual_mcp=server,
        upstream=OuterRef("upstream"),
        subject=OuterRef("subject"),
        name=OuterRef("name"),
        pk__lt=OuterRef("pk"),
    )
    newer = Q(decided_at__gt=since) | Q(decided_at=None, seen_at__gt=since)
    rows = ToolDefinition.objects.filter(
        newer,
        Exists(earlier),
        virtual_mcp=server,
        subject=ToolDefinition.Subject.TOOL,
        state=ToolDefinition.State.APPROVED,
    )
    return sorted(set(rows.values_list("name", flat=True)))
