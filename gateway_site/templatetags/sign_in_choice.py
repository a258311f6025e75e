"""``{% sign_in_choice as choice %}``: what the sign-in page shows."""

from typing import Any

from django import template

from gateway_site.identity.provider_choice import Choice, choice_for

register = template.Library()


@register.simple_tag(takes_context=True)
def sign_in_choice(context: dict[str, Any]) -> Choice:
    """Return what to show in this request."""
    return choice_for(context["request"])
