"""Application configuration."""

from django.apps import AppConfig


class ConsentConfig(AppConfig):
    name = "consent"
    verbose_name = "Consent"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Let people connect only the upstreams they can reach through a Virtual MCP."""
        from consent.upstream_checklist import may_connect
        from upstreams import accounts

        accounts.register_connect_rule(may_connect)
