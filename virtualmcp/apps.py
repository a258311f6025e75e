"""Application configuration."""

from django.apps import AppConfig


class VirtualMcpConfig(AppConfig):
    name = "virtualmcp"
    verbose_name = "Virtual MCP servers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell the authorization server how to find what tokens are for."""
        from oauthserver import audience
        from virtualmcp import published_resources

        audience.register_resource_lookup(
            published_resources.find, published_resources.may_use, published_resources.all_for
        )
