"""Which addresses the gateway may connect to on somebody else's word (protocol.md 5.4).

Two questions are answered here for both HTTP clients of this room: may this URL be
used at all (``check_url``, pure), and which checked addresses does its host have
(``resolve``). The caller connects to one of those addresses and to nothing else, so
that a name which changes its answer between check and connect gains nothing.

An address is judged by what it finally reaches: IPv4 inside IPv6 (mapped, NAT64,
ISATAP) is judged as that IPv4 address; 6to4, Teredo and every block that is not
global unicast are refused.
"""

import asyncio
import re
import socket
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, Literal, Protocol
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from upstreams.errors import EgressRefused, UpstreamUnreachable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

RESOLVE_SECONDS: Final = 3.0
CACHE_SECONDS: Final = 30.0
CACHE_ENTRIES: Final = 1024
MAX_URL: Final = 2000

# IANA special-purpose registries (RFC 6890 and its successors), written out because the
# standard library's ``is_global`` differs between Python releases.
_SPECIAL_V4: Final = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # Teredo, ORCHID, benchmarking and other protocol assignments
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP_MARKS: Final = (0x00005EFE, 0x02005EFE)
_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
# Cloud metadata services: never, not even when an administrator allows the block around them.
_METADATA_ADDRESSES: Final = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)
_METADATA_HOSTS: Final = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.azure.internal",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z"
)
_NUMERIC_LABEL: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z")
_URL_CHARACTERS: Final = re.compile(r"[!#-;=?-\[\]_a-z~%A-Z]+\Z")


class HasPrivateNetwork(Protocol):
    """Anything that carries an upstream's allow-list: the model or its facts."""

    @property
    def private_network(self) -> str: ...


@dataclass(frozen=True, slots=True)
class EgressRules:
    """What an upstream may reach beyond the public internet.

    ``networks`` is the administrator's allow-list for this upstream; ``allow_loopback``
    is the development switch.
    """

    networks: tuple[Network, ...] = ()
    allow_loopback: bool = False

    @property
    def plain_possible(self) -> bool:
        """Whether http without TLS can be allowed for some address at all."""
        return self.allow_loopback or bool(self.networks)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma separated list of CIDR blocks.

    Raises:
        ValueError: a part is not a network.
    """
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def rules_for(private_network: str, *, allow_loopback: bool | None = None) -> EgressRules:
    """Return the rules for one allow-list; loopback follows the site's setting unless told.

    A list that cannot be read allows nothing.
    """
    try:
        networks = parse_networks(private_network)
    except ValueError:
        networks = ()
    if allow_loopback is None:
        allow_loopback = bool(settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS)
    return EgressRules(networks=networks, allow_loopback=allow_loopback)


def upstream_rules(upstream: HasPrivateNetwork) -> EgressRules:
    """Return the rules for everything fetched on behalf of this upstream."""
    return rules_for(upstream.private_network)


def _inside(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == block.version and address in block for block in networks)


def _special(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return _inside(address, _SPECIAL_V4)
    return address not in _GLOBAL_V6 or _inside(address, _SPECIAL_V6)


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that a mapped or NAT64 address really reaches, else itself."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def address_allowed(address: Address | str, rules: EgressRules) -> bool:
    """Return whether the gateway may connect to this address under these rules."""
    try:
        found = ip_address(address) if isinstance(address, str) else address
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.scope_id:
        return False
    reached = _embedded(found)
    if reached in _METADATA_ADDRESSES:
        return False
    if isinstance(reached, IPv6Address) and (int(reached) >> 32) & 0xFFFFFFFF in _ISATAP_MARKS:
        tunnelled = IPv4Address(int(reached) & 0xFFFFFFFF)
        return address_allowed(tunnelled, rules) and not _special(reached)
    if _inside(reached, rules.networks):
        return not (reached.is_multicast or reached.is_unspecified)
    if _inside(reached, _LOOPBACK):
        return rules.allow_loopback
    return not _special(reached)


def plain_allowed(address: Address | str, rules: EgressRules) -> bool:
    """Return whether http without TLS may be spoken to this address: loopback or allow-listed."""
    try:
        found = _embedded(ip_address(address) if isinstance(address, str) else address)
    except ValueError:
        return False
    if not address_allowed(found, rules):
        return False
    return _inside(found, rules.networks) or (rules.allow_loopback and _inside(found, _LOOPBACK))


def _refuse(detail: str) -> EgressRefused:
    return EgressRefused(
        "The address of this server is not one the gateway may connect to.", detail=detail
    )


def host_of(parts: SplitResult) -> str:
    """Return the host in lower case without brackets and without a final dot.

    Raises:
        EgressRefused: the host is written in a form that two programs may read differently.
    """
    host = (parts.hostname or "").lower()
    if ":" in host:
        try:
            literal = IPv6Address(host)
        except ValueError as error:
            raise _refuse(f"{host!r} is not an IPv6 address") from error
        if literal.scope_id:
            raise _refuse("an IPv6 zone is not allowed in an address")
        return str(literal)
    host = host[:-1] if host.endswith(".") else host
    if not _NAME.match(host):
        raise _refuse(f"{host!r} is not a host name; write an international name as xn--...")
    if _NUMERIC_LABEL.match(host.rsplit(".", 1)[-1]):
        # Whatever ends in a number is an IPv4 address to somebody (WHATWG URL 3.5); only the
        # one canonical spelling is accepted, so octal, hex and short forms are not.
        try:
            return str(IPv4Address(host))
        except ValueError as error:
            raise _refuse(f"{host!r} is not an address in plain decimal form") from error
    return host


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _check_form(url: str) -> SplitResult:
    if len(url) > MAX_URL or not _URL_CHARACTERS.match(url):
        raise _refuse("the address is too long or holds characters a URL may not hold")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refuse("the address cannot be read") from error
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise _refuse("the address must begin with https:// and the server's name")
    if "@" in parts.netloc or parts.fragment or "#" in url:
        raise _refuse("the address must not hold a user name or a fragment")
    if port == 0 or parts.netloc.endswith(":"):
        raise _refuse("the port is not usable")
    return parts


def check_url(
    url: str,
    *,
    private_network: str = "",
    purpose: Literal["upstream", "client_metadata"] = "upstream",
) -> None:
    """Refuse a URL whose form or literal address is not allowed; looks nothing up.

    Raises:
        EgressRefused: see its ``detail`` for the reason.
    """
    switch = (
        settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS
        if purpose == "upstream"
        else settings.GATEWAY_ALLOW_LOOPBACK_CLIENT_METADATA
    )
    check_url_by(url, rules_for(private_network, allow_loopback=bool(switch)))


def check_url_by(url: str, rules: EgressRules) -> None:
    """Do what ``check_url`` does for rules that are already made."""
    parts = _check_form(url)
    host = host_of(parts)
    plain = parts.scheme == "http"
    if plain and not rules.plain_possible:
        raise _refuse("the address must begin with https://")
    if host in _METADATA_HOSTS:
        raise _refuse(f"{host} is a cloud metadata service")
    if (host == "localhost" or host.endswith(".localhost")) and not rules.plain_possible:
        raise _refuse("localhost is not allowed")
    literal = _literal(host)
    if literal is not None and not address_allowed(literal, rules):
        raise _refuse(f"{host} is a special-use address")
    if literal is not None and plain and not plain_allowed(literal, rules):
        raise _refuse("the address must begin with https://")


_cache: OrderedDict[tuple[str, int], tuple[float, tuple[str, ...]]] = OrderedDict()
_pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="resolver")


def _look_up(host: str, port: int) -> tuple[str, ...]:
    """Ask the system's resolver; runs in a thread because it blocks."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


