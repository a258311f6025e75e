"""The pages where people find their Virtual MCP servers and how to connect a client to them."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from upstreams.accounts import AccountStatus, status_for
from upstreams.models import Upstream
from virtualmcp.access_policy import open_choices, visible_to
from virtualmcp.connect_snippets import guides_for, only_local
from virtualmcp.models import UpstreamChoice, VirtualMcp


@dataclass(frozen=True, slots=True)
class OfferedUpstream:
    """One upstream of a Virtual MCP as the person looking at it sees it."""

    upstream: Upstream
    required: bool
    status: AccountStatus


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One Virtual MCP on a page: what it is, where it is, what it reaches."""

    server: VirtualMcp
    url: str
    upstreams: list[OfferedUpstream]


@require_safe
@login_required
@never_cache
def catalogue(request: HttpRequest) -> HttpResponse:
    """List the Virtual MCP servers this person may use."""
    user = _person(request)
    servers = visible_to(user).prefetch_related(_open_choices(user))
    entries = [_entry(user, server) for server in servers]
    return render(request, "virtualmcp/catalogue.html", {"entries": entries, "page": "catalogue"})


@require_safe
@login_required
@never_cache
def connect_guide(request: HttpRequest, slug: str) -> HttpResponse:
    """Show how to point each client at one Virtual MCP.

    Raises:
        Http404: there is none by this name, or this person may not use it; the two look alike.
    """
    user = _person(request)
    server = get_object_or_404(visible_to(user).prefetch_related(_open_choices(user)), slug=slug)
    entry = _entry(user, server)
    context = {
        "entry": entry,
        "guides": guides_for(entry.url, server.slug),
        "only_local": only_local(entry.url),
        "page": "catalogue",
    }
    return render(request, "virtualmcp/connect_guide.html", context)


def _person(request: HttpRequest) -> User:
    user = request.user
    assert isinstance(user, User)
    return user


def _open_choices(user: User) -> "Prefetch[str, QuerySet[UpstreamChoice], str]":
    return Prefetch("choices", open_choices(user).select_related("upstream"))


def _entry(user: User, server: VirtualMcp) -> CatalogueEntry:
    offered = [
        OfferedUpstream(choice.upstream, choice.required, status_for(user, choice.upstream))
        for choice in server.choices.all()
    ]
    return CatalogueEntry(server, f"{settings.PUBLIC_URL}/v1/mcp/{server.slug}", offered)
