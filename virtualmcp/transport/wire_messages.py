"""One JSON-RPC message as it came over the wire, read once and kept as raw bytes.

The envelope and the first level of ``params`` are split into members; their values stay as the
client wrote them, so that large integers, long decimals and unknown members survive
(protocol.md 4.2b) and an id goes back byte for byte (a1).

What is ambiguous is refused rather than interpreted: a member that occurs twice would mean one
thing to the gateway and another to the upstream (security.md #164).
"""

import contextlib
import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, TypeGuard

import msgspec

from virtualmcp.raw_members import Members, text

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602

MOST_DEPTH = 64
LONGEST_ID = 1_024
MOST_IN_BATCH = 50

_ABSENT = msgspec.Raw()
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)")
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
# An opening bracket becomes 1 and a closing one -1, read as signed bytes.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_DEPTH_CHUNK = 16_384
_JSON_SPACE = b" \t\r\n"
# Longer values are cut out before an object's names are looked at one by one.
_WORTH_CUTTING = 64


class _Envelope(msgspec.Struct, gc=False):
    jsonrpc: str = ""
    id: msgspec.Raw = _ABSENT
    method: str = ""
    params: msgspec.Raw = _ABSENT
    result: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


_envelope = msgspec.json.Decoder(_Envelope)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])

_NO_MEMBERS: Members = {}
_LONGEST_REMEMBERED = 2_048
_MOST_REMEMBERED = 2_048


class SaidMeta(dict[str, msgspec.Raw]):
    """``_meta`` as a client repeats it in every request; ``read`` is kept for who made something
    of it, as it would be made of it again."""

    __slots__ = ("read",)

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        self.read: Any = None


_said_before: dict[bytes, SaidMeta] = {}


class MalformedMessage(Exception):
    """The body is not a message that can be answered otherwise.

    ``id`` is the raw id if it could be read, else ``b"null"``.
    """

    def __init__(self, code: int, message: str, id: bytes = b"null") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id


class Message(msgspec.Struct, eq=False):
    """A request, a notification (no ``id``) or a response (no ``method``).

    Attributes:
        id: raw JSON string or integer, ``b""`` for none.
        method: ``""`` for a response.
        params: raw JSON object, ``b""`` for none.
        members: the first level of ``params``.
        meta: the first level of ``params._meta``.
        response: for a response, the raw envelope.
    """

    id: bytes
    method: str
    params: bytes
    members: Mapping[str, msgspec.Raw]
    meta: Mapping[str, msgspec.Raw]
    response: bytes = b""


def is_batch(body: bytes) -> bool:
    """Tell whether the body is a JSON array."""
    return body[:1] == b"[" or (body[:1] in _JSON_SPACE and body.lstrip(_JSON_SPACE)[:1] == b"[")


def read_batch(body: bytes) -> list[bytes]:
    """Split a batch into its messages (protocol.md a27).

    Raises:
        MalformedMessage: not JSON, empty, or more than ``MOST_IN_BATCH`` messages.
    """
    _check_text(body)
    try:
        items = _items.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MalformedMessage(PARSE_ERROR, "The body is not valid JSON.") from error
    if not 0 < len(items) <= MOST_IN_BATCH:
        raise MalformedMessage(
            INVALID_REQUEST, f"A batch must hold 1 to {MOST_IN_BATCH} messages; this one does not."
        )
    return [bytes(item) for item in items]


def read_message(body: bytes) -> Message:
    """Read one message.

    Raises:
        MalformedMessage: not UTF-8, not JSON, too deep, a member twice, or not JSON-RPC 2.0.
    """
    _check_text(body)
    try:
        envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        raise _not_json_rpc(body) from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedMessage(PARSE_ERROR, "The body is not valid JSON.") from error
    raw_id, method, params = bytes(envelope.id), envelope.method, bytes(envelope.params)
    answer_id = raw_id if raw_id and _is_id(raw_id) else b"null"
    _check_envelope(body, envelope, raw_id, params, answer_id)
    if envelope.jsonrpc != "2.0":
        raise MalformedMessage(INVALID_REQUEST, 'A message must have "jsonrpc": "2.0".', answer_id)
    if raw_id and answer_id == b"null":
        raise MalformedMessage(
            INVALID_REQUEST,
            f"An id must be a string or an integer of at most {LONGEST_ID} bytes.",
        )
    outcomes = bool(len(envelope.result)) + bool(len(envelope.error))
    if not method and raw_id and outcomes == 1:
        return Message(raw_id, "", b"", _NO_MEMBERS, _NO_MEMBERS, response=body)
    if not method or outcomes:
        raise MalformedMessage(
            INVALID_REQUEST, "A message is a request, a notification or a response.", answer_id
        )
    if not params or params == b"null":
        return Message(raw_id, method, b"", _NO_MEMBERS, _NO_MEMBERS)
    return _with_members(raw_id, method, params, answer_id)


def _with_members(raw_id: bytes, method: str, params: bytes, answer_id: bytes) -> Message:
    members = _object(params, "params", answer_id)
    arguments, meta = members.get("arguments"), members.get("_meta")
    if arguments is not None and memoryview(arguments)[0] == 0x7B:
        _object(arguments, "params.arguments", answer_id)
    return Message(
        raw_id,
        method,
        params,
        members,
        _NO_MEMBERS if meta is None else _meta(meta, answer_id),
    )


