"""Application configuration."""

from django.apps import AppConfig


class VirtualMcpConfig(AppConfig):
    name = "virtualmcp"
    verbose_name = "Virtual MCP servers"
    default_auto_field = "django.db.models.BigAutoField"
