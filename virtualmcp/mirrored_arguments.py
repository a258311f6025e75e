"""Arguments that a tool's schema wants repeated in ``Mcp-Param-*`` headers. Pure.

The annotation is ``x-mcp-header`` on a string, integer or boolean property that is reached from
the schema's root through ``properties`` alone (Streamable HTTP, Schema Extension; a30, a36, b4,
b5). Nothing is dereferenced: a ``$ref`` is never followed.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

HEADER_PREFIX = "mcp-param-"
_ANNOTATION = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_PLAIN = re.compile(r"[\x20-\x7e]*\Z")
_SENTINEL = re.compile(r"=\?base64\?(.*)\?=\Z")
_TYPES = ("string", "integer", "boolean")
_ONE = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})


@dataclass(slots=True, frozen=True)
class Mirrored:
    """One annotated property: its path in the arguments, its header's token, its type."""

    path: tuple[str, ...]
    token: str
    type: str


class AnnotationInvalid(ValueError):
    """The schema's annotations break the rules; the tool can't be offered (b5)."""


def annotations(schema: Any) -> tuple[Mirrored, ...]:
    """Return the annotated properties of an input schema.

    Raises:
        AnnotationInvalid: an annotation where or as it must not be.
    """
    found: list[Mirrored] = []
    for path, position in _positions(schema):
        if _ANNOTATION not in position:
            continue
        token, kind = position[_ANNOTATION], position.get("type")
        if not path:
            raise AnnotationInvalid("x-mcp-header on something that is not a plain property")
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise AnnotationInvalid("x-mcp-header is not an HTTP token")
        if kind not in _TYPES:
            raise AnnotationInvalid("x-mcp-header on a property of another type")
        if any(other.token.lower() == token.lower() for other in found):
            raise AnnotationInvalid("two properties share one x-mcp-header")
        found.append(Mirrored(path, token, kind))
    return tuple(found)


def _positions(root: Any) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Yield each subschema with its chain of properties, ``None`` once the chain is broken."""
    waiting: list[tuple[tuple[str, ...] | None, Any]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            continue
        yield path, node
        for keyword, below in node.items():
            if keyword == "properties" and isinstance(below, dict):
                waiting += [(None if path is None else (*path, n), s) for n, s in below.items()]
            elif keyword in _ONE:
                waiting.append((None, below))
            elif keyword in _MANY and isinstance(below, list):
                waiting += [(None, item) for item in below]
            elif keyword in _NAMED and isinstance(below, dict):
                waiting += [(None, item) for item in below.values()]


def headers_for(
    mirrored: tuple[Mirrored, ...], arguments: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """Return the headers that repeat these arguments; absent and null ones have none (b4)."""
    headers = []
    for item in mirrored:
        rendered = _rendered(_at(arguments, item.path))
        if rendered is not None:
            headers.append((f"Mcp-Param-{item.token}", encode(rendered)))
    return tuple(headers)


def mismatch(
    mirrored: tuple[Mirrored, ...], arguments: Mapping[str, Any], headers: Mapping[str, str]
) -> str:
    """Return the name of the first header that does not repeat its argument, ``""`` if all do.

    Integers are compared as numbers. A header without its argument is as wrong as the reverse.
    """
    given = {name.lower(): value for name, value in headers.items()}
    for item in mirrored:
        name = f"Mcp-Param-{item.token}"
        value = _at(arguments, item.path)
        header = given.get(name.lower())
        if _rendered(value) is None:
            if header is not None:
                return name
        elif header is None or not _repeats(decode(header), value):
            return name
    return ""


def unrecognised(
    mirrored: tuple[Mirrored, ...], headers: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Return the headers that the schema does not name, as they came (a31)."""
    known = {HEADER_PREFIX + item.token.lower() for item in mirrored}
    return tuple((name, value) for name, value in headers.items() if name.lower() not in known)


def _repeats(header: str | None, value: Any) -> bool:
    if header is None:
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(header) == float(value) if "." in header else int(header) == value
        except (ValueError, OverflowError):
            return False
    return header == _rendered(value)


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if not isinstance(arguments, Mapping):
            return None
        arguments = arguments.get(step)
    return arguments


def _rendered(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        try:
            return str(value)
        except ValueError:
            return None
    return None


def encode(value: str) -> str:
    """Return a value as an HTTP field can carry it (Streamable HTTP, Value Encoding)."""
    if _PLAIN.match(value) and value == value.strip() and not _SENTINEL.match(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def decode(header: str) -> str | None:
    """Undo ``encode``; ``None`` for a broken Base64 form, which matches nothing."""
    found = _SENTINEL.match(header)
    if found is None:
        return header
    try:
        decoded = base64.b64decode(found[1], validate=True)
        same = base64.b64encode(decoded).decode() == found[1]
        return decoded.decode() if same else None
    except (binascii.Error, UnicodeDecodeError):
        return None
