"""The addresses of this room, and the admin."""

from django.contrib import admin
from django.urls import path

from tests.oauthserver import addresses

urlpatterns = [*addresses.urlpatterns, path("admin/", admin.site.urls)]

handler404 = "gateway_site.error_pages.page_not_found"
handler500 = "gateway_site.error_pages.server_error"
