"""Public names of tools and prompts in ``gateway.yaml``: those that were given by hand."""

from collections.abc import Callable, Sequence
from typing import Any

from django.core.exceptions import ValidationError

from gateway_site.config_changes import Applying
from gateway_site.config_file import ConfigurationRefused
from gateway_site.config_schema import NameEntry
from upstreams.models import Upstream
from virtualmcp import name_changes
from virtualmcp.models import PublicName, VirtualMcp
from virtualmcp.name_changes import Named


def apply_names(
    server: VirtualMcp,
    entries: Sequence[NameEntry],
    path: str,
    applying: Applying,
    upstream: Callable[[str, str], Upstream],
) -> bool:
    """Give names as the file says; returns whether one of them is new.

    Raises:
        ConfigurationRefused: by the path of the entry.
    """
    news = False
    for position, entry in enumerate(entries):
        at = f"{path}[{position}]"
        if (entry.tool is None) == (entry.prompt is None):
            raise ConfigurationRefused([(at, "Say either tool or prompt.")])
        kind = PublicName.Kind.TOOL if entry.prompt is None else PublicName.Kind.PROMPT
        own = entry.tool or entry.prompt or ""
        thing = Named(server, upstream(entry.upstream, at), kind, own)
        try:
            news |= name_changes.change_name(thing, entry.name, actor=applying.actor)
        except ValidationError as failure:
            # What is wrong with the public name is said of "name", as the file calls it.
            place = f"{at}.name" if hasattr(failure, "error_dict") else at
            raise ConfigurationRefused([(place, " ".join(failure.messages))]) from failure
    return news


def exported(server: VirtualMcp) -> list[dict[str, Any]]:
    """Return the entries of the names that were given by hand, of upstreams behind the server."""
    rows = server.names.filter(
        set_by_hand=True, former=False, upstream__choices__virtual_mcp=server
    ).order_by("upstream__key", "kind", "upstream_name")
    return [
        {"upstream": row.upstream.key, row.kind: row.upstream_name, "name": row.public_name}
        for row in rows.select_related("upstream")
    ]
