"""Addresses of the catalogue pages."""

from django.urls import path

from virtualmcp import views

app_name = "virtualmcp"
urlpatterns = [
    path("", views.catalogue, name="catalogue"),
    path("servers/<slug:slug>/", views.connect_guide, name="connect_guide"),
]
