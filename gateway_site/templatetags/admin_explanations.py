"""``{% explanation opts as said %}``: what a kind of thing in the administration is for."""

from typing import Any

from django import template

from gateway_site.admin_explanations import EXPLANATIONS, Explanation

register = template.Library()


@register.simple_tag
def explanation(opts: Any) -> Explanation | None:
    """Return the explanation of a model, None if there is none."""
    return EXPLANATIONS.get(opts.label_lower) if opts else None
