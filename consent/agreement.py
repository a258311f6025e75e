"""What a yes was about, and whether it still covers what there is now (protocol.md 5.1, d14).

A person agrees to a client as it described itself, to a Virtual MCP with the upstreams it had,
and to scopes. When one of these grows, the next refresh is refused, the client authorizes again
and the page says what is new. The administrator decides per Virtual MCP what counts.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Exists, Min, OuterRef, Q
from django.utils import timezone

from consent.models import ConsentRecord
from consent.signals import audit
from oauthserver import redirect_uris
from oauthserver.authorization import client_host
from oauthserver.models import OAuthClient
from virtualmcp import tool_groups
from virtualmcp.definition_review import approved
from virtualmcp.models import ToolDefinition, VirtualMcp

LOOPBACK = "this computer"
# As many names of tools as a record keeps; the digest covers all.
MOST_NAMES: Final = 500
# What is written down so soon after a service's first tool is of the same list of tools.
FIRST_LIST: Final = timedelta(minutes=1)
NEVER_GIVEN = "The person has not agreed to this, or has taken it back. Authorize again."


def offered(slug: str, client: OAuthClient) -> dict[str, Any]:
    """Return what a yes would be about now, as it is kept in the record and the audit trail.

    Tools are those that are offered and known to the gateway so far: their number, one digest over
    all their definitions, and their names by upstream, ``MOST_NAMES`` of them.
    """
    server = VirtualMcp.objects.filter(slug=slug).only("pk", "step_up").first()
    keys: dict[int, str] = {}
    if server is not None:
        chosen = server.choices.filter(upstream__enabled=True)
        keys = dict(chosen.values_list("upstream_id", "upstream__key"))
    offers = tool_groups.offered_tools(server) if server is not None else set()
    # An upstream may have been switched on since its key was looked for.
    tools = sorted(tool for tool in offers if tool[0] in keys)
    names: dict[str, list[str]] = {}
    for upstream_id, name in tools[:MOST_NAMES]:
        names.setdefault(keys[upstream_id], []).append(name)
    return {
        "client": {
            "name": client.name,
            "host": client_host(client),
            "source": str(client.registration_source),
            "redirect_hosts": _redirect_hosts(client),
        },
        "upstreams": sorted(keys.values()),
        "tools": {
            "count": len(tools),
            "digest": approved(server.pk)[0] if server is not None else "",
            "names": names,
        },
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
        new, changed = _news_of_tools(server, record.given_at)
        if new:
            found.append(f"It offers more tools now: {_some(new)}.")
        if changed:
            found.append(f"What these tools do is described differently now: {_some(changed)}.")
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


def _news_of_tools(server: VirtualMcp, since: datetime) -> tuple[list[str], list[str]]:
    """Name the tools that came since, and those that were worded anew.

    Of a service whose tools nobody had listed when the person agreed, the first list is what they
    agreed to.
    """
    of_server = ToolDefinition.objects.filter(
        virtual_mcp=server,
        subject=ToolDefinition.Subject.TOOL,
        state=ToolDefinition.State.APPROVED,
    )
    newer = Q(decided_at__gt=since) | Q(decided_at=None, seen_at__gt=since)
    earlier = ToolDefinition.objects.filter(
        virtual_mcp=server,
        upstream=OuterRef("upstream"),
        subject=OuterRef("subject"),
        name=OuterRef("name"),
        pk__lt=OuterRef("pk"),
    )
    first = dict(
        server.definitions.filter(subject=ToolDefinition.Subject.TOOL)
        .order_by()
        .values_list("upstream_id")
        .annotate(Min("seen_at"))
    )
    offered_now = tool_groups.offered_tools(server)
    new, changed = set(), set()
    for row in of_server.filter(newer).annotate(worded_before=Exists(earlier)):
        if (row.upstream_id, row.name) not in offered_now:
            continue
        if row.worded_before:
            changed.add(row.name)
        elif row.seen_at > first.get(row.upstream_id, row.seen_at) + FIRST_LIST:
            new.add(row.name)
    return sorted(new), sorted(changed)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
