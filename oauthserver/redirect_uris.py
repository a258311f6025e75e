"""Which redirect URIs a client may register, and which of them a request may name.

Registration is an allow-list: https anywhere, http on loopback, and single private-scheme
URIs listed exactly. Matching is exact but for the port of a loopback URI (RFC 8252 7.3,
protocol.md 5.6), where an empty path and ``/`` also count as one.
"""

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

from django.conf import settings

MAX_LENGTH = 2000
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
# Cursor registers this together with two others and gives up if one is refused.
PRIVATE_SCHEME_URIS = frozenset({"cursor://anysphere.cursor-mcp/oauth/callback"})
# Printable ASCII of RFC 3986, without the characters that browsers and parsers read differently.
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/?/?[^/].*", re.ASCII)
_DANGEROUS_SCHEMES = frozenset(
    {"javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "view-source", "ws"}
)
_RESPONSE_PARAMETERS = frozenset({"code", "state", "iss", "error", "error_description"})


def problem_with(uri: object, *, any_private_scheme: bool = False) -> str:
    """Say why ``uri`` may not be registered, or "" if it may.

    Args:
        uri: what the client sent, of any type.
        any_private_scheme: accept every private-use scheme; for clients that an administrator
            registers by hand.
    """
    if not isinstance(uri, str) or not uri:
        return "a redirect URI must be a string"
    if len(uri) > MAX_LENGTH:
        return f"a redirect URI may have at most {MAX_LENGTH} characters"
    if uri in PRIVATE_SCHEME_URIS:
        return ""
    if "#" in uri:
        return "a redirect URI must not have a fragment"
    if not _CHARACTERS.fullmatch(uri):
        return "a redirect URI may hold only the characters of RFC 3986"
    if not uri.startswith(("https://", "http://")):
        return _problem_with_private(uri, any_private_scheme)
    return _problem_with_web(uri)


def _problem_with_private(uri: str, any_private_scheme: bool) -> str:
    scheme = uri.partition(":")[0]
    if not any_private_scheme or scheme.lower() in _DANGEROUS_SCHEMES | {"http", "https"}:
        return "only https, and http on this computer (localhost, 127.0.0.1, [::1]), are accepted"
    return "" if _PRIVATE_SCHEME.fullmatch(uri) else "the private scheme is not well formed"


def _problem_with_web(uri: str) -> str:
    parts = _split(uri)
    if parts is None or "@" in parts.netloc:
        return "a redirect URI needs a plain host, without a user name"
    host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
    if not _HOST.fullmatch(host) or ".." in host:
        return "a redirect URI needs a plain host, without wildcards"
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
        return "http is accepted only for localhost, 127.0.0.1 and [::1]; use https"
    if any(segment in (".", "..") for segment in _decoded_dots(parts.path).split("/")):
        return "a redirect URI must not have dot segments in its path"
    if any(key in _RESPONSE_PARAMETERS for key, _ in parse_qsl(parts.query, True)):
        return "a redirect URI must not carry parameters of the authorization response"
    if _place(uri) == _place(settings.PUBLIC_URL):
        return "a redirect URI must not point at this gateway"
    return ""


def matches(asked: str, registered: str) -> bool:
    """Whether a request naming ``asked`` is covered by ``registered``."""
    if asked == registered:
        return True
    if problem_with(asked):
        # Also refuses a loopback port that is the gateway's own.
        return False
    one, other = _split(asked), _split(registered)
    if one is None or other is None or other.scheme != "http" or one.scheme != "http":
        return False
    return (
        other.hostname in LOOPBACK_HOSTS
        and one.hostname == other.hostname
        and (one.path or "/") == (other.path or "/")
        and one.query == other.query
        and ("?" in asked) == ("?" in registered)
    )


def is_loopback(uri: str) -> bool:
    """Whether the code goes to a program on the person's own computer."""
    parts = _split(uri)
    return parts is not None and parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS


def host_for_people(uri: str) -> str:
    """Return the part of ``uri`` that tells a person where the code goes."""
    parts = _split(uri)
    if parts is None:
        return uri
    if parts.scheme in ("https", "http"):
        return parts.netloc
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def origin(uri: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an http(s) URI, with the default port filled in."""
    parts = _split(uri)
    if parts is None:
        return ("", "", 0)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    # A full domain name may end in a dot and is the same host.
    return (parts.scheme, (parts.hostname or "").lower().rstrip("."), port)


def _place(uri: str) -> tuple[str, str, int]:
    """Return ``origin``, with one name for this computer: its names lead to the same program."""
    scheme, host, port = origin(uri)
    return (scheme, "localhost" if host in LOOPBACK_HOSTS else host, port)


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return None
    if port == 0 or not parts.hostname:
        return parts if not parts.netloc and parts.scheme not in ("http", "https") else None
    return parts


def _decoded_dots(path: str) -> str:
    return path.replace("%2e", ".").replace("%2E", ".")
