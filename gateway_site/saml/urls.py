"""Addresses of SAML providers: /accounts/saml/<id>/. Single logout is not offered."""

from django.urls import path

from gateway_site.saml import views

urlpatterns = [
    path("saml/<slug:organization_slug>/login/", views.LoginView.as_view(), name="saml_login"),
    path("saml/<slug:organization_slug>/acs/", views.AcsView.as_view(), name="saml_acs"),
    path(
        "saml/<slug:organization_slug>/acs/finish/",
        views.FinishView.as_view(),
        name="saml_finish_acs",
    ),
    # The library names it in what it composes; nothing there answers.
    path("saml/<slug:organization_slug>/sls/", views.no_single_logout, name="saml_sls"),
    path(
        "saml/<slug:organization_slug>/metadata/",
        views.MetadataView.as_view(),
        name="saml_metadata",
    ),
]
