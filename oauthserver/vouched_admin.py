"""What trusted issuers let clients do, in the admin: to read and to end, never to write."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from oauthserver import vouched_access
from oauthserver.models import VouchedAccess
from oauthserver.request_limits import peer_address

# The class is generic for the type checker only.
if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[VouchedAccess]
else:
    _Admin = admin.ModelAdmin


class StandingFilter(admin.SimpleListFilter):
    """Whether such access still holds."""

    title = "standing"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return what can have become of one."""
        return [("stands", "Stands"), ("over", "Ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep those of which that is so."""
        if self.value() in ("stands", "over"):
            return queryset.filter(ended_at__isnull=self.value() == "stands")
        return queryset


@admin.register(VouchedAccess)
class VouchedAccessAdmin(_Admin):
    """Which clients the company let act for whom, without a consent page."""

    list_display = ["user", "client", "server", "issuer", "last_at", "ended_at"]
    list_filter = [StandingFilter, "issuer"]
    search_fields = ["user__username", "user__email", "client__name", "client__client_id"]
    date_hierarchy = "last_at"
    list_select_related = ["user", "client"]
    actions = ["end_selected"]
    fields = ["user", "client", "resource", "issuer", "scopes", "first_at", "last_at", "ended_at"]

    @admin.display(description="Virtual MCP", ordering="resource")
    def server(self, row: VouchedAccess) -> str:
        """Return the end of its address."""
        return row.slug

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only an identity provider lets in."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A record of what was let in."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ending keeps the record."""
        return False

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Ending is the right of who may change such access, although no form changes one."""
        return bool(request.user.has_perm("oauthserver.change_vouchedaccess"))

    @admin.action(description="End: the client's tokens stop working", permissions=["end"])
    def end_selected(self, request: HttpRequest, queryset: QuerySet[VouchedAccess]) -> None:
        """End every selected access that is not ended."""
        address = peer_address(request)
        ended = vouched_access.end(queryset, actor=request.user, address=address)
        messages.success(request, f"{ended} ended. An identity provider may let them in again.")
