"""Addresses of SAML providers: /accounts/saml/<id>/."""

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
    path("saml/<slug:organization_slug>/sls/", views.LogoutView.as_view(), name="saml_sls"),
    path(
        "saml/<slug:organization_slug>/metadata/",
        views.MetadataView.as_view(),
        name="saml_metadata",
    ),
]
