"""Where in a set of claims something stands. Pure."""

from collections.abc import Mapping
from typing import Any

LONGEST_TEXT = 255


def at_path(claims: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, None if there is none.

    A path is the name of a claim, or names joined by dots. Names may hold dots and colons
    themselves (``https://example.com/roles``), so the longest name that exists is taken first.
    """
    if path in claims:
        return claims[path]
    position = path.rfind(".")
    while position > 0:
        inner = claims.get(path[:position])
        if isinstance(inner, Mapping):
            found = at_path(inner, path[position + 1 :])
            if found is not None:
                return found
        position = path.rfind(".", 0, position)
    return None


def text_at(claims: Mapping[str, Any], path: str) -> str:
    """Return the text at a path, "" if there is none that could name somebody.

    SAML's attributes are lists; one of them is a text, several are not.
    """
    value = at_path(claims, path)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not _can_be_kept(value):
        return ""
    return value


def _can_be_kept(text: str) -> bool:
    """Tell whether a database takes a text; JSON can say halves of characters."""
    return "\x00" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
