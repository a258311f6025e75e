"""The gateway's admin site: Django's, with a status board in the place of the bare index."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse

from gateway_site.status_board import read_board


class GatewayAdminSite(AdminSite):
    """Registered as the default site, so that every room's ``admin.py`` lands here."""

    site_header = "MCP Gateway"
    site_title = "MCP Gateway"
    index_title = "Status"
    index_template = "admin/gateway_index.html"
    site_url = "/"
    enable_nav_sidebar = True

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Show the board above the list of what can be configured."""
        context = {"board": read_board(), **(extra_context or {})}
        return super().index(request, context)
