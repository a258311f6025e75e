"""Addresses of this room: the endpoints below ``/oauth/`` and the well-known documents.

``/oauth/authorize`` is mounted by the site, with the consent page on top of it.
"""

from django.urls import path, re_path

from oauthserver.client_configuration import ClientConfigurationView
from oauthserver.client_registration import ClientRegistrationView
from oauthserver.discovery_views import AuthorizationServerView, ProtectedResourceView
from oauthserver.openid_views import JwksView, UserInfoView
from oauthserver.token_endpoint import IntrospectionView, RevocationView, TokenView

# To be included below "oauth/" with the namespace "oauth2_provider".
protocol_urlpatterns = [
    re_path(r"^token/?$", TokenView.as_view(), name="token"),
    re_path(r"^register/?$", ClientRegistrationView.as_view(), name="dcr-register"),
    path(
        "register/<str:client_id>", ClientConfigurationView.as_view(), name="client-configuration"
    ),
    re_path(r"^revoke/?$", RevocationView.as_view(), name="revoke-token"),
    re_path(r"^introspect/?$", IntrospectionView.as_view(), name="introspect"),
    re_path(r"^userinfo/?$", UserInfoView.as_view(), name="user-info"),
    re_path(r"^jwks/?$", JwksView.as_view(), name="jwks-info"),
]

# To be included at the root.
discovery_urlpatterns = [
    path(".well-known/oauth-protected-resource", ProtectedResourceView.as_view()),
    path(".well-known/oauth-protected-resource/<path:path>", ProtectedResourceView.as_view()),
    path(".well-known/oauth-authorization-server", AuthorizationServerView.as_view()),
    path(".well-known/oauth-authorization-server/<path:path>", AuthorizationServerView.as_view()),
    path(".well-known/openid-configuration", AuthorizationServerView.as_view()),
    path(".well-known/openid-configuration/<path:path>", AuthorizationServerView.as_view()),
    path("<path:path>/.well-known/openid-configuration", AuthorizationServerView.as_view()),
]
