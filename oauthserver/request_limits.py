"""How often one address, and everybody together, may do something without a token.

Counted in the shared cache in windows of five minutes. Vendors send all their users from a
few addresses (clients.md 1.9): ranges in ``GATEWAY_SHARED_EGRESS`` get the larger share.
"""

import ipaddress
import time
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

from oauthserver.errors import TooManyRequests
from oauthserver.token_values import digest

WINDOW_SECONDS = 300


@dataclass(frozen=True)
class Limit:
    """Numbers per window: for an ordinary address, for a shared one, and for all of either kind.

    Both kinds are counted apart: whoever has many addresses must not use up what the vendors' have.
    """

    name: str
    per_address: int
    per_shared_address: int
    everybody: int


REGISTRATIONS = Limit("registrations", 60, 3_000, 6_000)
FAILED_TOKEN_REQUESTS = Limit("failed-token-requests", 300, 6_000, 30_000)


def peer_address(request: HttpRequest) -> str:
    """Return the address the request came from, as the server or trusted proxy reports it."""
    return str(request.META.get("REMOTE_ADDR", ""))


def count(limit: Limit, address: str) -> None:
    """Count one event.

    Raises:
        TooManyRequests: the address, or everybody, had their share of this window.
    """
    window = int(time.time()) // WINDOW_SECONDS
    shared = _is_shared(address)
    share = limit.per_shared_address if shared else limit.per_address
    together = "vendors" if shared else "everybody"
    for key, allowed in ((digest(_counted(address)), share), (together, limit.everybody)):
        if _incremented(f"oauthserver:limit:{limit.name}:{window}:{key}") > allowed:
            raise _refusal()


def check(limit: Limit, address: str) -> None:
    """Look whether an address has its share left, without counting.

    Raises:
        TooManyRequests: it has not.
    """
    window = int(time.time()) // WINDOW_SECONDS
    share = limit.per_shared_address if _is_shared(address) else limit.per_address
    key = f"oauthserver:limit:{limit.name}:{window}:{digest(_counted(address))}"
    if int(cache.get(key, 0)) >= share:
        raise _refusal()


def _incremented(key: str) -> int:
    cache.add(key, 0, WINDOW_SECONDS + 60)
    try:
        return int(cache.incr(key))
    except ValueError:
        # Evicted between the two calls.
        cache.set(key, 1, WINDOW_SECONDS + 60)
        return 1


def _refusal() -> TooManyRequests:
    left = WINDOW_SECONDS - int(time.time()) % WINDOW_SECONDS
    return TooManyRequests("Too many requests from this address. Try again later.", left)


def _counted(address: str) -> str:
    """Return what counts as one address: of IPv6, where one host has a /64, the network."""
    ip = _ip(address)
    if ip is None:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ipaddress.ip_network((ip, 64), strict=False).network_address)


def _is_shared(address: str) -> bool:
    ip = _ip(address)
    return ip is not None and any(
        ip in ipaddress.ip_network(entry) for entry in settings.GATEWAY_SHARED_EGRESS
    )


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address; one of IPv4 that a socket for both reports as ``::ffff:a.b.c.d`` is that."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
