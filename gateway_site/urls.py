"""Every address that Django serves; the MCP endpoint is routed in ``asgi``."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path

from consent.authorization_view import ConsentView
from gateway_site import metrics, people_pages, rest_api, site_views
from gateway_site.identity import provider_choice
from gateway_site.identity import views as identity_views
from gateway_site.scim import views as scim_views
from oauthserver.urls import discovery_urlpatterns, protocol_urlpatterns

# What people do with their account, apart from what administrators do for them.
account_urlpatterns = [
    path("accounts/email/", site_views.managed_by_administrator),
    path("accounts/password/set/", site_views.password_from_administrator),
    *(
        []
        if settings.MAIL_CONFIGURED
        else [path("accounts/password/reset/", site_views.mail_not_configured)]
    ),
    path("accounts/sessions/", people_pages.sessions, name="people_sessions"),
    path("accounts/choose/", provider_choice.choose, name="choose_provider"),
    path("accounts/3rdparty/signup/", identity_views.signup),
    path("accounts/", include("allauth.urls")),
]

oauth_urlpatterns = [
    re_path(r"^authorize/?$", ConsentView.as_view(), name="authorize"),
    *protocol_urlpatterns,
]

urlpatterns = [
    *discovery_urlpatterns,
    path("oauth/", include((oauth_urlpatterns, "oauth2_provider"))),
    *account_urlpatterns,
    path("admin/", admin.site.urls),
    path("api/v1/", include(rest_api.urlpatterns)),
    re_path(r"^scim/v2/(?P<kind>[A-Za-z]+)/?$", scim_views.scim, name="scim"),
    re_path(r"^scim/v2/(?P<kind>[A-Za-z]+)/(?P<key>[^/]+)/?$", scim_views.scim, name="scim_one"),
    path("metrics", metrics.metrics_view, name="metrics"),
    path(".well-known/openai-apps-challenge", site_views.openai_apps_challenge),
    path("", include("upstreams.urls")),
    path("", include("consent.urls")),
    path("", include("virtualmcp.urls")),
]

handler400 = "gateway_site.error_pages.bad_request"
handler403 = "gateway_site.error_pages.permission_denied"
handler404 = "gateway_site.error_pages.page_not_found"
# The sign-in library looks for this one.
handler429 = "gateway_site.error_pages.too_many_tries"
handler500 = "gateway_site.error_pages.server_error"
