"""Virtual MCPs as the authorization server sees them: resources that a token can be for."""

from typing import Any

from oauthserver.audience import Resource
from oauthserver.scopes import WRITE_SCOPE
from virtualmcp.access_policy import visible_to
from virtualmcp.models import VirtualMcp
from virtualmcp.route_table import resource_of


def find(uri: str) -> Resource | None:
    """Return the enabled Virtual MCP with exactly this address."""
    slug = uri.rpartition("/")[2]
    if not slug or resource_of(slug) != uri:
        return None
    row = (
        VirtualMcp.objects.filter(slug=slug, enabled=True).only("slug", "title", "step_up").first()
    )
    return None if row is None else _resource(row)


def may_use(user: Any, resource: Resource) -> bool:
    """Tell whether this person may use it; the rules are ``access_policy``'s."""
    return visible_to(user).filter(slug=resource.slug).exists()


def all_for(user: Any) -> list[Resource]:
    """Return all that this person may use, by title."""
    return [_resource(row) for row in visible_to(user)]


def everything() -> list[Resource]:
    """Return every enabled Virtual MCP, by title."""
    return [_resource(row) for row in VirtualMcp.objects.filter(enabled=True)]


def _resource(row: VirtualMcp) -> Resource:
    further = (WRITE_SCOPE,) if row.step_up else ()
    return Resource(resource_of(row.slug), row.slug, row.title, further)
