"""Application configuration."""

from django.apps import AppConfig
from django.conf import settings
from django.utils.module_loading import import_string


class UpstreamsConfig(AppConfig):
    name = "upstreams"
    verbose_name = "Upstreams"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Take the key ring, register the checks, hear this room's own changes."""
        from upstreams import checks as checks
        from upstreams import credentials, health_record, token_vault
        from upstreams.signals import changed, circuit_changed

        token_vault.use_key_ring(import_string(settings.GATEWAY_KEY_PROVIDER)())
        changed.connect(credentials.hear_change, dispatch_uid="upstreams.credentials")
        circuit_changed.connect(health_record.hear_circuit, dispatch_uid="upstreams.health")
