"""Upstreams in the admin. Every change goes through ``actions``; no page shows a secret."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.contrib.humanize.templatetags.humanize import naturaltime
from django.db.models import Count, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils.formats import date_format
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_POST

from upstreams import accounts, actions, health_probe
from upstreams.admin_accounts import AccountPages, LastUsed
from upstreams.admin_forms import UpstreamForm
from upstreams.admin_onboarding import OnboardingPages
from upstreams.admin_traces import traces_link
from upstreams.client_documents import callback_url
from upstreams.database_calls import in_thread
from upstreams.health_words import health_facts, health_line
from upstreams.models import CredentialKind, Upstream, UpstreamAccount, UpstreamClient

# The classes are generic for the type checker only.
if TYPE_CHECKING:
    _ModelForm = ModelForm[Upstream]
    _ClientAdmin = admin.ModelAdmin[UpstreamClient]
else:
    _ModelForm = ModelForm
    _ClientAdmin = admin.ModelAdmin


# What the gateway found out about an upstream by itself.
FOUND = ("condition", "health_lately", "traces", "detected_era", "detected_revision")


def _actor(request: HttpRequest) -> User:
    user = request.user
    assert isinstance(user, User)
    return user


class EraFilter(admin.SimpleListFilter):
    """Which revisions of the protocol an upstream was found to speak."""

    title = "protocol"
    parameter_name = "era"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices."""
        return [
            ("modern", "Stateless (2026-07-28)"),
            ("legacy", "Stateful (to 2025-11-25)"),
            ("unknown", "Not known yet"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Upstream]) -> QuerySet[Upstream]:
        """Return the upstreams of the choice."""
        wanted = self.value()
        if not wanted:
            return queryset
        return queryset.filter(detected_era="" if wanted == "unknown" else wanted)


