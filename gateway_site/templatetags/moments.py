"""``{% moment value %}``: a time that cannot be read in the wrong time zone."""

from datetime import UTC, datetime

from django import template
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
def moment(value: datetime) -> SafeString:
    """Return the time in UTC, saying so; ``gateway.js`` turns it into the reader's own time."""
    at = value.astimezone(UTC)
    words = date_format(at, "j M Y, H:i")
    return format_html('<time datetime="{}">{} UTC</time>', f"{at:%Y-%m-%dT%H:%M:%SZ}", words)
