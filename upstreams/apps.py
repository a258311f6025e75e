"""Application configuration."""

from django.apps import AppConfig


class UpstreamsConfig(AppConfig):
    name = "upstreams"
    verbose_name = "Upstreams"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and hear this room's own changes in this process."""
        from upstreams import checks as checks
        from upstreams import credentials, health_record
        from upstreams.signals import changed, circuit_changed

        changed.connect(credentials.hear_change, dispatch_uid="upstreams.credentials")
        circuit_changed.connect(health_record.hear_circuit, dispatch_uid="upstreams.health")
