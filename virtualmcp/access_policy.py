"""Who may use which Virtual MCP. Fails closed: groups chosen but none named means nobody.

An unknown and a forbidden Virtual MCP look the same to whoever asks.
"""

from typing import TYPE_CHECKING

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group
from django.db.models import Exists, OuterRef, Q, QuerySet

from virtualmcp.models import AccessRule, UpstreamChoice, VirtualMcp
from virtualmcp.route_table import VirtualMcpFacts

if TYPE_CHECKING:
    from oauthserver.bearer_tokens import TokenHolder


def may_use(holder: "TokenHolder", facts: VirtualMcpFacts) -> bool:
    """Decide from what is in memory; called on every request.

    A service account gets tokens for the Virtual MCPs chosen for it and for no others, so its
    token says it; groups decide about people.
    """
    if holder.service_account:
        return True
    return facts.open_to_everyone or not facts.group_ids.isdisjoint(holder.group_ids)


def visible_to(user: AbstractBaseUser | AnonymousUser) -> QuerySet[VirtualMcp]:
    """Return the enabled Virtual MCPs this person may use; none for who is not signed in."""
    if not user.is_authenticated or not user.is_active:
        return VirtualMcp.objects.none()
    groups = Group.objects.filter(user=user.pk)
    allowed = Q(audience=VirtualMcp.Audience.EVERYONE) | Q(
        audience=VirtualMcp.Audience.GROUPS, groups__in=groups
    )
    return VirtualMcp.objects.filter(allowed, enabled=True).distinct()


def open_choices(user: AbstractBaseUser | AnonymousUser) -> QuerySet[UpstreamChoice]:
    """Return the upstreams of Virtual MCPs that this person may use, as ``person_view`` decides."""
    rules = AccessRule.objects.filter(
        virtual_mcp=OuterRef("virtual_mcp"), upstream=OuterRef("upstream"), tools=[]
    )
    own = rules.filter(groups__in=Group.objects.filter(user=user.pk))
    return UpstreamChoice.objects.filter(
        ~Exists(rules) | Exists(own), virtual_mcp__in=visible_to(user)
    )


def may_use_model(user: AbstractBaseUser | AnonymousUser, virtual_mcp: VirtualMcp) -> bool:
    """Decide as ``may_use`` does, from the database; for pages and the authorization server."""
    return visible_to(user).filter(pk=virtual_mcp.pk).exists()
