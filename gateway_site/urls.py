"""Every address that Django serves; the MCP endpoint is routed in ``asgi``."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from django.contrib import admin
from django.urls import include, path

from gateway_site import metrics, rest_api, site_views


def _from(module: str, name: str = "urlpatterns") -> Sequence[Any]:
    """Temporary: a room that is not there yet has no addresses."""
    try:
        return list(getattr(import_module(module), name))
    except ModuleNotFoundError:
        return []


try:
    from consent.authorization_view import ConsentView

    authorize = [path("authorize", ConsentView.as_view(), name="authorize")]
except ModuleNotFoundError:
    authorize = []

urlpatterns = [
    *_from("oauthserver.urls", "discovery_urlpatterns"),
    path(
        "oauth/",
        include(
            ([*authorize, *_from("oauthserver.urls", "protocol_urlpatterns")], "oauth2_provider")
        ),
    ),
    path("accounts/email/", site_views.managed_by_administrator),
    path("accounts/", include("allauth.urls")),
    path("admin/", admin.site.urls),
    path("api/v1/", include(rest_api.urlpatterns)),
    path("metrics", metrics.metrics_view, name="metrics"),
    path(".well-known/openai-apps-challenge", site_views.openai_apps_challenge),
]
for _room in ("upstreams", "consent", "virtualmcp"):
    if _from(f"{_room}.urls"):
        urlpatterns.append(path("", include(f"{_room}.urls")))

handler400 = "gateway_site.error_pages.bad_request"
handler403 = "gateway_site.error_pages.permission_denied"
handler404 = "gateway_site.error_pages.page_not_found"
handler500 = "gateway_site.error_pages.server_error"
