"""SCIM tokens in the admin: made with a name, shown once, taken away."""

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from gateway_site import rights
from gateway_site.models import ScimToken
from gateway_site.scim import tokens

if TYPE_CHECKING:
    _TokenAdmin = admin.ModelAdmin[ScimToken]
else:
    _TokenAdmin = admin.ModelAdmin


@admin.register(ScimToken)
class ScimTokenAdmin(_TokenAdmin):
    """By which directories (Entra ID, Okta) provision people and groups."""

    list_display = ["name", "created_at", "last_used_at"]
    fields = ["name"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whoever holds a token fills groups, those with permissions too."""
        return super().has_add_permission(request) and rights.has_all(request.user)

    def has_delete_permission(self, request: HttpRequest, obj: ScimToken | None = None) -> bool:
        """As with making one."""
        return super().has_delete_permission(request, obj) and rights.has_all(request.user)

    def has_change_permission(self, request: HttpRequest, obj: ScimToken | None = None) -> bool:
        """There is nothing to change: make another, take the old one away."""
        return False

    def save_model(self, request: HttpRequest, obj: ScimToken, form: Any, change: bool) -> None:
        """Make it through the action, and keep its value for the next page only."""
        row, value = tokens.create(obj.name, actor=request.user)
        obj.pk = row.pk
        obj.refresh_from_db()
        # In memory for this one request; the value is stored nowhere.
        obj.shown_once = value  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: ScimToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the token, once."""
        context = {
            **self.admin_site.each_context(request),
            "title": "The SCIM token",
            "opts": self.opts,
            "token": obj,
            "value": obj.shown_once,  # type: ignore[attr-defined]
            "address": f"{settings.PUBLIC_URL}/scim/v2",
        }
        return TemplateResponse(request, "admin/gateway_site/scim_token.html", context)

    def delete_model(self, request: HttpRequest, obj: ScimToken) -> None:
        """Delete through the action."""
        tokens.delete(obj, actor=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ScimToken]) -> None:
        """Delete each through the action."""
        for row in queryset:
            tokens.delete(row, actor=request.user)
