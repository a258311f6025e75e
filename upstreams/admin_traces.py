"""OAuth traces in the admin: to look at, beside the upstream and the account they belong to."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from upstreams.models import OAuthTrace, Upstream

# The class is generic for the type checker only.
if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[OAuthTrace]
else:
    _Admin = admin.ModelAdmin


def traces_link(upstream: Upstream, user_id: int | None = None) -> SafeString:
    """Return the link to an upstream's traces, or to one person's there."""
    address = reverse("admin:upstreams_oauthtrace_changelist")
    query = f"upstream__id__exact={upstream.pk}"
    query += f"&user__id__exact={user_id}" if user_id else ""
    known = OAuthTrace.objects.filter(upstream=upstream)
    known = known.filter(user_id=user_id) if user_id else known
    return format_html('<a href="{}?{}">Traces</a> ({})', address, mark_safe(query), known.count())  # noqa: S308


@admin.register(OAuthTrace)
class OAuthTraceAdmin(_Admin):
    """What was sent and received in each attempt; written by the gateway, read here."""

    list_display = ["started_at", "upstream", "user", "purpose", "outcome", "where"]
    list_filter = ["outcome", "purpose", "upstream"]
    search_fields = ["user__username", "user__email", "upstream__title", "message"]
    list_select_related = ["upstream", "user"]
    date_hierarchy = "started_at"
    fields = ["upstream", "user", "purpose", "outcome", "where", "started_at", "shown_steps"]
    readonly_fields = ["where", "started_at", "shown_steps"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The gateway writes them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody rewrites what happened."""
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Let an account's page link to one person's traces."""
        if lookup in ("user__id__exact", "upstream__id__exact"):
            return True
        return super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    @admin.display(description="Where it failed")
    def where(self, trace: OAuthTrace) -> str:
        """Return the failed step and what was said."""
        return f"{trace.failed_step}: {trace.message}" if trace.failed_step else ""

    @admin.display(description="Steps")
    def shown_steps(self, trace: OAuthTrace) -> SafeString:
        """Return every step; what could be a secret was never written down."""
        return render_to_string("upstreams/admin/trace_steps.html", {"steps": trace.steps})
