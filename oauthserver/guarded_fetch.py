"""Fetching a client's document from an address the client chose (security.md 4C).

The library's fetcher was not enough: it decodes compressed bodies, judges addresses by
``is_global`` alone (which lets multicast pass) and bounds each read but not the whole. Here
one deadline covers everything from the look-up of the name to the last byte.

https only; every resolved address must be public and the connection goes to the address that
was checked, with SNI, certificate and Host by name; status 200 only; redirects are never
followed; the body comes as ``identity`` and is cut off at the limit.
"""

import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import httptools
from django.conf import settings

from oauthserver.errors import FetchFailed
from oauthserver.json_documents import DocumentInvalid, read_object
from oauthserver.redirect_uris import origin

TOTAL_SECONDS = 5.0
MAX_HEADER_BYTES = 16 * 1024
MAX_IN_FLIGHT = 10
# The system's resolver cannot be told to stop: who no longer waits for it leaves a thread behind.
MAX_LOOKUPS = 20
MAX_URL = 2000
_URL = re.compile(r"https://[A-Za-z0-9.\-\[\]:]+/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*")
_NUMERIC_LABEL = re.compile(r"\d+|0[xX][0-9A-Fa-f]*")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_EMBEDDING = (  # forms of IPv6 address that hide an IPv4 address
    ipaddress.ip_network("::/96"),
    ipaddress.ip_network("::ffff:0:0/96"),
    ipaddress.ip_network("::ffff:0:0:0/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2001::/32"),
    ipaddress.ip_network("2002::/16"),
)
_slots = threading.BoundedSemaphore(MAX_IN_FLIGHT)
_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)


@dataclass(frozen=True)
class FetchedDocument:
    """A JSON object and its ``Cache-Control``, lower case."""

    members: dict[str, Any]
    cache_control: str


class AtCapacity(FetchFailed):
    """Too many fetches or look-ups are under way; says nothing about the document."""


def check_url(url: str) -> SplitResult:
    """Check the form of a document URL, without resolving anything (the draft, section 3).

    Raises:
        FetchFailed: not https, no path, user name, fragment, dot segments, odd characters or
            port, a host that is an obscured number, or the gateway itself.
    """
    if len(url) > MAX_URL or not _URL.fullmatch(url):
        raise FetchFailed("not a plain https URL with a path")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FetchFailed("malformed host or port") from error
    host = parts.hostname or ""
    if port == 0 or not host or parts.netloc.endswith(":"):
        raise FetchFailed("malformed host or port")
    if any(segment in (".", "..") for segment in unquote(parts.path).split("/")):
        raise FetchFailed("dot segments in the path")
    if _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]) and not _is_address(host):
        raise FetchFailed("the host is a number in disguise")
    if origin(url) == origin(settings.PUBLIC_URL):
        raise FetchFailed("the address is the gateway's own")
    return parts


def address_allowed(address: str, *, allow_loopback: bool = False) -> bool:
    """Whether a resolved address may be connected to.

    Args:
        address: as ``getaddrinfo`` returns it.
        allow_loopback: for development (``GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA``).
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.is_loopback:
        return allow_loopback
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif any(ip in network for network in _EMBEDDING) or _is_isatap(ip):
            return False
    special = ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local
    return ip.is_global and not special


def fetch_json(url: str, *, limit: int) -> FetchedDocument:
    """Fetch one JSON object of at most ``limit`` bytes.

    Raises:
        AtCapacity: ten fetches are under way, or twenty look-ups of names.
        FetchFailed: for every other reason; the message is for the log only.
    """
    parts = check_url(url)
    if not _slots.acquire(blocking=False):
        raise AtCapacity("too many fetches under way")
    try:
        answer = _fetch(parts, limit, time.monotonic() + TOTAL_SECONDS)
    finally:
        _slots.release()
    if answer.status != 200:
        raise FetchFailed(f"status {answer.status}")
    if not _is_json(answer.headers.get(b"content-type", b"")):
        raise FetchFailed("the content type is not JSON")
    try:
        members = read_object(bytes(answer.body))
    except DocumentInvalid as error:
        raise FetchFailed(str(error)) from error
    cache_control = answer.headers.get(b"cache-control", b"").decode("latin-1").lower()
    return FetchedDocument(members, cache_control)


class _Answer:
    """Collects one HTTP answer; the parser calls the ``on_`` methods."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.header_bytes = 0
        self.body = bytearray()
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.header_bytes += len(name) + len(value)
        if self.header_bytes > MAX_HEADER_BYTES:
            raise FetchFailed("the headers are too long")
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise FetchFailed("the body is compressed")
        if self.status != 200:
            raise FetchFailed(f"status {self.status}")

    def on_body(self, data: bytes) -> None:
        if len(self.body) + len(data) > self.limit:
            raise FetchFailed("the body is too long")
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def ends_with_the_connection(self) -> bool:
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        return bool(self.status) and not framed


