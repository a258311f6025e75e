"""The addresses of this room with the barest consent page on top."""

from django.http import HttpRequest
from django.urls import include, path

from oauthserver.authorization import AuthorizationDetails, AuthorizationRequestView
from oauthserver.urls import discovery_urlpatterns, protocol_urlpatterns


class BarePage(AuthorizationRequestView):
    """Shows the error template as its page; the tests read the context."""

    template_name = "oauthserver/authorize_error.html"
    not_yet: str = ""
    said_yes: list[AuthorizationDetails] = []

    def may_allow(self, request: HttpRequest, details: AuthorizationDetails) -> str:
        return BarePage.not_yet

    def allowed(self, request: HttpRequest, details: AuthorizationDetails) -> None:
        assert details.client.pk is not None
        BarePage.said_yes.append(details)


urlpatterns = [
    *discovery_urlpatterns,
    path(
        "oauth/",
        include(
            (
                [path("authorize", BarePage.as_view(), name="authorize"), *protocol_urlpatterns],
                "oauth2_provider",
            )
        ),
    ),
    path("accounts/", include("allauth.urls")),
]

handler404 = "gateway_site.error_pages.page_not_found"
handler500 = "gateway_site.error_pages.server_error"
