"""Pure rules of ``PUBLIC_URL``: the one origin under which people and clients reach the gateway."""

import ipaddress
from urllib.parse import urlsplit

EXAMPLE = "https://mcp.example.com"


def is_loopback(url: str) -> bool:
    """Whether the address only means the machine it is used on."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def problem_with(url: str) -> str:
    """Return what is wrong with a public address, "" if nothing is.

    It is the OAuth issuer (RFC 8414 section 2: https, no query, no fragment) and every
    resource identifier begins with it, so it has no path and no trailing slash.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"{url!r} is not an address. Give something like {EXAMPLE}."
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"{url!r} is not an address. Give something like {EXAMPLE}."
    if parts.username is not None or parts.password is not None:
        return "The public address must not hold a user name or password."
    if parts.path or parts.query or parts.fragment or url.endswith(("/", "?", "#")):
        return f"The public address ends after the host, like {EXAMPLE}: no path, no slash."
    if url != url.lower():
        return (
            "Write the public address in lower-case letters: clients compare it letter by letter."
        )
    if port in (80, 443) and (parts.scheme == "https") == (port == 443):
        return f"Leave out :{port}, it goes without saying for {parts.scheme}."
    if parts.scheme == "http" and not is_loopback(url):
        return (
            "The public address must begin with https:// unless it is localhost. Put a reverse "
            "proxy that ends TLS in front; see docs/operations.md."
        )
    return ""
