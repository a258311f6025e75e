"""Every address that Django serves; the MCP endpoint is routed in ``asgi``."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
]

handler400 = "gateway_site.error_pages.bad_request"
handler403 = "gateway_site.error_pages.permission_denied"
handler404 = "gateway_site.error_pages.page_not_found"
handler500 = "gateway_site.error_pages.server_error"
