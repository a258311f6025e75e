"""Virtual MCPs and the call log in the admin. Every change goes through ``actions``."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import Count, QuerySet
from django.forms import Form, ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from virtualmcp import actions
from virtualmcp.admin_forms import (
    AccessRuleForm,
    AccessRuleFormSet,
    UpstreamChoiceForm,
    UpstreamChoiceFormSet,
    VirtualMcpForm,
)
from virtualmcp.call_record_admin import CallRecordAdmin
from virtualmcp.definition_admin import ToolDefinitionAdmin
from virtualmcp.models import (
    AccessRule,
    CallRecord,
    PublicName,
    ToolDefinition,
    UpstreamChoice,
    VirtualMcp,
)
from virtualmcp.public_name_admin import PublicNameAdmin
from virtualmcp.route_table import resource_of

# The classes are generic for the type checker only.
if TYPE_CHECKING:
    _ServerAdmin = admin.ModelAdmin[VirtualMcp]
    _ChoiceInline = admin.StackedInline[UpstreamChoice, VirtualMcp]
    _RuleInline = admin.TabularInline[AccessRule, VirtualMcp]
    _ServerModelForm = ModelForm[VirtualMcp]
else:
    _ServerAdmin = admin.ModelAdmin
    _ChoiceInline = admin.StackedInline
    _RuleInline = admin.TabularInline
    _ServerModelForm = ModelForm


def _actor(request: HttpRequest) -> User:
    user = request.user
    assert isinstance(user, User)
    return user


def _what_is_missing(row: VirtualMcp) -> list[str]:
    """Say why nobody gets anything of it, or of one of its upstreams."""
    said = []
    choices = list(row.choices.select_related("upstream"))
    if not choices:
        said.append(
            f"{row.title} has no upstream, so it offers nothing: clients connect and see no "
            "tool. Add one under Upstreams."
        )
    said += [
        f"{row.title} offers no tool of {choice.upstream.title}: only the chosen ones are "
        "offered, and none is chosen. Choose some, or all tools, under Upstreams."
        for choice in choices
        if choice.tool_mode == UpstreamChoice.ToolMode.CHOSEN and not choice.chosen_tools
    ]
    if row.audience == VirtualMcp.Audience.GROUPS and not row.groups.exists():
        said.append(
            f"Nobody may use {row.title} yet: it is for chosen groups, and none is chosen. "
            "Choose groups, or everyone, under Who may use it."
        )
    return said


class UpstreamChoiceInline(_ChoiceInline):
    """The upstreams of a Virtual MCP."""

    model = UpstreamChoice
    form = UpstreamChoiceForm
    formset = UpstreamChoiceFormSet
    extra = 0
    fields = [
        ("upstream", "position", "required"),
        "tool_mode",
        "picked_tools",
        "other_tools",
        ("read_only_tools", "changing_tools"),
        "repeatable_tools",
        ("may_sample", "may_list_roots"),
    ]
    verbose_name = "upstream"
    verbose_name_plural = "Upstreams, in the order in which their tools are listed"

    def get_extra(self, request: HttpRequest, obj: VirtualMcp | None = None, **more: Any) -> int:
        """Have the first one ready on a new server: without any it offers nothing."""
        return 1 if obj is None else 0


class AccessRuleInline(_RuleInline):
    """Which groups alone may use some of it."""

    model = AccessRule
    form = AccessRuleForm
    formset = AccessRuleFormSet
    extra = 0
    fields = ["upstream", "named_tools", "groups"]
    verbose_name = "access rule"
    verbose_name_plural = (
        "Access rules: what is only for some groups. What no rule names is open to everybody who "
        "may use the server"
    )


@admin.register(VirtualMcp)
class VirtualMcpAdmin(_ServerAdmin):
    """What is offered at one address, and to whom."""

    form = VirtualMcpForm
    inlines = [UpstreamChoiceInline, AccessRuleInline]
    list_display = ["title", "address", "audience", "enabled", "upstream_count"]
    list_filter = ["enabled", "audience"]
    search_fields = ["title", "slug"]
    filter_horizontal = ["groups"]
    prepopulated_fields = {"slug": ["title"]}
    fieldsets = [
        ("The server", {"fields": ["title", "slug", "description", "enabled", "address"]}),
        ("Who may use it", {"fields": ["audience", "groups"]}),
        ("What clients are told", {"fields": ["instructions"], "classes": ["collapse"]}),
        (
            "When upstreams add or change tools",
            {"fields": ["new_definitions", "changed_definitions"], "classes": ["collapse"]},
        ),
        (
            "What people are asked",
            {"fields": ["step_up", "ask_again"], "classes": ["collapse"]},
        ),
        (
            "Names and addresses",
            {"fields": ["naming", "names", "argument_uris"], "classes": ["collapse"]},
        ),
        ("MCP Apps", {"fields": ["app_domains"], "classes": ["collapse"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[VirtualMcp]:
        """Count the upstreams in the same query."""
        return super().get_queryset(request).annotate(choice_count=Count("choices"))

    def get_readonly_fields(
        self, request: HttpRequest, obj: VirtualMcp | None = None
    ) -> tuple[str, ...]:
        """The slug stands fast once clients were given it."""
        return ("address", "names") if obj is None else ("slug", "address", "names")

    def get_prepopulated_fields(
        self, request: HttpRequest, obj: VirtualMcp | None = None
    ) -> dict[str, Any]:
        """Suggest a slug for a new one only."""
        return {"slug": ["title"]} if obj is None else {}

    @admin.display(description="Upstreams", ordering="choice_count")
    def upstream_count(self, row: VirtualMcp) -> int:
        """Return how many upstreams are chosen."""
        return int(getattr(row, "choice_count", 0))

    @admin.display(description="Address for clients")
    def address(self, row: VirtualMcp) -> str:
        """Show the address to copy, and where connecting is explained."""
        if row.pk is None:
            return "It is shown here once the server is saved."
        guide = reverse("virtualmcp:connect_guide", args=[row.slug])
        return format_html(
            '<code>{}</code> · <a href="{}">How to connect</a>', resource_of(row.slug), guide
        )

    @admin.display(description="Names in use")
    def names(self, row: VirtualMcp) -> str:
        """Lead to the pages on which something gets another name."""
        if row.pk is None or not row.names.exists():
            return "They are listed here once a client has listed the tools."
        page = reverse("admin:virtualmcp_publicname_changelist")
        query = f"?virtual_mcp__id__exact={row.pk}"
        return format_html('<a href="{}{}">See them, or give another name</a>', page, query)

    def save_model(
        self, request: HttpRequest, obj: VirtualMcp, form: _ServerModelForm, change: bool
    ) -> None:
        """Leave the row to ``save_related``, which knows the upstreams too."""

    def save_related(
        self, request: HttpRequest, form: _ServerModelForm, formsets: Any, change: bool
    ) -> None:
        """Store everything in one action, so that the audit trail has one entry."""
        assert isinstance(form, VirtualMcpForm)
        parts: dict[str, Any] = {"groups": form.groups(), "actor": _actor(request)}
        for formset in formsets:
            if isinstance(formset, AccessRuleFormSet):
                parts["rules"] = formset.rules()
            else:
                parts["choices"] = formset.choices()
        data, row = form.data_for_action(), form.instance
        if change:
            actions.update_virtual_mcp(row, data, **parts)
        else:
            row.pk = actions.create_virtual_mcp(data, **parts).pk
            row.refresh_from_db()
        for words in _what_is_missing(row):
            self.message_user(request, words, messages.WARNING)

    def construct_change_message(
        self, request: HttpRequest, form: Form, formsets: Any, add: bool = False
    ) -> list[dict[str, Any]]:
        """Say little here: the details are in the audit trail."""
        return [{"added": {}}] if add else [{"changed": {"fields": form.changed_data}}]

    def delete_model(self, request: HttpRequest, obj: VirtualMcp) -> None:
        """Delete through the action."""
        actions.delete_virtual_mcp(obj, actor=_actor(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[VirtualMcp]) -> None:
        """Delete each through the action."""
        for row in queryset:
            actions.delete_virtual_mcp(row, actor=_actor(request))


admin.site.register(PublicName, PublicNameAdmin)
admin.site.register(ToolDefinition, ToolDefinitionAdmin)
admin.site.register(CallRecord, CallRecordAdmin)
