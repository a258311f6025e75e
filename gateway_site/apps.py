"""Application configuration: connects what spans the rooms when Django has loaded them."""

from django.apps import AppConfig


class GatewaySiteConfig(AppConfig):
    name = "gateway_site"
    verbose_name = "Gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Listen to every room's signals and register the configuration checks."""
        from gateway_site import room_connections

        room_connections.connect()