@admin.register(Upstream)
class UpstreamAdmin(OnboardingPages):
    """Remote MCP servers, in the order in which an administrator sets one up."""

    form = UpstreamForm
    change_form_template = "upstreams/admin/change_form.html"
    list_display = [
        "title",
        "condition",
        "enabled",
        "credential_kind",
        "accounts_made",
        "url",
    ]
    prepopulated_fields = {"key": ["title"]}
    list_filter = ["enabled", "credential_kind", EraFilter]
    search_fields = ["title", "key", "url"]
    readonly_fields = ["redirect_uri", *FOUND]
    actions = ["switch_on", "switch_off", "disconnect_everybody"]
    fieldsets = [
        (
            "The server",
            {
                "fields": [
                    "title",
                    "key",
                    "description",
                    "url",
                    "enabled",
                    "condition",
                    "health_lately",
                    "traces",
                ]
            },
        ),
        (
            "How people are let in",
            {
                "fields": [
                    "credential_kind",
                    "new_fixed_credential",
                    "remove_fixed_credential",
                    "credential_placement",
                    "credential_name",
                    "credential_prefix",
                    "user_key_help",
                    "new_further_headers",
                    "remove_further_headers",
                ],
                "description": "Placement, name, prefix and help matter only where a key is sent: "
                "one fixed key, or each person's own.",
            },
        ),
        (
            "OAuth",
            {
                "fields": [
                    "redirect_uri",
                    "oauth_client_id",
                    "new_oauth_client_secret",
                    "remove_oauth_client_secret",
                    "oauth_auth_method",
                    "oauth_scopes",
                    "oauth_scope_delimiter",
                    "oauth_issuer",
                    "oauth_allowed_hosts",
                    "oauth_resource",
                    "oauth_send_resource",
                    "oauth_extra_authorize_parameters",
                    "oauth_allow_missing_pkce",
                ],
                "description": "Leave everything empty first: most servers register the gateway "
                "by themselves. Test the connection to see whether this one does.",
                "classes": ["collapse"],
            },
        ),
        (
            "Enterprise-managed",
            {
                "fields": [
                    "enterprise_token_url",
                    "enterprise_provider",
                    "enterprise_client_id",
                    "new_enterprise_client_secret",
                    "remove_enterprise_client_secret",
                    "enterprise_auth_method",
                    "enterprise_subject_token",
                    "enterprise_audience",
                    "enterprise_audience_parameter",
                    "enterprise_resource_parameter",
                ],
                "description": "For the kind “sign-in at the company”: the identity provider "
                "vouches for each person at the upstream, and nobody connects anything.",
                "classes": ["collapse"],
            },
        ),
        (
            "Network and protocol",
            {
                "fields": [
                    "private_network",
                    "era",
                    "session_scope",
                    "detected_era",
                    "detected_revision",
                    "call_timeout",
                    "list_timeout",
                    "max_in_flight",
                    "max_answer_mib",
                    "sampling_per_minute",
                    "sampling_tokens_per_day",
                ],
                "classes": ["collapse"],
            },
        ),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Upstream | None = None) -> Any:
        """Leave out of a new one what only an existing one has to tell."""
        sets = super().get_fieldsets(request, obj)
        if obj is not None:
            return sets
        return [
            (title, {**parts, "fields": [name for name in parts["fields"] if name not in FOUND]})
            for title, parts in sets
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upstream]:
        """Read the health and count the accounts in the same query."""
        rows = super().get_queryset(request).select_related("health")
        return rows.annotate(account_count=Count("accounts"))

    @admin.display(description="Accounts", ordering="account_count")
    def accounts_made(self, upstream: Upstream) -> int:
        """Return how many people have an account."""
        return int(getattr(upstream, "account_count", 0))

    @admin.display(description="Redirect URI to register")
    def redirect_uri(self, upstream: Upstream) -> str:
        """Return what an administrator copies to the authorization server."""
        return callback_url()

    @admin.display(description="Health")
    def condition(self, upstream: Upstream) -> str:
        """Say how it does, and on its own page since when and why."""
        line = health_line(upstream)
        ago = f" ({naturaltime(line.checked_at)})" if line.checked_at else ""
        said = f"{line.words.capitalize()}{ago}"
        return f"{said}. {line.detail}" if line.detail else said

    @admin.display(description="OAuth traces")
    def traces(self, upstream: Upstream) -> str:
        """Return the link to what was sent and received lately."""
        return traces_link(upstream) if upstream.pk else "None yet"

    @admin.display(description="Lately")
    def health_lately(self, upstream: Upstream) -> str:
        """Return the last success and the last real error."""
        lines = [
            (name, date_format(value, "DATETIME_FORMAT") if isinstance(value, datetime) else value)
            for name, value in health_facts(upstream)
        ]
        return format_html_join(mark_safe("<br>"), "{}: {}", lines) or "Nothing yet"

    def save_model(
        self, request: HttpRequest, obj: Upstream, form: _ModelForm, change: bool
    ) -> None:
        """Store the row and, if given, its secrets."""
        assert isinstance(form, UpstreamForm)
        form.store(obj, actor=_actor(request), change=change)
        if obj.credential_kind == CredentialKind.FIXED and not obj.sealed_fixed_credential:
            self.message_user(
                request,
                f"{obj.title} is used with one credential for everybody, and none is stored yet: "
                "every call fails until you enter it under Shared credential.",
                messages.WARNING,
            )

    def delete_model(self, request: HttpRequest, obj: Upstream) -> None:
        """Delete through the action."""
        actions.delete_upstream(obj, _actor(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Upstream]) -> None:
        """Delete each through the action."""
        for upstream in queryset:
            actions.delete_upstream(upstream, _actor(request))

    def get_urls(self) -> list[Any]:
        """Add the address of the test."""

        @require_POST
        async def test(request: HttpRequest, upstream_id: int) -> HttpResponse:
            return await self.test_connection(request, upstream_id)

        own = path("<int:upstream_id>/test/", test, name="upstreams_upstream_test")
        return [own, *super().get_urls()]

    async def test_connection(self, request: HttpRequest, upstream_id: int) -> HttpResponse:
        """Run the probe and show each step.

        Not one of the site's usual views: those share one thread, and a server that takes
        its time would keep everybody else waiting. So the right is checked here.
        """
        upstream = await in_thread(self._to_test, request, upstream_id)
        if upstream is None:
            return HttpResponseRedirect(reverse("admin:upstreams_upstream_changelist"))
        report = await health_probe.probe(upstream, _actor(request))
        return await in_thread(self._show_report, request, upstream, report)

    def _to_test(self, request: HttpRequest, upstream_id: int) -> Upstream | None:
        """Return the upstream if this person may change it (blocking)."""
        upstream = Upstream.objects.filter(pk=upstream_id).first()
        allowed = self.admin_site.has_permission(request)
        return upstream if allowed and self.has_change_permission(request, upstream) else None

    def _show_report(
        self, request: HttpRequest, upstream: Upstream, report: health_probe.ProbeReport
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"Test of {upstream.title}",
            "opts": self.opts,
            "upstream": upstream,
            "report": report,
        }
        return render(request, "upstreams/admin/test_connection.html", context)

    @admin.action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: QuerySet[Upstream]) -> None:
        """Enable the selected upstreams."""
        self._switch(request, queryset, enabled=True)

    @admin.action(description="Switch off: nobody can use them", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[Upstream]) -> None:
        """Disable the selected upstreams."""
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, chosen: QuerySet[Upstream], *, enabled: bool) -> None:
        for upstream in chosen:
            actions.update_upstream(upstream, {"enabled": enabled}, _actor(request))
        word = "on" if enabled else "off"
        self.message_user(request, f"{len(chosen)} switched {word}.", messages.SUCCESS)

    @admin.action(description="Disconnect everybody's accounts", permissions=["change"])
    def disconnect_everybody(self, request: HttpRequest, queryset: QuerySet[Upstream]) -> None:
        """Delete all accounts on the selected upstreams."""
        total = sum(
            accounts.drop_accounts(upstream, actor=_actor(request), reason="by an administrator")
            for upstream in queryset
        )
        self.message_user(request, f"{total} accounts disconnected.", messages.SUCCESS)


