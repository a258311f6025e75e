"""Application configuration."""

from django.apps import AppConfig


class OAuthServerConfig(AppConfig):
    name = "oauthserver"
    verbose_name = "Authorization server"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks and listen to sign-ins."""
        from oauthserver import checks, sign_in_demands  # noqa: F401

        sign_in_demands.connect()
