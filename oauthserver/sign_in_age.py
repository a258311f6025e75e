"""Whether a person's sign-in is recent enough for their clients; asked at every refresh.

This room does not know how people sign in; who knows registers the rule.
"""

from collections.abc import Callable
from typing import Any

Rule = Callable[[Any], str]
_rule: Rule | None = None


def register(rule: Rule) -> None:
    """Say how to find out. Called once, when the applications are ready.

    Args:
        rule: takes the person; returns "" or why they have to sign in again.
    """
    global _rule
    _rule = rule


def why_sign_in_again(user: Any) -> str:
    """Return "" or the reason, in a sentence for the client."""
    return "" if _rule is None else _rule(user)
