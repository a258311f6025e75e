"""Application configuration."""

from django.apps import AppConfig


class ConsentConfig(AppConfig):
    name = "consent"
    verbose_name = "Consent"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Say who may connect which upstream, and when a person has to be asked again."""
        from consent import agreement
        from consent.upstream_checklist import may_connect
        from oauthserver import consent_check
        from upstreams import accounts

        accounts.register_connect_rule(may_connect)
        consent_check.register(agreement.why_ask_again)
