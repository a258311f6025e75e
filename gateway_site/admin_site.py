"""The gateway's admin site: Django's, with a status board in the place of the bare index."""

from functools import update_wrapper
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from gateway_site import admin_confirmation
from gateway_site.admin_explanations import ROOMS
from gateway_site.fresh_sign_in import asks_for_freshness, is_fresh, way_to_freshness
from gateway_site.status_board import read_board


class GatewayAdminSite(AdminSite):
    """Registered as the default site, so that every room's ``admin.py`` lands here."""

    site_header = "MCP Gateway"
    site_title = "MCP Gateway"
    index_title = "Status"
    index_template = "admin/gateway_index.html"
    site_url = "/"
    enable_nav_sidebar = True

    def login(  # type: ignore[override]
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseRedirect:
        """Send people to the one sign-in page: with providers, second factor and throttling.

        Raises:
            PermissionDenied: somebody is signed in who may not administer.
        """
        if request.user.is_authenticated:
            raise PermissionDenied("The administration is for administrators of this gateway.")
        going_to = request.GET.get("next") or request.get_full_path()
        query = urlencode({"next": going_to})
        return HttpResponseRedirect(f"{reverse('account_login')}?{query}")

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Have pages ask for a fresh sign-in first, and lists whether an action is meant."""
        model_admin = getattr(view, "__self__", None)
        inner = super().admin_view(view, cacheable)

        def asking(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            may = self.has_permission(request)
            if not may or not asks_for_freshness(request) or is_fresh(request):
                # Before the library's own check of who asks, so nobody else is answered here.
                asked = may and model_admin and admin_confirmation.question(request, model_admin)
                return asked or inner(request, *args, **kwargs)
            if request.method == "POST":
                messages.warning(
                    request,
                    "Nothing was changed: your sign-in was too long ago. Please do it once more.",
                )
            return HttpResponseRedirect(way_to_freshness(request))

        return update_wrapper(asking, inner)

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return the rooms of the administration, what is looked for most first."""
        order = list(ROOMS)
        rooms = super().get_app_list(request, app_label)
        return sorted(
            rooms,
            key=lambda room: order.index(room["app_label"]) if room["app_label"] in order else 99,
        )

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show the board above the list of what can be configured."""
        context = {"board": read_board(), **(extra_context or {})}
        return super().index(request, context)
