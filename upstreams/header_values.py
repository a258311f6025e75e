"""What a configured or pasted credential may look like, so that it can inject nothing (pure)."""

import re
from typing import Final

from upstreams.errors import SetupFailed

MAX_VALUE: Final = 8192
_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?\Z")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}\Z")
_QUERY_NAME: Final = re.compile(r"[A-Za-z0-9._~-]{1,100}\Z")
_PREFIX: Final = re.compile(r"[\x20-\x7e]{0,20}\Z")
# Headers that carry the message or the connection: a credential must not replace them.
_RESERVED: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "last-event-id",
        "origin",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def checked_value(value: str) -> str:
    """Return a credential that is safe in a header.

    Raises:
        SetupFailed: empty, too long, or not plain printable ASCII.
    """
    if not value or len(value) > MAX_VALUE or not _VALUE.match(value):
        raise SetupFailed(
            "authorization",
            "This is not a usable key: it must be one line of plain letters, digits and signs, "
            f"at most {MAX_VALUE} characters.",
        )
    return value


def checked_prefix(prefix: str) -> str:
    """Return a prefix (such as ``Bearer``) that is safe in a header.

    Raises:
        SetupFailed: it is not plain printable ASCII of at most 20 characters.
    """
    if not _PREFIX.match(prefix):
        raise SetupFailed("authorization", "The prefix must be plain letters and signs.")
    return prefix


def checked_header_name(name: str) -> str:
    """Return a header name a credential may use.

    Raises:
        SetupFailed: it is no header name, or one that the gateway needs itself.
    """
    lower = name.lower()
    if not _HEADER_NAME.match(name) or lower in _RESERVED or lower.startswith("mcp-"):
        raise SetupFailed("authorization", f"{name[:40]!r} cannot be used as credential header.")
    return name


def checked_query_name(name: str) -> str:
    """Return a query parameter name a credential may use.

    Raises:
        SetupFailed: it holds anything but letters, digits, dot, hyphen, underscore, tilde.
    """
    if not _QUERY_NAME.match(name):
        raise SetupFailed("authorization", f"{name[:40]!r} cannot be used as query parameter.")
    return name
