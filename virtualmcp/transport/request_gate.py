"""What an HTTP request must be before its content is looked at: host, origin, type, size, time.

The ASGI servers differ in what they let through (security.md 8), so nothing is left to them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.signals import setting_changed
from django.http.request import split_domain_port, validate_host

from upstreams.running_loop import running_loop
from virtualmcp.transport.http_answers import Header, Receive, Refusal
from virtualmcp.transport.overdue import Deadlines

BODY_SECONDS = 30.0
MOST_HEADERS = 100
MOST_HEADER_BYTES = 32 * 1024
PREFLIGHT_SECONDS = 600

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# Of these a second one would let two readers see two different requests.
_ONCE = frozenset(
    (
        b"host",
        b"origin",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"mcp-method",
        b"mcp-name",
    )
)
_ALLOWED_REQUEST_HEADERS = frozenset(
    (
        "accept",
        "authorization",
        "content-type",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
    )
)
_CONTENT_TYPES = frozenset((b"application/json", b"application/json; charset=utf-8"))


class Disconnected(Exception):
    """The client went away before it had sent its request."""


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Who may be addressed, from where, with how much; made once from the settings."""

    most_bytes: int
    hosts: frozenset[bytes]
    other_hosts: tuple[str, ...]
    public_name: str
    origins: frozenset[bytes]


@cache
def addresses() -> _Addresses:
    """Return who may be addressed, from where, how much; another object once that changes."""
    public = urlsplit(settings.PUBLIC_URL)
    host = settings.PUBLIC_HOST.lower()
    default_port = _DEFAULT_PORTS.get(public.scheme, "")
    bare = host.removesuffix(default_port)
    name = (public.hostname or "").lower()
    origins = {f"{public.scheme}://{bare}"}
    origins.update(origin.rstrip("/").lower() for origin in settings.GATEWAY_ALLOWED_ORIGINS)
    return _Addresses(
        most_bytes=settings.GATEWAY_MAX_BODY_BYTES,
        hosts=frozenset((bare.encode(), (bare + default_port).encode(), host.encode())),
        other_hosts=tuple(other for other in settings.ALLOWED_HOSTS if other.lower() != name),
        public_name=name,
        origins=frozenset(origin.encode() for origin in origins),
    )


def _settings_changed(**_: Any) -> None:
    addresses.cache_clear()


setting_changed.connect(_settings_changed, dispatch_uid="request_gate.addresses")


def headers_of(raw: list[Header]) -> dict[bytes, bytes]:
    """Return the headers by name, refusing what is ambiguous or too much.

    Raises:
        Refusal: 400 for a header that may come only once, 431 for too many or too large ones.
    """
    headers = dict(raw)
    if len(raw) > MOST_HEADERS or sum(map(len, headers.values())) > MOST_HEADER_BYTES:
        raise Refusal(431, "headers_too_large", "Send fewer or shorter headers.")
    if len(headers) != len(raw):
        _merge_repeated(raw, headers)
    return headers


def _merge_repeated(raw: list[Header], headers: dict[bytes, bytes]) -> None:
    if sum(len(value) for _, value in raw) > MOST_HEADER_BYTES:
        raise Refusal(431, "headers_too_large", "Send fewer or shorter headers.")
    seen: dict[bytes, list[bytes]] = {}
    for name, value in raw:
        seen.setdefault(name, []).append(value)
    for name, values in seen.items():
        if len(values) == 1:
            continue
        if name in _ONCE or name.startswith(b"mcp-param-"):
            raise Refusal(
                400, "repeated_header", f"The header {name.decode('latin-1')} must come once."
            )
        headers[name] = b", ".join(values)


