"""Who really called: ``X-Forwarded-*`` counts only when a trusted proxy wrote it.

``TRUSTED_PROXY`` lists the networks of the reverse proxies. Without it the peer of the
connection is the caller, whatever its headers say. The host is never taken from a
header: addresses are built from ``PUBLIC_URL``.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from django.conf import settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=8)
def networks(configured: tuple[str, ...]) -> tuple[Network, ...]:
    """Parse the configured networks.

    Raises:
        ValueError: one of them is no address or network.
    """
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in configured)


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    """Whether ``address`` is one of the proxies; text that is no address is not."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip in network for network in trusted)


def caller_address(peer: str, forwarded: Iterable[bytes], trusted: Sequence[Network]) -> str:
    """Return the nearest address that is not one of our proxies.

    The list is read from the right: each proxy appends the peer it saw, and everything to
    the left of the first untrusted entry may have been invented by the caller.
    """
    if not is_trusted(peer, trusted):
        return peer
    hops = [hop.strip() for hop in b",".join(forwarded).decode("latin-1").split(",")]
    caller = peer
    for hop in reversed([hop for hop in hops if hop]):
        try:
            caller = str(ipaddress.ip_address(hop.strip("[]")))
        except ValueError:
            return caller
        if not is_trusted(caller, trusted):
            return caller
    return caller


def behind_proxy(scope: dict[str, Any]) -> dict[str, Any]:
    """Put the caller's address and the public scheme into an ASGI scope.

    The gateway does not end TLS itself, so the scheme is that of ``PUBLIC_URL`` unless a
    trusted proxy says which one the caller used.
    """
    scheme = "https" if settings.SERVED_OVER_TLS else "http"
    configured = settings.TRUSTED_PROXY
    if not configured:
        if scope.get("scheme") == scheme:
            return scope
        return {**scope, "scheme": scheme}
    peer = (scope.get("client") or ("", 0))[0] or ""
    trusted = networks(tuple(configured))
    if is_trusted(peer, trusted):
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        said = [value for name, value in headers if name == b"x-forwarded-proto"]
        if said and said[-1].strip() in (b"http", b"https"):
            scheme = said[-1].strip().decode()
        forwarded = [value for name, value in headers if name == b"x-forwarded-for"]
        peer = caller_address(peer, forwarded, trusted)
        scope = {**scope, "client": (peer, 0)}
    return {**scope, "scheme": scheme}
