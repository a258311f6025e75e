"""JSON-RPC messages towards upstreams: the envelope is parsed once, payloads stay raw bytes.

msgspec's ``Raw`` members keep integers beyond 64 bits, long decimals and members nobody
knows byte for byte (protocol.md 4.2b). What msgspec refuses only for a lone surrogate is
read again by the standard library.
"""

import itertools
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

# The standard library would hold up the loop for longer texts (security.md R49).
_MOST_READ_AGAIN: Final = 1024 * 1024
MOST_IN_AN_ARRAY: Final = 1_000
_NOTHING: Final = msgspec.Raw()
Raw = msgspec.Raw
Members = dict[str, msgspec.Raw]


class NotJsonRpc(ValueError):
    """The bytes are not a JSON-RPC 2.0 message; the text is for the administrator."""


class Message(msgspec.Struct, gc=False):
    """One message's envelope; absent payloads are empty."""

    jsonrpc: Any = None
    id: Any = msgspec.UNSET
    method: str | None = None
    params: msgspec.Raw = _NOTHING
    result: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING

    @property
    def is_request(self) -> bool:
        """Whether an answer is expected."""
        return self.method is not None and self.id is not msgspec.UNSET


class WireError(msgspec.Struct, gc=False):
    """A JSON-RPC error object; ``code`` must be an integer."""

    code: int
    message: str = ""
    data: msgspec.Raw = _NOTHING


_decode_message = msgspec.json.Decoder(Message).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(Members).decode
_decode_error = msgspec.json.Decoder(WireError).decode
encode: Final = msgspec.json.encode


# Ids are unique over all processes (b9), and one upstream cannot guess what is in flight elsewhere.
_ids = itertools.count(1)
_prefix = secrets.token_hex(8) + "-"


def _renew_prefix() -> None:
    global _prefix
    _prefix = secrets.token_hex(8) + "-"


os.register_at_fork(after_in_child=_renew_prefix)


def new_id() -> str:
    """Return an id for a request or a progress token, never used before."""
    return f"{_prefix}{next(_ids)}"


def request(request_id: str, method: str, params: bytes) -> bytes:
    """Return the bytes of a request; ``params`` is a raw object or ``b""``."""
    return b'{"jsonrpc":"2.0","id":"%s","method":%s,"params":%s}' % (
        request_id.encode(),
        encode(method),
        params or b"{}",
    )


def notification(method: str, params: bytes) -> bytes:
    """Return the bytes of a notification; ``params`` is a raw object or ``b""``."""
    if not params:
        return b'{"jsonrpc":"2.0","method":%s}' % encode(method)
    return b'{"jsonrpc":"2.0","method":%s,"params":%s}' % (encode(method), params)


def response(request_id: object, *, result: bytes = b"", error: bytes = b"") -> bytes:
    """Return the bytes of an answer to a request of the upstream."""
    member, payload = (b"error", error) if error else (b"result", result or b"{}")
    return b'{"jsonrpc":"2.0","id":%s,"%s":%s}' % (encode(request_id), member, payload)


def refusal(request_id: object, text: str) -> bytes:
    """Return the error answer to a request of the upstream that nobody answers (2.3.5)."""
    return response(request_id, error=error_object(-32603, text))


def error_object(code: int, message: str) -> bytes:
    """Return a raw JSON-RPC error object."""
    return encode({"code": code, "message": message})


def read(data: bytes) -> Message:
    """Read one message.

    Raises:
        NotJsonRpc: no JSON object, not UTF-8, nested too deeply, or not version 2.0.
    """
    try:
        if not data.isascii():
            data.decode("utf-8")
        message = _decode_message(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if isinstance(error, RecursionError | UnicodeDecodeError) or len(data) > _MOST_READ_AGAIN:
            raise NotJsonRpc(str(error)[:200] or type(error).__name__) from error
        message = _read_again(data)
    if message.jsonrpc != "2.0":
        raise NotJsonRpc("not a JSON-RPC 2.0 message")
    if len(message.params) == 4 and bytes(message.params) == b"null":
        # Some write what is not there as null.
        message.params = _NOTHING
    return message


def read_some(data: bytes) -> list[Message]:
    """Read one message or, as stateful servers of 2025-03-26 may send them, an array of some.

    Raises:
        NotJsonRpc: as ``read``, of any of them; or an array of nothing.
    """
    if data.lstrip()[:1] != b"[":
        return [read(data)]
    try:
        items = _decode_items(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise NotJsonRpc(str(error)[:200] or type(error).__name__) from error
    if not 0 < len(items) <= MOST_IN_AN_ARRAY:
        raise NotJsonRpc(f"an array of {len(items)} messages")
    return [read(bytes(item)) for item in items]


def _read_again(data: bytes) -> Message:
    """Read what may hold a lone surrogate, which the standard library alone keeps."""
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
        if not isinstance(found, dict):
            raise NotJsonRpc("not an object")
        members = {name: found[name] for name in Message.__struct_fields__ if name in found}
        for name in ("params", "result", "error"):
            if name in members:
                members[name] = msgspec.Raw(json.dumps(members[name]).encode("ascii"))
        if not isinstance(members.get("method"), str | None):
            raise NotJsonRpc("method is not a string")
        return Message(**members)
    except (ValueError, RecursionError) as error:
        raise NotJsonRpc(str(error)[:200] or type(error).__name__) from error


def _no_constant(name: str) -> NoReturn:
    raise NotJsonRpc(f"{name} is not JSON")


def members_of(raw: bytes | msgspec.Raw) -> Members:
    """Return an object's members, each raw.

    Raises:
        NotJsonRpc: not an object.
    """
    try:
        return _decode_members(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotJsonRpc("not an object") from error


def object_of(members: Mapping[str, object]) -> bytes:
    """Return the raw object of members that are raw or plain values."""
    return encode(members)


def error_of(raw: bytes | msgspec.Raw) -> WireError:
    """Read an error object.

    Raises:
        NotJsonRpc: its code is not an integer or its message not a string.
    """
    try:
        return _decode_error(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotJsonRpc("the error object is not valid") from error


def plain(raw: bytes | msgspec.Raw) -> Any:
    """Return a raw value's Python form.

    Raises:
        NotJsonRpc: it cannot be read.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotJsonRpc("the value is not valid") from error
