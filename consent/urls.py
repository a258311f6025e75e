"""Addresses of a person's own connections; the authorize page is mounted by the site."""

from django.urls import path

from consent import my_connections

app_name = "consent"
urlpatterns = [
    path("connections/", my_connections.connections, name="connections"),
    path(
        "connections/clients/<int:record_id>/revoke",
        my_connections.revoke_client,
        name="revoke_client",
    ),
    path(
        "connections/company/<int:access_id>/end",
        my_connections.end_vouched,
        name="end_vouched",
    ),
    path(
        "connections/upstreams/<slug:key>/disconnect",
        my_connections.disconnect_upstream,
        name="disconnect_upstream",
    ),
    path("connections/upstreams/<slug:key>/key", my_connections.save_key, name="save_key"),
]
