"""Application configuration."""

from django.apps import AppConfig


class OAuthServerConfig(AppConfig):
    name = "oauthserver"
    verbose_name = "Authorization server"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        from oauthserver import checks  # noqa: F401
