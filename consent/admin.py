"""Consents in the admin: to read and to take back, never to write."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.formats import localize

from consent import decisions
from consent.models import ConsentRecord
from oauthserver.models import OAuthClient

# The class is generic for the type checker only.
if TYPE_CHECKING:
    _Admin = admin.ModelAdmin[ConsentRecord]
else:
    _Admin = admin.ModelAdmin


class StandingFilter(admin.SimpleListFilter):
    """Whether a consent still holds."""

    title = "standing"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return what can have become of one."""
        return [("stands", "Stands"), ("outgrown", "Outgrown: asked again"), ("over", "Taken back")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[ConsentRecord]
    ) -> QuerySet[ConsentRecord]:
        """Keep those of which that is so."""
        if self.value() == "over":
            return queryset.exclude(revoked_at=None)
        if self.value() in ("stands", "outgrown"):
            return queryset.filter(revoked_at=None, outgrown_at__isnull=self.value() == "stands")
        return queryset


@admin.register(ConsentRecord)
class ConsentRecordAdmin(_Admin):
    """Who let which client use which Virtual MCP."""

    list_display = ["user", "client", "server", "given_at", "standing"]
    list_filter = [StandingFilter, "virtual_mcp_slug"]
    search_fields = ["user__username", "user__email", "client__name", "client__client_id"]
    date_hierarchy = "given_at"
    actions = ["revoke_selected"]
    fields = [
        *("user", "client", "server", "standing", "given_at", "scopes", "agreed_facts"),
        *("connected", "redirect_uri"),
    ]
    readonly_fields = ["server", "standing", "agreed_facts", "connected"]

    @admin.display(description="Virtual MCP", ordering="virtual_mcp_slug")
    def server(self, record: ConsentRecord) -> str:
        """Return the end of its address."""
        return record.virtual_mcp_slug

    @admin.display(description="Standing")
    def standing(self, record: ConsentRecord) -> str:
        """Say whether it still holds."""
        if record.revoked_at is not None:
            return f"Taken back on {localize(record.revoked_at)}"
        if record.outgrown_at is not None:
            return f"Outgrown: asked again since {localize(record.outgrown_at)}"
        return "Stands"

    @admin.display(description="Connected then")
    def connected(self, record: ConsentRecord) -> str:
        """Name the upstreams that were ready when the person agreed."""
        return ", ".join(record.upstreams) or "None"

    @admin.display(description="What was agreed to")
    def agreed_facts(self, record: ConsentRecord) -> str:
        """Say it in lines."""
        if not record.agreed:
            return "Not recorded: agreed to before these facts were kept."
        client, tools = record.agreed["client"], record.agreed["tools"]
        source = OAuthClient.RegistrationSource(client["source"]).label
        name, host = client["name"] or "without a name", client["host"] or "no host"
        lines = [
            f"Client: {name}, {host} ({source})",
            f"Sends people to: {', '.join(client['redirect_hosts'])}",
            f"Upstreams: {', '.join(record.agreed['upstreams']) or 'none'}",
            f"Tools known then: {tools['count'] or 'none yet'}",
        ]
        named = tools.get("names", {})
        lines += [f"Tools of {key}: {', '.join(names)}" for key, names in named.items()]
        return "\n".join([*lines, f"Digest of what they said: {tools['digest'][:16]}"])

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Offer to revoke on the record's own page too; the list's action asks and does it."""
        record = self.get_object(request, unquote(object_id or ""))
        stands = record is not None and record.revoked_at is None
        may = stands and self.has_revoke_permission(request)
        context = {**(extra_context or {}), "may_revoke": may}
        return super().changeform_view(request, object_id, form_url, context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ConsentRecord]:
        """Fetch what the list prints in one query."""
        return super().get_queryset(request).select_related("user", "client")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only the person themselves can consent."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ConsentRecord | None = None) -> bool:
        """A consent is a record of what was agreed to."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ConsentRecord | None = None) -> bool:
        """Revoking keeps the record."""
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Revoking is the right of who may change consents, although no form changes one."""
        return request.user.has_perm("consent.change_consentrecord")

    @admin.action(description="Revoke: the client's tokens stop working", permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ConsentRecord]) -> None:
        """Take back every selected consent that still stands."""
        assert isinstance(request.user, User)
        address = str(request.META.get("REMOTE_ADDR", ""))
        standing = list(queryset.filter(revoked_at=None).select_related("user", "client"))
        for record in standing:
            decisions.revoke(record, actor=request.user, address=address)
        messages.success(request, f"{len(standing)} revoked.")
