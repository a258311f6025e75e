"""What sign-in pages show: ``{% sign_in_choice as choice %}``, ``{% can_send_mail as mail %}``."""

from typing import Any

from django import template
from django.conf import settings

from gateway_site.identity.provider_choice import Choice, choice_for

register = template.Library()


@register.simple_tag(takes_context=True)
def sign_in_choice(context: dict[str, Any]) -> Choice:
    """Return what to show in this request."""
    return choice_for(context["request"])


@register.simple_tag
def can_send_mail() -> bool:
    """Tell whether a forgotten password can be replaced by mail."""
    return bool(settings.MAIL_CONFIGURED)
