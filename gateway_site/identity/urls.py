"""Addresses of OpenID providers: /accounts/oidc/<id>/login/ and what comes back from there."""

from django.urls import path

from gateway_site.identity import backchannel, views

urlpatterns = [
    path("oidc/<str:provider_id>/login/", views.login, name="openid_connect_login"),
    path("oidc/<str:provider_id>/login/callback/", views.callback, name="openid_connect_callback"),
    path(
        "oidc/<str:provider_id>/backchannel-logout/",
        backchannel.backchannel_logout,
        name="openid_connect_backchannel_logout",
    ),
]