async def _addresses(host: str, port: int) -> tuple[str, ...]:
    cached = _cache.get((host, port))
    if cached and cached[0] > time.monotonic():
        return cached[1]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.run_in_executor(_pool, _look_up, host, port)
    except TimeoutError as error:
        raise UpstreamUnreachable(
            "The server's name could not be looked up in time.", detail=f"DNS timeout for {host}"
        ) from error
    except (OSError, UnicodeError) as error:
        raise UpstreamUnreachable(
            "The server's name could not be found.", detail=f"DNS failure for {host}: {error}"
        ) from error
    if found:
        _cache[host, port] = (time.monotonic() + CACHE_SECONDS, found)
        while len(_cache) > CACHE_ENTRIES:
            _cache.popitem(last=False)
    return found


def forget_names() -> None:
    """Drop every cached name."""
    _cache.clear()


async def resolve(
    host: str,
    port: int,
    *,
    private_network: str = "",
    allow_loopback: bool | None = None,
    plain: bool = False,
) -> list[str]:
    """Return the checked addresses of a host, in the resolver's order.

    ``plain`` tells that http without TLS will be spoken, which only loopback and
    allow-listed addresses may be. ``allow_loopback=None`` follows the site's setting.

    Raises:
        EgressRefused: at least one address is not allowed. One bad address spoils the
            name, otherwise an attacker would only have to make us try the next one.
        UpstreamUnreachable: the name cannot be looked up.
    """
    return await resolve_by(
        host, port, rules_for(private_network, allow_loopback=allow_loopback), plain=plain
    )


async def resolve_by(host: str, port: int, rules: EgressRules, *, plain: bool = False) -> list[str]:
    """Do what ``resolve`` does for rules that are already made."""
    if host in _METADATA_HOSTS:
        raise _refuse(f"{host} is a cloud metadata service")
    literal = _literal(host)
    found = (str(literal),) if literal is not None else await _addresses(host, port)
    if not found:
        raise UpstreamUnreachable(
            "The server's name could not be found.", detail=f"no address: {host}"
        )
    passes = plain_allowed if plain else address_allowed
    for address in found:
        if not passes(address, rules):
            raise _refuse(f"{host} resolves to {address}, which is not allowed")
    return list(found)
