"""What upstreams tell models of their tools, in the admin: reviewed singly or in bulk."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import ngettext

from virtualmcp import definition_review
from virtualmcp.models import ToolDefinition

if TYPE_CHECKING:
    _DefinitionAdmin = admin.ModelAdmin[ToolDefinition]
else:
    _DefinitionAdmin = admin.ModelAdmin


def goes_with_its_owner(request: HttpRequest, model: type[Model]) -> bool:
    """Tell whether a deletion comes from another page: that of the server or upstream it is of.

    By themselves such rows are nobody's to delete.
    """
    match = request.resolver_match
    own = f"{model._meta.app_label}_{model._meta.model_name}_"
    return match is not None and not (match.url_name or "").startswith(own)


class ToolDefinitionAdmin(_DefinitionAdmin):
    """Definitions, those that wait first; approved and rejected here and nowhere else."""

    list_display = ["what", "state", "subject", "upstream", "virtual_mcp", "seen_at", "look_twice"]
    list_display_links = ["what"]
    list_filter = ["state", "virtual_mcp", "upstream", "subject"]
    list_select_related = ["upstream", "virtual_mcp"]
    search_fields = ["name"]
    ordering = ["-state", "-seen_at", "name"]
    actions = ["approve", "reject"]
    change_form_template = "virtualmcp/admin/definition.html"
    fields = ()
    list_per_page = 200

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Upstreams make them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """They go with their upstream or server."""
        return goes_with_its_owner(request, ToolDefinition)

    @admin.display(description="Definition of", ordering="name")
    def what(self, row: ToolDefinition) -> str:
        """Return what it is of."""
        return str(row)

    @admin.display(description="Look twice")
    def look_twice(self, row: ToolDefinition) -> str:
        """Return what is unusual about a definition that is not decided."""
        waiting = row.state == ToolDefinition.State.WAITING
        return " ".join(definition_review.warnings(row)) if waiting else ""

    @admin.action(description="Approve the selected definitions", permissions=["change"])
    def approve(self, request: HttpRequest, queryset: QuerySet[ToolDefinition]) -> None:
        """Have them served."""
        self._decide(request, queryset, approve=True)

    @admin.action(description="Reject the selected definitions", permissions=["change"])
    def reject(self, request: HttpRequest, queryset: QuerySet[ToolDefinition]) -> None:
        """Have them held back."""
        self._decide(request, queryset, approve=False)

    def _decide(
        self, request: HttpRequest, queryset: QuerySet[ToolDefinition], *, approve: bool
    ) -> None:
        user = request.user
        assert isinstance(user, User)
        count = definition_review.decide(queryset, approve=approve, actor=user)
        done = "approved" if approve else "rejected"
        said = ngettext("%(count)d definition %(done)s.", "%(count)d definitions %(done)s.", count)
        self.message_user(request, said % {"count": count, "done": done}, messages.SUCCESS)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show what changed, member by member, with the two decisions below."""
        row = ToolDefinition.objects.select_related("upstream", "virtual_mcp").filter(pk=object_id)
        found = row.first()
        if found is not None and request.method == "POST" and self.has_change_permission(request):
            if "_approve" in request.POST or "_reject" in request.POST:
                self._decide(request, row, approve="_approve" in request.POST)
            page = f"{reverse('admin:virtualmcp_tooldefinition_changelist')}?state__exact=waiting"
            return HttpResponseRedirect(page)
        context: dict[str, Any] = {"title": "Review a definition", "subtitle": str(found or "")}
        if found is not None:
            earlier = definition_review.before(found)
            context |= {
                "definition": found,
                "earlier": earlier,
                "warnings": definition_review.warnings(found),
                "lines": definition_review.difference(
                    earlier.content if earlier is not None else "", found.content
                ),
            }
        context |= extra_context or {}
        return super().change_view(request, object_id, form_url, context)