class _ReadOnly:
    """What the gateway made by itself is looked at here, not written."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing is added by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing is changed by hand."""
        return False


@admin.register(UpstreamClient)
class UpstreamClientAdmin(_ReadOnly, _ClientAdmin):
    """The gateway's own registrations at authorization servers."""

    list_display = ["upstream", "issuer", "registration", "client_id", "created_at", "retired_at"]
    list_filter = ["registration", "upstream"]
    fields = [
        "upstream",
        "issuer",
        "registration",
        "client_id",
        "token_endpoint_auth_method",
        "redirect_uri",
        "secret_expires_at",
        "created_at",
        "updated_at",
        "retired_at",
    ]

    def delete_model(self, request: HttpRequest, obj: UpstreamClient) -> None:
        """Forget the registration; the next connect makes a new one."""
        actions.forget_client(obj, _actor(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[UpstreamClient]) -> None:
        """Forget each."""
        for client in queryset.select_related("upstream"):
            actions.forget_client(client, _actor(request))


@admin.register(UpstreamAccount)
class UpstreamAccountAdmin(_ReadOnly, AccountPages):
    """Who has connected what; to look at and to disconnect, without any secret."""

    list_display = ["user", "upstream", "status", "account_label", "connected_at", "last_used_at"]
    list_filter = ["status", "upstream", LastUsed, "upstream__credential_kind", "user__is_active"]
    search_fields = ["user__username", "user__email", "account_label", "upstream__title"]
    list_select_related = ["user", "upstream"]
    readonly_fields = ["ending", "traces"]
    actions = ["disconnect_selected"]
    fields = [
        "user",
        "upstream",
        "status",
        "account_label",
        "issuer",
        "scope",
        "expires_at",
        "ending",
        "last_error",
        "connected_at",
        "refreshed_at",
        "last_used_at",
        "traces",
    ]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Disconnecting is the way to delete: it revokes the tokens too."""
        return False

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        """Disconnecting is the right of who may change accounts, although no form changes one."""
        return request.user.has_perm("upstreams.change_upstreamaccount")

    @admin.action(description="Disconnect", permissions=["disconnect"])
    def disconnect_selected(
        self, request: HttpRequest, queryset: QuerySet[UpstreamAccount]
    ) -> HttpResponse | None:
        """Show the selected accounts, and disconnect them once that was confirmed."""
        chosen = list(queryset.select_related("user", "upstream", "client"))
        if "confirmed" not in request.POST:
            return self.confirm_disconnecting(request, chosen)
        for account in chosen:
            accounts.disconnect(account.user, account.upstream, actor=_actor(request))
        self.message_user(request, f"{len(chosen)} disconnected.", messages.SUCCESS)
        return None