def check_host(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a request that was sent to another name than ours (DNS rebinding, a16).

    Raises:
        Refusal: 400 without a Host, 421 for a foreign one.
    """
    host = headers.get(b"host")
    known = addresses()
    if host in known.hosts:
        return
    if host is None:
        raise Refusal(400, "host_missing", "Send one Host header.")
    text = host.decode("latin-1").lower()
    name, _ = split_domain_port(text)
    if text.encode("latin-1") in known.hosts or (
        name and name != known.public_name and validate_host(name, list(known.other_hosts))
    ):
        return
    raise Refusal(
        421,
        "host_unknown",
        f"This server is {settings.PUBLIC_HOST}. Use that name, or have the administrator add "
        "this one to GATEWAY_EXTRA_HOSTS.",
    )


def cors_headers(origin: bytes | None) -> tuple[Header, ...]:
    """Return the headers that let a page of this origin read the answer.

    A request without ``Origin`` comes from no browser and is as good as any.

    Raises:
        Refusal: 403 for an origin that is not allowed (a16).
    """
    if origin is None:
        return ()
    if origin.lower() not in addresses().origins:
        raise Refusal(
            403,
            "origin_not_allowed",
            "Pages of this origin may not use this server. An administrator can allow it in "
            "GATEWAY_ALLOWED_ORIGINS.",
        )
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"Mcp-Session-Id, WWW-Authenticate"),
    )


def preflight_headers(requested: bytes) -> tuple[Header, ...]:
    """Answer a browser that asks which headers it may send."""
    names = [name.strip().lower() for name in requested.decode("latin-1").split(",")]
    allowed = [
        name
        for name in names
        if name in _ALLOWED_REQUEST_HEADERS
        or (name.startswith("mcp-param-") and name.replace("-", "").isalnum())
    ]
    return (
        (b"access-control-allow-methods", b"POST, GET, DELETE"),
        (b"access-control-allow-headers", ", ".join(allowed).encode("ascii", "ignore")),
        (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
    )


def check_content(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that is not plain JSON, or is said to be too large.

    Raises:
        Refusal: 415 or 413.
    """
    content_type = headers.get(b"content-type", b"")
    if content_type not in _CONTENT_TYPES and not _is_json(content_type):
        raise Refusal(
            415, "not_json", "Send the message with the header Content-Type: application/json."
        )
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise Refusal(415, "encoded", "Send the body without a Content-Encoding.")
    length = headers.get(b"content-length")
    if length is not None:
        most_bytes = addresses().most_bytes
        if not length.isdigit() or len(length) > 18 or int(length) > most_bytes:
            raise _too_large(most_bytes)


def _is_json(content_type: bytes) -> bool:
    media_type, _, parameters = content_type.partition(b";")
    if media_type.strip().lower() != b"application/json":
        return False
    for parameter in parameters.split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"charset":
            return value.strip().strip(b'"').lower() in (b"utf-8", b"utf8", b"us-ascii")
    return True


def _too_large(most_bytes: int) -> Refusal:
    return Refusal(
        413,
        "body_too_large",
        f"A message may have {most_bytes} bytes. Send less, or have the administrator raise "
        "GATEWAY_MAX_BODY_BYTES.",
    )


async def read_body(receive: Receive) -> bytes:
    """Read the whole body within ``BODY_SECONDS``.

    Raises:
        Refusal: 413 as soon as there is too much of it, 408 when it does not come in time.
        Disconnected: the client went away.
    """
    reading = _Reading()
    _bodies.add(reading, BODY_SECONDS)
    try:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if not message.get("more_body") and len(body) <= addresses().most_bytes:
            return body
        return await _read_rest(receive, message, addresses().most_bytes)
    except asyncio.CancelledError:
        if not reading.too_slow():
            raise
    finally:
        _bodies.discard(reading)
    raise Refusal(
        408,
        "body_too_slow",
        f"The body did not arrive within {BODY_SECONDS:g} seconds. Send it again.",
        ((b"connection", b"close"),),
    )


class _Reading:
    """A body that is being read, by the task that reads it."""

    __slots__ = ("_expired", "_task")

    def __init__(self) -> None:
        self._task = asyncio.current_task(running_loop())
        self._expired = False

    def too_slow(self) -> bool:
        """Tell whether it was the deadline, and nothing else, that cancelled the task."""
        return self._expired and self._task is not None and not self._task.uncancel()

    def overdue(self) -> None:
        """Stop waiting for the body."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()


_bodies = Deadlines(every=0.1)


async def _read_rest(receive: Receive, message: Mapping[str, Any], most_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
