"""Answers to requests that the server itself refuses, before or instead of the application."""

import re
from http import HTTPStatus
from typing import Any

import msgspec

MOST_URL_BYTES = 8 * 1024

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def header_line(name: bytes, value: bytes) -> bytes:
    """Write a header.

    Raises:
        RuntimeError: the name or value would break the head apart.
    """
    if _NAME.fullmatch(name) is None or _NOT_IN_VALUES.search(value) is not None:
        raise RuntimeError(f"{name!r} is no valid header.")
    return b"%b: %b\r\n" % (name.lower(), value)


class Refused:
    """ASGI application that answers one thing and closes the connection."""

    def __init__(self, status: int, error: str, message: str, retry_after: int = 0) -> None:
        self.status = status
        self.body = msgspec.json.encode({"error": error, "message": message})
        self.headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        if retry_after:
            self.headers.append((b"retry-after", b"%d" % retry_after))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})

    def as_bytes(self) -> bytes:
        """Return the answer as it goes over the wire, for requests that never got whole."""
        first = b"HTTP/1.1 %d %b\r\n" % (self.status, HTTPStatus(self.status).phrase.encode())
        lines = [header_line(*header) for header in self.headers]
        return b"".join([first, *lines, b"\r\n", self.body])


TOO_SLOW = Refused(
    408, "request_too_slow", "The request did not arrive in time. Send it again, faster."
)
HEADERS_TOO_LARGE = Refused(431, "headers_too_large", "Send fewer or shorter headers.")
URL_TOO_LONG = Refused(414, "url_too_long", f"An address may have {MOST_URL_BYTES} bytes.")
ANOTHER_HOST = Refused(
    400, "another_host", "The request's address and its Host header name different servers."
)
NOT_HTTP = Refused(400, "not_http", "This is no valid HTTP/1.1 request.")
TOO_MANY = Refused(
    503,
    "too_many_connections",
    "The gateway has as many connections open as it may. Try again in a few seconds.",
    retry_after=5,
)

FAILED = Refused(500, "internal_error", "Something went wrong here; the log says what.")
RESTARTING = Refused(
    503,
    "restarting",
    "The gateway was restarted before the answer was there. Send the request again.",
    retry_after=1,
)


def names_another_host(url: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the target of a request is no path, and not of the host in its ``Host`` header.

    A target may be a whole address (RFC 9112 3.2.2). A proxy in front that goes by it, while the
    rules here go by the header, would let one pass for the other (security.md #130).
    """
    scheme, _, rest = url.partition(b"://")
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0].lower()
    hosts = [value.lower() for name, value in headers if name == b"host"]
    return scheme.lower() not in (b"http", b"https") or hosts != [authority]
