"""OAuth clients in the admin: registered by hand, or by themselves.

Secrets are shown once, on the answer that makes them, and stored as digests. Tokens are not
here: they are ended for a client as a whole, or by each person under Connections.
"""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import oauth2_provider.admin  # noqa: F401  (registers its own page for the client model)
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from oauthserver import (  # noqa: F401  (two register pages of their own)
    actions,
    client_review,
    machine_admin,
    redirect_uris,
    vouched_admin,
)
from oauthserver.admin_forms import (
    ClientForm,
    ClientPolicyForm,
    NewClientForm,
    SelfDescribedClientForm,
)
from oauthserver.client_facts import SECRET_METHODS
from oauthserver.errors import ProtocolError
from oauthserver.models import ClientPolicy, OAuthClient

if TYPE_CHECKING:
    _ClientAdmin = admin.ModelAdmin[OAuthClient]
    _PolicyAdmin = admin.ModelAdmin[ClientPolicy]
else:
    _ClientAdmin = _PolicyAdmin = admin.ModelAdmin

if admin.site.is_registered(OAuthClient):
    admin.site.unregister(OAuthClient)


@admin.register(OAuthClient)
class OAuthClientAdmin(_ClientAdmin):
    """MCP clients that may ask people for access."""

    list_display = [
        *("shown_name", "source", "host", "enabled", "review", "approved_at", "last_used_at")
    ]
    list_filter = ["review", "registration_source", "enabled"]
    search_fields = ["name", "client_id", "redirect_uris"]
    ordering = ["-last_used_at", "-created"]
    list_per_page = 50
    view_on_site = False
    actions = ["approve", "refuse", "switch_on", "switch_off", "revoke_all", "renew_secret"]
    described = [
        *["client_id", "source", "authenticates_by", "registered_redirects", "client_uri"],
        *["software_id", "review", "review_asked_by", "reviewed_at"],
        *["created", "approved_at", "last_used_at", "cimd_expires_at"],
    ]

    def get_form(
        self, request: HttpRequest, obj: OAuthClient | None = None, change: bool = False, **kw: Any
    ) -> Any:
        """Choose the form by where the client comes from."""
        if obj is None:
            return NewClientForm
        return ClientForm if _by_hand(obj) else SelfDescribedClientForm

    def get_fieldsets(self, request: HttpRequest, obj: OAuthClient | None = None) -> Any:
        """Show what can be changed, then what the client is."""
        if obj is None:
            return [(None, {"fields": ["name", "client_id", "redirect_uris", "confidential"]})]
        changeable = ["name", "redirect_uris", "enabled"] if _by_hand(obj) else ["enabled"]
        return [(None, {"fields": changeable}), ("About this client", {"fields": self.described})]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Offer to decide about a client on its own page; the list's actions ask and do it."""
        client = self.get_object(request, unquote(object_id))
        manual = OAuthClient.RegistrationSource.MANUAL
        itself = client is not None and client.registration_source != manual
        may = itself and self.has_change_permission(request, client)
        context = {**(extra_context or {}), "may_review": may}
        return super().change_view(request, object_id, form_url, context)

    def get_readonly_fields(self, request: HttpRequest, obj: OAuthClient | None = None) -> Any:
        """Nothing of what a client is can be edited."""
        return [] if obj is None else self.described

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Let the actions do it, so that it is audited like everywhere else."""
        if not change:
            made, secret = actions.preregister_client(
                name=form.cleaned_data["name"],
                redirect_uris_allowed=form.cleaned_data["redirect_uris"].split(),
                confidential=form.cleaned_data["confidential"],
                client_id=form.cleaned_data["client_id"],
                actor=request.user,
            )
            obj.pk, obj.client_id = made.pk, made.client_id
            request.new_client_secret = secret  # type: ignore[attr-defined]
            return
        stored = OAuthClient.objects.get(pk=obj.pk)
        if _by_hand(stored):
            actions.change_client(
                stored,
                actor=request.user,
                name=form.cleaned_data["name"],
                redirect_uris_allowed=form.cleaned_data["redirect_uris"].split(),
            )
        if stored.enabled != form.cleaned_data["enabled"]:
            actions.set_client_enabled(stored, form.cleaned_data["enabled"], actor=request.user)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> Any:
        """Show the secret on the very answer, so that it is kept nowhere."""
        secret = getattr(request, "new_client_secret", None)
        if secret is None:
            return super().response_add(request, obj, post_url_continue)
        return self._secret_page(request, obj, secret)

    def delete_model(self, request: HttpRequest, obj: OAuthClient) -> None:
        """Delete a client with its tokens."""
        actions.delete_client(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[OAuthClient]) -> None:
        """Delete clients with their tokens."""
        for client in queryset:
            actions.delete_client(client, actor=request.user)

    @admin.action(
        description="Approve: admit them whatever the client policy says", permissions=["change"]
    )
    def approve(self, request: HttpRequest, queryset: QuerySet[OAuthClient]) -> None:
        """Admit clients that wait for it, or that the policy keeps out."""
        self._review(request, queryset, True)

    @admin.action(
        description="Refuse: keep them out and end all their tokens", permissions=["change"]
    )
    def refuse(self, request: HttpRequest, queryset: QuerySet[OAuthClient]) -> None:
        """Keep clients out."""
        self._review(request, queryset, False)

    @admin.action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: QuerySet[OAuthClient]) -> None:
        """Let clients work again; people have to connect them anew."""
        self._switch(request, queryset, True)

    @admin.action(description="Switch off and end all their tokens", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[OAuthClient]) -> None:
        """Stop clients at once."""
        self._switch(request, queryset, False)

    @admin.action(description="End all their tokens", permissions=["change"])
    def revoke_all(self, request: HttpRequest, queryset: QuerySet[OAuthClient]) -> None:
        """Sign clients out for everybody; they may ask again."""
        ended = sum(actions.revoke_tokens(actor=request.user, client=one) for one in queryset)
        self.message_user(request, f"{ended} tokens ended.", messages.SUCCESS)

    @admin.action(description="Give it a new secret", permissions=["change"])
    def renew_secret(
        self, request: HttpRequest, queryset: QuerySet[OAuthClient]
    ) -> HttpResponse | None:
        """Replace the secret of one client."""
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            self.message_user(request, "Choose one client.", messages.WARNING)
            return None
        try:
            secret = actions.renew_client_secret(chosen[0], actor=request.user)
        except ProtocolError as error:
            self.message_user(request, error.description, messages.ERROR)
            return None
        return self._secret_page(request, chosen[0], secret)

    @admin.display(description="Client", ordering="name")
    def shown_name(self, client: OAuthClient) -> str:
        """Name the client."""
        return client.name or client.client_id

    @admin.display(description="Comes from", ordering="registration_source")
    def source(self, client: OAuthClient) -> str:
        """Say how the client became known."""
        kinds = OAuthClient.RegistrationSource
        return {
            str(kinds.MANUAL): "Registered by an administrator",
            str(kinds.DCR): "Registered itself (not verified)",
            str(kinds.CIMD): "Metadata document",
        }[client.registration_source]

    @admin.display(description="Host")
    def host(self, client: OAuthClient) -> str:
        """Say where codes go, and for metadata documents where the client is published."""
        if client.registration_source == OAuthClient.RegistrationSource.CIMD:
            return urlsplit(client.client_id).hostname or ""
        hosts = dict.fromkeys(map(redirect_uris.host_for_people, client.redirect_uris.split()))
        return ", ".join(hosts)

    @admin.display(description="Redirect URIs")
    def registered_redirects(self, client: OAuthClient) -> str:
        """List the redirect URIs."""
        return "\n".join(client.redirect_uris.split())

    @admin.display(description="Authenticates by")
    def authenticates_by(self, client: OAuthClient) -> str:
        """List the ways the client may authenticate."""
        if client.auth_methods == {"none"}:
            return "Nothing: a public client, held to each request by PKCE"
        secret = " (secret stored as a digest)" if client.auth_methods & {*SECRET_METHODS} else ""
        return ", ".join(sorted(client.auth_methods)) + secret

    def _review(self, request: HttpRequest, queryset: QuerySet[OAuthClient], approve: bool) -> None:
        chosen = [client for client in queryset if not _by_hand(client)]
        for client in chosen:
            client_review.review_client(client, approve, actor=request.user)
        done = "approved; people can connect them now" if approve else "refused"
        self.message_user(request, f"{_count(chosen)} {done}.", messages.SUCCESS)

    def _switch(self, request: HttpRequest, queryset: QuerySet[OAuthClient], enabled: bool) -> None:
        changed = [client for client in queryset if client.enabled != enabled]
        for client in changed:
            actions.set_client_enabled(client, enabled, actor=request.user)
        done = "switched on" if enabled else "switched off"
        self.message_user(request, f"{_count(changed)} {done}.", messages.SUCCESS)

    def _secret_page(
        self, request: HttpRequest, client: OAuthClient, secret: str
    ) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "The client's secret",
            "opts": self.opts,
            "client": client,
            "secret": secret,
        }
        template = "admin/oauthserver/oauthclient/secret.html"
        response = TemplateResponse(request, template, context)
        response.headers["Cache-Control"] = "no-store"
        return response


def _count(clients: list[OAuthClient]) -> str:
    return "1 client" if len(clients) == 1 else f"{len(clients)} clients"


def _by_hand(client: OAuthClient) -> bool:
    """Whether its page changes it; service accounts have a page of their own."""
    manual = client.registration_source == OAuthClient.RegistrationSource.MANUAL
    return bool(manual and client.authorization_grant_type == client.GRANT_AUTHORIZATION_CODE)


@admin.register(ClientPolicy)
class ClientPolicyAdmin(_PolicyAdmin):
    """Which clients may come by themselves; opening the list opens the one row."""

    form = ClientPolicyForm
    fieldsets = [
        (None, {"fields": ["documents", "registration", "allowed_hosts"]}),
        ("When a client is not admitted", {"fields": ["advice"]}),
        ("Programs without a person", {"fields": ["machine_access"]}),
        ("Cleaning up", {"fields": ["forget_after_days"]}),
    ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form at once."""
        policy = ClientPolicy.objects.order_by("pk").first() or ClientPolicy.objects.create()
        return self.change_view(request, str(policy.pk), extra_context=extra_context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """There is one."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ClientPolicy | None = None) -> bool:
        """There is always one."""
        return False

    def save_model(self, request: HttpRequest, obj: ClientPolicy, form: Any, change: bool) -> None:
        """Save through the action, which checks and audits."""
        values = {name: form.cleaned_data[name] for name in form.changed_data}
        client_review.set_policy(values, actor=request.user)
