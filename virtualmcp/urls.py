"""Addresses of the catalogue pages and of upstreams' icons."""

from django.urls import path

from virtualmcp import icon_views, views

app_name = "virtualmcp"
urlpatterns = [
    path("", views.catalogue, name="catalogue"),
    path("icons/<int:upstream>/<str:signature>/<str:name>", icon_views.icon, name="icon"),
    path("servers/<slug:slug>/", views.connect_guide, name="connect_guide"),
]
