"""Addresses of this room."""

from django.urls import path

from upstreams import client_document_views, connect_views

app_name = "upstreams"
urlpatterns = [
    path("connect/callback", connect_views.callback, name="callback"),
    path("connect/callback/<slug:key>", connect_views.callback, name="upstream_callback"),
    path("connect/<slug:key>/", connect_views.connect, name="connect"),
    path("connect/<slug:key>/connected/", connect_views.connected, name="connected"),
    path(
        ".well-known/oauth-client/jwks.json", client_document_views.client_keys, name="client_keys"
    ),
    path(
        ".well-known/oauth-client/<str:name>",
        client_document_views.client_document,
        name="client_document",
    ),
]