def _fetch(parts: SplitResult, limit: int, deadline: float) -> _Answer:
    host, port = parts.hostname or "", parts.port or 443
    failure: Exception = FetchFailed("no address")
    for address in _addresses(host, port, deadline):
        try:
            return _exchange(parts, address, port, limit, deadline)
        except httptools.HttpParserError as error:
            # A refusal made inside a callback arrives wrapped.
            raise (
                error.__context__
                if isinstance(error.__context__, FetchFailed)
                else FetchFailed("not an HTTP answer")
            ) from error
        except OSError as error:
            failure = error
    raise FetchFailed(f"no connection: {failure}") from failure


def _addresses(host: str, port: int, deadline: float) -> list[str]:
    found = _resolved(host, port, deadline)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    loopback = settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA
    for address in addresses:
        # One bad address condemns the host: no picking among a mixed answer.
        if not address_allowed(address, allow_loopback=loopback):
            raise FetchFailed(f"the host resolves to {address}, which is not public")
    return addresses


def _resolved(host: str, port: int, deadline: float) -> list[Any]:
    """Look a name up, for as long as the deadline leaves; a bounded number at a time."""
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)
        finally:
            _lookups.release()

    if not _lookups.acquire(blocking=False):
        raise AtCapacity("too many look-ups under way")
    try:
        threading.Thread(target=look_up, name="client-document-dns", daemon=True).start()
    except RuntimeError:
        _lookups.release()
        raise AtCapacity("no thread for a look-up") from None
    try:
        found = answers.get(timeout=_left(deadline))
    except queue.Empty:
        raise FetchFailed("the host does not resolve in time") from None
    if isinstance(found, Exception):
        raise FetchFailed("the host does not resolve") from found
    return found


def _exchange(parts: SplitResult, address: str, port: int, limit: int, deadline: float) -> _Answer:
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Accept: application/json, application/*+json\r\nAccept-Encoding: identity\r\n"
        "User-Agent: mcp-gateway\r\nConnection: close\r\n\r\n"
    )
    answer = _Answer(limit)
    with (
        _connected(address, port, deadline) as plain,
        _tls_context(settings.GATEWAY_EXTRA_CA_BUNDLE).wrap_socket(
            plain, server_hostname=parts.hostname
        ) as connection,
    ):
        connection.settimeout(_left(deadline))
        connection.sendall(request.encode("ascii"))
        while not answer.complete:
            connection.settimeout(_left(deadline))
            data = connection.recv(4096)
            if not data:
                if answer.ends_with_the_connection:
                    break
                raise FetchFailed("the answer was cut off")
            answer.parser.feed_data(data)
    return answer


def _connected(address: str, port: int, deadline: float) -> socket.socket:
    # Not ``create_connection``: that would ask the resolver once more.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.settimeout(_left(deadline))
        plain.connect((address, port))
    except BaseException:
        plain.close()
        raise
    return plain


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise FetchFailed("no answer in time")
    return seconds


@lru_cache(maxsize=4)
def _tls_context(extra_bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if extra_bundle:
        context.load_verify_locations(cafile=extra_bundle)
    return context


def _is_json(content_type: bytes) -> bool:
    media_type, _, parameters = content_type.decode("latin-1").lower().partition(";")
    media_type = media_type.strip()
    charset = parameters.replace(" ", "").replace('"', "")
    suffixed = media_type.startswith("application/") and media_type.endswith("+json")
    return (media_type == "application/json" or suffixed) and charset in ("", "charset=utf-8")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_isatap(ip: ipaddress.IPv6Address) -> bool:
    return (int(ip) >> 32) & 0xFDFFFFFF == 0x00005EFE
