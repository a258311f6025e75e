"""Whether what a person agreed to still covers what a client gets; asked at every refresh.

This room issues codes after a page it does not know; the room of that page registers the rule.
"""

from collections.abc import Callable
from typing import Any

from oauthserver.models import OAuthClient

Rule = Callable[[Any, OAuthClient, str], str]
_rule: Rule | None = None


def register(rule: Rule) -> None:
    """Say how to find out. Called once, when the applications are ready.

    Args:
        rule: takes the person, the client and the URI of the resource; returns "" or why the
            person has to be asked again.
    """
    global _rule
    _rule = rule


def why_ask_again(user: Any, client: OAuthClient, resource: str) -> str:
    """Return "" or the reason, in a sentence for the client."""
    return "" if _rule is None else _rule(user, client, resource)
