"""Complete HTTP answers of the MCP endpoint: their headers, and the two ASGI messages.

Every answer says ``no-store`` and ``Vary: Authorization`` (security.md #214), because what it
says depends on who asked.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from virtualmcp.transport.wire_validation import Rejection

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
Pieces = tuple[bytes | memoryview, ...]

_COMMON: tuple[Header, ...] = (
    (b"cache-control", b"no-store"),
    (b"vary", b"Authorization, Origin"),
    (b"x-content-type-options", b"nosniff"),
)
JSON_HEADERS: tuple[Header, ...] = ((b"content-type", b"application/json"), *_COMMON)
SSE_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream"),
    # Lets an SSE answer pass nginx unbuffered (a23).
    (b"x-accel-buffering", b"no"),
    *_COMMON,
)
_EMPTY_HEADERS: tuple[Header, ...] = (*_COMMON, (b"content-length", b"0"))

# A larger body is written in pieces, each only when the connection has taken the one before.
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Accepts:
    """Which forms of answer a client takes."""

    json: bool
    events: bool


@lru_cache(maxsize=256)
def accepts(header: bytes) -> Accepts:
    """Read an ``Accept`` header; without one, both forms are taken."""
    json = events = not header.strip()
    for part in header.lower().split(b","):
        media_type, _, parameters = part.partition(b";")
        if parameters.replace(b" ", b"") in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"):
            continue
        media_type = media_type.strip()
        json = json or media_type in (b"application/json", b"application/*", b"*/*")
        events = events or media_type in (b"text/event-stream", b"text/*", b"*/*")
    return Accepts(json, events)


class Refusal(Exception):
    """The HTTP request itself is refused, before there is a JSON-RPC request to answer.

    ``error`` is a short name for programs, ``message`` says what happened and what to do next.
    """

    def __init__(
        self, status: int, error: str, message: str, headers: Iterable[Header] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.headers = tuple(headers)


def unavailable() -> Refusal:
    """Say that a part of the gateway is away; nothing is decided without it."""
    return Refusal(
        503,
        "unavailable",
        "The gateway can't answer this right now. Send it again in a moment.",
        ((b"retry-after", b"2"),),
    )


def result_body(id: bytes, *result: bytes | memoryview) -> bytes:
    """Compose the response to a request; ``id`` and ``result`` are raw JSON, the latter in one
    piece or several."""
    return b"".join(result_pieces(id, *result))


def result_pieces(id: bytes, *result: bytes | memoryview) -> Pieces:
    """Do as ``result_body``, without copying the last piece of the result."""
    *before, last = result
    return b'{"jsonrpc":"2.0","id":%b,"result":%b' % (id, b"".join(before)), last, b"}"


def error_body(id: bytes, code: int, message: str, data: bytes = b"") -> bytes:
    """Compose the error response to a request; ``id`` and ``data`` are raw JSON."""
    text = msgspec.json.encode(message)
    extra = b',"data":' + data if data else b""
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":%b%b}}' % (
        id,
        code,
        text,
        extra,
    )


async def send_json(send: Send, status: int, body: bytes, extra: tuple[Header, ...] = ()) -> None:
    """Send one JSON document."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*JSON_HEADERS, (b"content-length", b"%d" % len(body)), *extra],
        }
    )
    if len(body) <= 2 * PIECE_BYTES:
        await send({"type": "http.response.body", "body": body})
    else:
        await send_body(send, body)


async def send_body(send: Send, body: bytes) -> None:
    """Send the last part of a body, in pieces if it is large."""
    start = 0
    while len(body) - start > 2 * PIECE_BYTES:
        piece = body[start : start + PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        start += PIECE_BYTES
    await send({"type": "http.response.body", "body": body[start:] if start else body})


async def send_empty(send: Send, status: int, extra: tuple[Header, ...] = ()) -> None:
    """Send an answer without a body: 202 for what was accepted, 204 for a preflight, 303."""
    headers = [*(_COMMON if status == 204 else _EMPTY_HEADERS), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def send_refusal(send: Send, refusal: Refusal, extra: tuple[Header, ...] = ()) -> None:
    """Send the JSON document that says why a request was refused."""
    body = msgspec.json.encode({"error": refusal.error, "message": refusal.message})
    await send_json(send, refusal.status, body, (*refusal.headers, *extra))


async def send_rejection(send: Send, rejection: Rejection, extra: tuple[Header, ...] = ()) -> None:
    """Send the JSON-RPC error of a message that was refused."""
    body = error_body(rejection.id, rejection.code, rejection.message, rejection.data)
    await send_json(send, rejection.status, body, extra)


def event(message: bytes) -> bytes:
    """Write a message as a server-sent event; line breaks between its tokens need a prefix."""
    if b"\n" in message or b"\r" in message:
        message = b"\ndata: ".join(message.splitlines())
    return b"event: message\ndata: " + message + b"\n\n"


def start_of_stream(extra: Iterable[Header]) -> dict[str, Any]:
    """Return the ASGI message that begins an event stream."""
    return {"type": "http.response.start", "status": 200, "headers": [*SSE_HEADERS, *extra]}


async def send_one_answer(
    send: Send, accepts: Accepts, body: bytes, extra: tuple[Header, ...]
) -> None:
    """Send an answer the gateway itself gives at once."""
    if accepts.json:
        await send_json(send, 200, body, extra)
        return
    await send(start_of_stream(extra))
    await send_body(send, event(body))
