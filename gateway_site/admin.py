"""The site's own pages in the admin: audit trail, site profile, people, identity providers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.formats import localize
from django.utils.html import format_html_join
from oauth2_provider.models import (
    get_access_token_model,
    get_grant_model,
    get_id_token_model,
    get_refresh_token_model,
)

from gateway_site import audit_trail, people_actions, people_forms, people_sessions, rights
from gateway_site.audit_kinds import words_for
from gateway_site.identity import roles
from gateway_site.models import AuditEvent, SiteProfile

# The classes are generic for the type checker only.
if TYPE_CHECKING:
    _AuditAdmin = admin.ModelAdmin[AuditEvent]
    _ProfileAdmin = admin.ModelAdmin[SiteProfile]
    _FactorAdmin = admin.ModelAdmin[Authenticator]
    _UserAdmin = UserAdmin[User]
else:
    _AuditAdmin = _ProfileAdmin = _FactorAdmin = admin.ModelAdmin
    _UserAdmin = UserAdmin

_RIGHTS = ("is_staff", "is_superuser", "user_permissions")

# These libraries register pages of their own, which would show secrets and bypass the actions.
for _library in (
    *("allauth.account", "allauth.socialaccount", "allauth.mfa", "allauth.usersessions"),
    "oauth2_provider",
):
    import_module(f"{_library}.admin")
for _model in (
    *(SocialApp, SocialToken, SocialAccount, EmailAddress, Authenticator, User, Group),
    UserSession,
    *(get_access_token_model(), get_refresh_token_model(), get_grant_model()),
    get_id_token_model(),
):
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)

# Registers its pages, after those of the libraries are gone.
for _pages in ("provider_admin", "scim_admin"):
    import_module(f"gateway_site.{_pages}")


class EventFilter(admin.SimpleListFilter):
    """What happened, in words; only what has happened is offered."""

    title = "what happened"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the kinds that the trail has, by their words."""
        kinds = AuditEvent.objects.order_by().values_list("kind", flat=True).distinct()
        return sorted(((kind, words_for(kind)) for kind in kinds), key=lambda k: k[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep events of the chosen kind."""
        return queryset.filter(kind=self.value()) if self.value() else queryset


def _plain(value: Any) -> str:
    """Write a fact of an event for people; lists and what is inside of others in one line."""
    if isinstance(value, dict):
        said = (f"{name.replace('_', ' ')} {_plain(inner)}" for name, inner in value.items())
        return "; ".join(said) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "") else str(value)


@admin.register(AuditEvent)
class AuditEventAdmin(_AuditAdmin):
    """The audit trail: to read, filter and search; never to write."""

    list_display = ["at", "event", "actor", "address"]
    list_filter = [EventFilter]
    search_fields = ["actor", "target", "kind", "address"]
    date_hierarchy = "at"
    list_per_page = 50
    fields = ["at", "event", "who", "address", "facts", "kind"]
    readonly_fields = ["at", "event", "who", "facts"]

    @admin.display(description="What happened")
    def event(self, event: AuditEvent) -> str:
        """Say the event in words."""
        return str(event)

    @admin.display(description="Who")
    def who(self, event: AuditEvent) -> str:
        """Name the account, which may be gone by now or called otherwise."""
        if not event.actor:
            return "The gateway, or nobody known"
        return f"{event.actor} (account {event.user_id})" if event.user_id else event.actor

    @admin.display(description="Further facts")
    def facts(self, event: AuditEvent) -> str:
        """List what else is known, a line each."""
        lines = [(name.replace("_", " "), _plain(value)) for name, value in event.details.items()]
        return format_html_join("", "<div>{}: {}</div>", lines) or "None"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Events are written by what happens."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: AuditEvent | None = None) -> bool:
        """Nobody changes the past."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AuditEvent | None = None) -> bool:
        """Retention is a setting, not a button."""
        return False


@admin.register(SiteProfile)
class SiteProfileAdmin(_ProfileAdmin):
    """The one row of settings; opening the list opens it."""

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form at once."""
        profile = SiteProfile.objects.order_by("pk").first() or SiteProfile.objects.create()
        return self.change_view(request, str(profile.pk), extra_context=extra_context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """There is one."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SiteProfile | None = None) -> bool:
        """There is always one."""
        return False

    def save_model(self, request: HttpRequest, obj: SiteProfile, form: Any, change: bool) -> None:
        """Save through the action."""
        values = {name: form.cleaned_data[name] for name in form.changed_data}
        people_actions.update_site(obj, values, actor=request.user)


@admin.register(User)
class PersonAdmin(_UserAdmin):
    """People who may sign in, with what they are connected to."""

    list_display = ("username", "email", "is_staff", "is_active", "sign_in_methods", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser", "groups")
    form = people_forms.PersonForm
    actions = ["sign_out_everywhere"]
    readonly_fields = ("browser_sessions", "last_login", "date_joined")
    fieldsets = (*(UserAdmin.fieldsets or ()), ("Sessions", {"fields": ("browser_sessions",)}))

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Add what tells whether somebody else changed the account while the page was open."""
        found = super().get_fieldsets(request, obj)
        if obj is None or not self.has_change_permission(request, obj):
            return found
        *others, (title, sessions) = found
        fields = (*sessions["fields"], people_forms.AS_SHOWN)
        return (*others, (title, {**sessions, "fields": fields}))

    def get_object(self, request: HttpRequest, *args: Any, **kwargs: Any) -> User | None:
        """Read a person; for a change as they are now, and nobody else changes them until the end.

        Saving writes the whole row, so what a provider changes meanwhile has to wait for it.
        """
        found = super().get_object(request, *args, **kwargs)
        if found is None or request.method != "POST":
            return found
        try:
            roles.locked(found)
        except User.DoesNotExist:
            return None
        return super().get_object(request, *args, **kwargs)

    @admin.display(description="Signs in with")
    def sign_in_methods(self, user: User) -> str:
        """Name password, providers and second factor."""
        methods = ["password"] if user.has_usable_password() else []
        methods += list(
            SocialAccount.objects.filter(user=user)
            .order_by("provider")
            .values_list("provider", flat=True)
        )
        if Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists():
            methods.append("second factor")
        return ", ".join(methods) or "nothing"

    @admin.display(description="Signed in at")
    def browser_sessions(self, user: User) -> str:
        """List the person's browser sessions."""
        listed = people_sessions.sessions_of(user)
        rows = [(s.browser, s.address, localize(s.last_seen)) for s in listed]
        return format_html_join("", "<p>{}, {}, last seen {}</p>", rows) or "nowhere"

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Nobody changes whoever may do more than they."""
        mine = obj is None or rights.may_change_person(request.user, obj)
        return mine and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """As with changing."""
        mine = obj is None or rights.may_change_person(request.user, obj)
        return mine and super().has_delete_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Only full administrators decide who administers, and what they may do."""
        fixed = super().get_readonly_fields(request, obj)
        return fixed if rights.has_all(request.user) else (*fixed, *_RIGHTS)

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        """Offer the groups that carry nothing beyond one's own permissions."""
        if db_field.name == "groups":
            kwargs["queryset"] = rights.groups_within(request.user)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Leave people in the groups that were not offered."""
        if "groups" in form.cleaned_data:
            offered = rights.groups_within(request.user).values("pk")
            kept = form.instance.groups.exclude(pk__in=offered)
            form.cleaned_data["groups"] = [*form.cleaned_data["groups"], *kept]
        super().save_related(request, form, formsets, change)

    @admin.action(
        description="Sign out everywhere: browsers and assistants", permissions=["change"]
    )
    def sign_out_everywhere(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """End every session and token of these people."""
        theirs = [one for one in queryset if rights.may_change_person(request.user, one)]
        for person in theirs:
            people_actions.end_access(person, actor=request.user)
        self.message_user(request, f"{len(theirs)} people are signed out everywhere.")
        if len(theirs) < len(queryset):
            self.message_user(
                request,
                "Who may do more here than you is left as they were: ask a full administrator.",
                messages.WARNING,
            )

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Save, keep the sign-in address in step, and audit."""
        super().save_model(request, obj, form, change)
        if not change or "email" in form.changed_data:
            people_actions.keep_address(obj)
        if change and "is_active" in form.changed_data and not obj.is_active:
            people_actions.end_access(obj, actor=request.user)
        fields = [name for name in form.changed_data if "password" not in name]
        details = {"fields": fields, "created": not change}
        audit_trail.record(
            "person.changed", user=request.user, target=obj.username, details=details
        )

    @transaction.atomic
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:
        """Set or take away a person's password, and audit."""
        row = self.get_object(request, unquote(id))
        before = row.password if row is not None else ""
        answer = super().user_change_password(request, id, form_url)
        if row is not None and not User.objects.filter(pk=row.pk, password=before).exists():
            audit_trail.record("person.password_changed", user=request.user, target=row.username)
        return answer

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        """Delete through the action."""
        people_actions.delete_person(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Delete each through the action."""
        for person in queryset:
            people_actions.delete_person(person, actor=request.user)


@admin.register(Group)
class PeopleGroupAdmin(GroupAdmin):
    """Groups, which decide who may use which Virtual MCP."""

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        """Nobody changes a group that gives more than they have."""
        mine = obj is None or rights.may_change_group(request.user, obj)
        return mine and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        """As with changing."""
        mine = obj is None or rights.may_change_group(request.user, obj)
        return mine and super().has_delete_permission(request, obj)

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        """Offer one's own permissions."""
        if db_field.name == "permissions":
            kwargs["queryset"] = rights.permissions_within(request.user)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Group, form: Any, change: bool) -> None:
        """Save and audit."""
        super().save_model(request, obj, form, change)
        audit_trail.record("group.changed", user=request.user, target=obj.name)

    def delete_model(self, request: HttpRequest, obj: Group) -> None:
        """Delete through the action."""
        people_actions.delete_group(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Group]) -> None:
        """Delete each through the action."""
        for group in queryset:
            people_actions.delete_group(group, actor=request.user)


@admin.register(Authenticator)
class SecondFactorAdmin(_FactorAdmin):
    """Second factors: to see who has one, and to remove a lost one."""

    list_display = ["user", "type", "created_at", "last_used_at"]
    list_filter = ["type"]
    search_fields = ["user__username", "user__email"]
    fields = ["user", "type", "created_at", "last_used_at"]
    readonly_fields = ["user", "type", "created_at", "last_used_at"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """People add their own."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        """Its secret is nobody's business."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Authenticator | None = None) -> bool:
        """Not of whoever may do more."""
        mine = obj is None or rights.may_change_person(request.user, obj.user)
        return mine and super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: Authenticator) -> None:
        """Remove and audit."""
        target = f"{obj.user} ({obj.type})"
        obj.delete()
        audit_trail.record("person.second_factor_removed", user=request.user, target=target)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Authenticator]) -> None:
        """Remove each."""
        for factor in queryset:
            self.delete_model(request, factor)
