"""How a request to an upstream begins on the wire: its address, and headers that inject nothing."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from upstreams.connection_pool import Origin, bracketed
from upstreams.egress_guard import host_of

Headers = tuple[tuple[bytes, bytes], ...]

# RFC 9110 5.5: visible characters, space, tab; other octets are not used towards upstreams.
_VALUE_OCTETS: Final = b"\t" + bytes(range(0x20, 0x7F))
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_QUERY: Final = re.compile(rb"[\x21-\x7e]*")
_ASKED_WITH_TARGET: Final = re.compile(r"[\x00-\x20\x7f-\U0010ffff]")


class UnsafeHeader(Exception):
    """A header or key cannot be written; ``what`` names it for people, ``detail`` says why."""

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(detail)
        self.what = what
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream's address, taken apart once; ``fixed`` are the header lines of every request."""

    origin: Origin
    path: bytes
    fixed: bytes


@lru_cache(maxsize=4096)
def target_of(url: str, private_network: str) -> Target:
    """Return where requests for an upstream's address go.

    Raises:
        EgressRefused: the host is not written in the one canonical form.
        ValueError: the address is not a URL.
    """
    parts = urlsplit(url)
    host = host_of(parts)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    shown = bracketed(host)
    if port != (443 if parts.scheme == "https" else 80):
        shown = f"{shown}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if _ASKED_WITH_TARGET.search(path):
        raise ValueError("the address holds characters a request line may not hold")
    fixed = (
        f" HTTP/1.1\r\nHost: {shown}\r\nUser-Agent: mcp-gateway\r\nAccept-Encoding: identity\r\n"
    )
    origin = Origin(parts.scheme, host, port, private_network)
    return Target(origin, path.encode("ascii"), fixed.encode("ascii"))


@lru_cache(maxsize=1024)
def _is_name(name: bytes) -> bool:
    return _NAME.fullmatch(name) is not None


def header_lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes | None:
    """Return headers as they go on the wire, None if one of them could inject anything.

    All values are looked at in one go: what is left when the permitted octets are taken away
    must be nothing.
    """
    values = b"".join([value for _, value in headers])
    if values.translate(None, _VALUE_OCTETS):
        return None
    for name, _ in headers:
        if not _is_name(name):
            return None
    return b"".join([b"%s: %s\r\n" % header for header in headers])


# Upstreams, methods, names and credentials repeat, and with them the lines.
@lru_cache(maxsize=4096)
def begun(
    method: bytes, path: bytes, fixed: bytes, headers: Headers, own: Headers, query: bytes
) -> bytes:
    """Return a request's head up to where a ``Content-Length`` or its end belongs.

    ``path`` and ``fixed`` are the target's, ``own`` and ``query`` the credential's.

    Raises:
        UnsafeHeader: it holds what a head may not hold.
    """
    lines, secret = header_lines(headers), header_lines(own)
    if lines is None or secret is None:
        raise UnsafeHeader(
            "A header", "a header's name or value holds characters that it may not hold"
        )
    if query:
        if not _QUERY.fullmatch(query):
            raise UnsafeHeader(
                "The key", "the query credential holds characters a URL may not hold"
            )
        path += (b"&" if b"?" in path else b"?") + query
    return b"%s %s%s%s%s" % (method, path, fixed, lines, secret)
