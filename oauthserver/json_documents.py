"""Strict JSON for documents that others wrote: UTF-8, no duplicate keys, no NaN, not deep."""

import json
from typing import Any

MAX_DEPTH = 16


class DocumentInvalid(ValueError):
    """The bytes are not a JSON object the gateway accepts."""


def read_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object (security.md #35).

    Raises:
        DocumentInvalid: not UTF-8, a byte order mark, not an object, a key twice, NaN or
            Infinity, NUL in a string, or nested deeper than ``MAX_DEPTH``.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DocumentInvalid("not valid JSON") from error
    if not isinstance(value, dict):
        raise DocumentInvalid("not a JSON object")
    _check(value, MAX_DEPTH)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise DocumentInvalid("a key is there twice")
    return value


def _no_constant(name: str) -> Any:
    raise DocumentInvalid(f"{name} is not JSON")


def _check(value: Any, depth: int) -> None:
    if depth < 0:
        raise DocumentInvalid("nested too deeply")
    if isinstance(value, str):
        # Neither can be stored in every database, and neither belongs in a document.
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise DocumentInvalid("a string holds a NUL or half a character")
    elif isinstance(value, dict):
        for key, member in value.items():
            _check(key, depth - 1)
            _check(member, depth - 1)
    elif isinstance(value, list):
        for member in value:
            _check(member, depth - 1)
