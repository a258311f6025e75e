"""Application configuration: connects what spans the rooms when Django has loaded them."""

from django.apps import AppConfig

from gateway_site.admin_explanations import ROOMS


class GatewaySiteConfig(AppConfig):
    name = "gateway_site"
    verbose_name = "Gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Listen to every room's signals, register the checks, name the administration's rooms."""
        from django.apps import apps
        from django.conf import settings

        # Importing the checks registers them.
        from gateway_site import configuration_checks, logging_setup, room_connections  # noqa: F401

        for label, title in ROOMS.items():
            apps.get_app_config(label).verbose_name = title
        logging_setup.remember_secrets([settings.METRICS_TOKEN, *settings.GATEWAY_ENCRYPTION_KEYS])
        room_connections.connect()
