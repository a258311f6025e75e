"""Identity providers in the admin: set up by preset, checked and tested step by step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from allauth.socialaccount.models import SocialApp
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from gateway_site import identity_recheck, people_actions, rights
from gateway_site.identity import provider_trial
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.presets import PRESETS
from gateway_site.identity.provider_facts import facts_of
from gateway_site.identity.provider_trial import Step
from gateway_site.models import GroupMapping
from gateway_site.provider_forms import GroupMappingForm, GroupMappingFormSet, IdentityProviderForm
from gateway_site.sign_in import SocialAccountAdapter

# The classes are generic for the type checker only.
if TYPE_CHECKING:
    _ProviderAdmin = admin.ModelAdmin[SocialApp]
    _MappingInline = admin.TabularInline[GroupMapping, SocialApp]
else:
    _ProviderAdmin = admin.ModelAdmin
    _MappingInline = admin.TabularInline


class GroupMappingInline(_MappingInline):
    """Which of the provider's groups give which of the gateway's."""

    model = GroupMapping
    form = GroupMappingForm
    formset = GroupMappingFormSet
    extra = 0
    autocomplete_fields = ["group"]
    verbose_name = "group mapping"
    verbose_name_plural = "Group mapping: at each sign-in people get exactly these groups"


@admin.register(SocialApp)
class IdentityProviderAdmin(_ProviderAdmin):
    """OpenID Connect providers; the client secret can be written and never read."""

    form = IdentityProviderForm
    inlines = [GroupMappingInline]
    change_form_template = "admin/gateway_site/provider_form.html"
    list_display = ["name", "provider_id", "server_url", "client_id"]
    readonly_fields = ["redirect_uri", "sign_out_address", "asked_about", "about_kinds"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "preset",
                    "server_url",
                    "client_id",
                    "client_secret",
                    "name",
                    "provider_id",
                    "redirect_uri",
                    "about_kinds",
                ]
            },
        ),
        (
            "Who may come in",
            {"fields": ["allowed_domains", "allowed_groups", "only_known_people"]},
        ),
        ("Groups", {"fields": ["groups_claim", "groups_by_name"]}),
        ("Who left the company", {"fields": ["recheck_minutes", "asked_about", "sign_in_days"]}),
        (
            "Signing out",
            {"fields": ["sign_out_address", "sign_out_ends_access", "sign_out_there"]},
        ),
        (
            "Administrators by their groups there",
            {"classes": ["collapse"], "fields": ["staff_groups", "administrator_groups"]},
        ),
        (
            "Further settings",
            {"classes": ["collapse"], "fields": ["trust_addresses", "scopes", "sign_in_domains"]},
        ),
    ]

    @admin.display(description="Issuer")
    def server_url(self, app: SocialApp) -> str:
        """Return the provider's address."""
        return str(app.settings.get("server_url", ""))

    @admin.display(description="Redirect URI to register at the provider")
    def redirect_uri(self, app: SocialApp) -> str:
        """Return the callback address, once the provider has its id."""
        if not app.provider_id:
            form = f"{settings.PUBLIC_URL}/accounts/oidc/<id>/login/callback/"
            return format_html("<code>{}</code>", form)
        if app.provider == "saml":
            saml = f"{settings.PUBLIC_URL}/accounts/saml/{app.provider_id}"
            return format_html(
                "Reply address (ACS) <code>{0}/acs/</code><br>Entity ID and metadata "
                "<code>{0}/metadata/</code><br>Single logout <code>{0}/sls/</code>",
                saml,
            )
        address = reverse("openid_connect_callback", kwargs={"provider_id": app.provider_id})
        return format_html("<code>{}</code>", settings.PUBLIC_URL + address)

    @admin.display(description="Back-channel logout URI to enter at the provider")
    def sign_out_address(self, app: SocialApp) -> str:
        """Return where the provider says that somebody signed out there."""
        if app.provider == "saml":
            return "Only OpenID Connect providers use one."
        name = "openid_connect_backchannel_logout"
        path = reverse(name, kwargs={"provider_id": app.provider_id or "ID"})
        address = settings.PUBLIC_URL + path
        return format_html("<code>{}</code>", address)

    @admin.display(description="People it is asked about")
    def asked_about(self, app: SocialApp) -> str:
        """Say of how many people the provider can't be asked, and what to do."""
        step = _recheck_step(app) if app.pk else None
        return step.text if step is not None else "Nobody."

    @admin.display(description="What each kind asks for")
    def about_kinds(self, app: SocialApp) -> str:
        """Say what to enter as the issuer; of a stored provider, what is to know of its kind."""
        if app.pk:
            notes = facts_of(app).preset.notes
            return _list([(note,) for note in notes], "{}") if notes else "Nothing special."
        rows = [(p.title, p.asks_for, p.example) for p in PRESETS.values()]
        return _list(rows, "{}: {} <code>{}</code>")

    def has_view_permission(self, request: HttpRequest, obj: SocialApp | None = None) -> bool:
        """A provider says who people are, full administrators among them: it is theirs alone."""
        return rights.has_all(request.user) and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """As with looking."""
        return rights.has_all(request.user) and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: SocialApp | None = None) -> bool:
        """As with looking."""
        return rights.has_all(request.user) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: SocialApp | None = None) -> bool:
        """As with looking."""
        return rights.has_all(request.user) and super().has_delete_permission(request, obj)

    def get_queryset(self, request: HttpRequest) -> QuerySet[SocialApp]:
        """Show only what sign-in uses."""
        return super().get_queryset(request).filter(provider__in=("openid_connect", "saml"))

    def save_model(self, request: HttpRequest, obj: SocialApp, form: Any, change: bool) -> None:
        """Save through the action."""
        values = {n: form.cleaned_data[n] for n in ("name", "provider_id", "client_id")}
        values["settings"] = form.new_settings()
        people_actions.save_identity_provider(
            obj, values, secret=form.cleaned_data["client_secret"] or None, actor=request.user
        )

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Store the mapping through the action."""
        pairs = {
            (row.cleaned_data["claim_value"], row.cleaned_data["group"])
            for formset in formsets
            for row in formset.forms
            if row.cleaned_data.get("group") and row not in formset.deleted_forms
        }
        people_actions.set_group_mapping(form.instance, pairs, actor=request.user)

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> list[dict[str, Any]]:
        """Say little here: the details are in the audit trail."""
        return [{"added": {}}] if add else [{"changed": {"fields": form.changed_data}}]

    def delete_model(self, request: HttpRequest, obj: SocialApp) -> None:
        """Delete through the action."""
        people_actions.delete_identity_provider(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[SocialApp]) -> None:
        """Delete each through the action."""
        for app in queryset:
            people_actions.delete_identity_provider(app, actor=request.user)

    def get_urls(self) -> list[Any]:
        """Add the address of the test."""
        view = self.admin_site.admin_view(require_POST(self.test))
        own = path("<int:app_id>/test/", view, name="identity_provider_test")
        return [own, *super().get_urls()]

    def test(self, request: HttpRequest, app_id: int) -> HttpResponse:
        """Check the provider, or go there for a sign-in that signs nobody in.

        Raises:
            PermissionDenied: not for this person.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied("Only a full administrator can test an identity provider.")
        app = get_object_or_404(self.get_queryset(request), pk=app_id)
        if request.POST.get("step") != "sign-in":
            step = _recheck_step(app)
            return provider_trial.show_steps(request, app, [step] if step is not None else [])
        provider = SocialAccountAdapter(request).get_provider(request, app.provider_id)
        try:
            answer: HttpResponse = provider.redirect(request, provider_trial.PROCESS)
        except ProviderFault as fault:
            return provider_trial.failure(request, app, str(fault))
        return answer


def _recheck_step(app: SocialApp) -> Step | None:
    """Return whom the provider can be asked about; None where it is not asked."""
    facts = facts_of(app)
    if app.provider == "saml" or not facts.recheck_minutes:
        return None
    people, unknown = identity_recheck.out_of_reach(facts)
    title = "Asking again"
    if not unknown:
        return Step(title, "ok", f"About all {people} of its people who use the gateway now.")
    text = (
        f"About {people - unknown} of {people} people who use the gateway now. Of the other "
        f"{unknown} no refresh token is kept: that they left, or changed groups, is noticed only "
        "when they sign in again. Have them do that (People, Sign out everywhere). If new sign-ins "
        "leave no refresh token either, allow this client at the provider the scope "
        "offline_access or the refresh token grant, and set Sign in again after … days."
    )
    return Step(title, "warn", text)


def _list(rows: Sequence[tuple[str, ...]], form: str) -> SafeString:
    items = format_html_join("", f"<li>{form}</li>", rows)
    return format_html("<ul>{}</ul>", items)


SocialApp._meta.verbose_name = "identity provider"
SocialApp._meta.verbose_name_plural = "identity providers"
