"""The gateway's admin site: Django's, with a status board in the place of the bare index."""

from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

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

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show the board above the list of what can be configured."""
        context = {"board": read_board(), **(extra_context or {})}
        return super().index(request, context)
