"""Reading and rewriting JSON objects member by member, leaving the values as raw bytes.

``msgspec.Raw`` values are copied byte for byte, so integers beyond 2^64, long decimals, unknown
members and their order survive (protocol.md 4.2b).
"""

from collections.abc import Iterable
from typing import Any

import msgspec

Members = dict[str, msgspec.Raw]

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])
_text = msgspec.json.Decoder(str)
_encoder = msgspec.json.Encoder()


class NotAnObject(ValueError):
    """The bytes are not the JSON object or array they should be."""


def read(raw: bytes | msgspec.Raw) -> Members:
    """Split an object into its members.

    Raises:
        NotAnObject: not a JSON object, or nested too deeply to read.
    """
    try:
        return _members.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotAnObject("not a JSON object") from error


def read_items(raw: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """Split an array into its items.

    Raises:
        NotAnObject: not a JSON array, or nested too deeply to read.
    """
    try:
        return _items.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotAnObject("not a JSON array") from error


def text(raw: bytes | msgspec.Raw | None) -> str | None:
    """Return the string, ``None`` if the value is something else or not readable."""
    if raw is None:
        return None
    try:
        return _text.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def value(raw: bytes | msgspec.Raw) -> Any:
    """Return the value as Python objects, for the few that are looked into.

    Raises:
        NotAnObject: not JSON, or nested too deeply to read.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotAnObject("not JSON") from error


def write(value: Any) -> bytes:
    """Write a value; raw members are copied as they are."""
    return _encoder.encode(value)


def raw(value: Any) -> msgspec.Raw:
    """Write a value so that it can become a member."""
    return msgspec.Raw(_encoder.encode(value))


def join_items(items: Iterable[bytes | msgspec.Raw]) -> bytes:
    """Write an array of raw items."""
    return b"[" + b",".join(bytes(item) for item in items) + b"]"
