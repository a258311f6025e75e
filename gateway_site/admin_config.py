"""Puts the gateway's own admin site in the place of Django's."""

from django.contrib.admin.apps import AdminConfig


class GatewayAdminConfig(AdminConfig):
    """Django's admin with the gateway's site, so that every room registers as usual."""

    default_site = "gateway_site.admin_site.GatewayAdminSite"