def _meta(raw: msgspec.Raw, answer_id: bytes) -> Mapping[str, msgspec.Raw]:
    """A client says the same of itself in every request, but for the progress token."""
    text = bytes(raw)
    known = _said_before.get(text)
    if known is not None:
        return known
    # Of the copy: members are views, and what is remembered must not keep a whole request.
    members = _object(text, "params._meta", answer_id)
    if len(text) > _LONGEST_REMEMBERED or "progressToken" in members:
        return members
    if len(_said_before) >= _MOST_REMEMBERED:
        _said_before.clear()
    known = _said_before[text] = SaidMeta(members)
    return known


def is_object(raw: msgspec.Raw | None) -> TypeGuard[msgspec.Raw]:
    """Tell whether the value is there and a JSON object."""
    return raw is not None and memoryview(raw)[0] == 0x7B


def is_token(raw: bytes) -> bool:
    """Tell whether a value may be a progress token or request id: a string or an integer."""
    return _is_id(raw)


def _check_text(body: bytes) -> None:
    if not body.isascii():
        try:
            # Skipped values are not decoded by the parser, so their bytes are checked here (a2).
            body.decode()
        except UnicodeDecodeError as error:
            raise MalformedMessage(PARSE_ERROR, "The body is not valid UTF-8.") from error
    if body.count(b"[") + body.count(b"{") > MOST_DEPTH and _too_deep(body):
        raise MalformedMessage(
            PARSE_ERROR, f"The body is nested more than {MOST_DEPTH} levels deep."
        )


def _too_deep(body: bytes) -> bool:
    """Tell whether brackets outside of strings are nested beyond the limit."""
    steps = _STRINGS.sub(b"", body).translate(_STEPS, _NOT_BRACKETS)
    depth = 0
    for start in range(0, len(steps), _DEPTH_CHUNK):
        chunk = memoryview(steps)[start : start + _DEPTH_CHUNK].cast("b")
        depths = list(accumulate(chunk, initial=depth))
        if max(depths) > MOST_DEPTH:
            return True
        depth = depths[-1]
    return False


def _is_id(raw: bytes) -> bool:
    if len(raw) > LONGEST_ID:
        return False
    if raw[:1] == b'"':
        return b"\\" not in raw or text(raw) is not None
    if raw.isdigit() and raw[:1] != b"0":
        return True
    return _INTEGER.fullmatch(raw) is not None


def _check_envelope(
    body: bytes, envelope: _Envelope, raw_id: bytes, params: bytes, answer_id: bytes
) -> None:
    # The length a request has when it is written without spaces: nothing can hide in it.
    least = 45 + len(raw_id) + len(envelope.method) + len(params)
    if len(body) == least and raw_id and params:
        return
    _check_names(body, _members.decode(body), "the message", answer_id)


def _object(raw: bytes | msgspec.Raw, where: str, answer_id: bytes) -> Members:
    try:
        members = _members.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedMessage(
            INVALID_PARAMS, f"{where} must be a JSON object.", answer_id
        ) from error
    # Quotes, colon and comma around every member, and the braces: without spaces and escapes
    # that is all there is, and a member that was overwritten by a later one would add to it.
    least = 1 + 4 * len(members) + sum(map(len, members)) + sum(map(len, members.values()))
    if members and len(raw) != least:
        _check_names(bytes(raw), members, where, answer_id)
    return members


def _check_names(raw: bytes, members: Members, where: str, answer_id: bytes) -> None:
    """Refuse an object with a member twice.

    ``members`` is what is left when a later member takes the place of an earlier one.
    """
    spaced = b", ".join([b'"%b": %b' % (name.encode(), members[name]) for name in members])
    if raw == b"{%b}" % spaced:
        # As Python writes it; every member is accounted for.
        return
    for value in map(bytes, members.values()):
        # Cutting out what is long leaves little to read. The text of an object or array can't
        # stand inside a string, which would escape its quotes, nor be a name.
        if len(value) > _WORTH_CUTTING and value[:1] in b"{[" and b'"' in value:
            raw = raw.replace(value, b"0", 1)
    try:
        json.loads(raw, object_pairs_hook=_distinct, parse_int=_skip, parse_float=_skip)
    except _Repeated as error:
        raise MalformedMessage(
            INVALID_REQUEST, f"{where[:1].upper()}{where[1:]} has a member twice.", answer_id
        ) from error
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(PARSE_ERROR, "The body is not valid JSON.") from error


class _Repeated(Exception):
    """A name occurs twice in one object."""


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Repeated


def _skip(number: str) -> None:
    return None


def _not_json_rpc(body: bytes) -> MalformedMessage:
    raw_id = b""
    with contextlib.suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raw_id = bytes(_members.decode(body).get("id", b""))
    return MalformedMessage(
        INVALID_REQUEST,
        "The body is not a JSON-RPC 2.0 message.",
        raw_id if raw_id and _is_id(raw_id) else b"null",
    )
