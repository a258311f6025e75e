"""The names tools and prompts carry in public (protocol.md 3.2). Pure.

A name is pinned at first sight and never changes hands: the first owner keeps the bare name,
later colliders get ``{key}_{name}``, so an upstream that adds a name in use takes nothing over;
by the administrator's choice all get that.
Routing looks names up; it never splits them, since upstream names may contain the separator.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from virtualmcp.route_table import Owned, Route

# Model APIs behind several hosts cap function names at 64; ChatGPT is one (clients.md 3.7).
LONGEST = 64
# What the database can hold; a transparent Virtual MCP passes longer names on unpinned.
LONGEST_PINNED = 128
LONGEST_UPSTREAM = 256
ALPHABET = "letters of the English alphabet, digits, _ and -"
_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_DIGITS = 8


@dataclass(slots=True, frozen=True)
class Sighting:
    """A name an upstream was seen to list."""

    upstream_id: int
    key: str
    name: str

    @property
    def owned(self) -> Owned:
        """What a pin is looked up by."""
        return (self.upstream_id, self.name)


@dataclass(slots=True, frozen=True)
class Resolution:
    """Where a called name leads: one route, or the public names of several candidates."""

    route: Route | None = None
    candidates: tuple[str, ...] = ()


def choose(
    sightings: Iterable[Sighting],
    pinned: Mapping[Owned, str],
    *,
    transparent: bool,
    always_prefixed: bool = False,
    former: Mapping[str, int] | None = None,
) -> dict[Owned, str]:
    """Choose public names for those sighted that have none yet, in the order given.

    A transparent Virtual MCP keeps every name as it is; with ``always_prefixed`` another one puts
    the upstream's key before each. ``pinned`` are all names taken so far, ``former`` those that
    stay reserved after a change by hand, and for which upstream.
    """
    taken = {name: upstream_id for (upstream_id, _), name in pinned.items()} | dict(former or {})
    chosen: dict[Owned, str] = {}
    for sighting in sightings:
        if sighting.owned in pinned or sighting.owned in chosen:
            continue
        if len(sighting.name) > LONGEST_UPSTREAM:
            continue
        name = _choose_one(sighting, taken, transparent, always_prefixed)
        if name:
            chosen[sighting.owned] = name
            taken[name] = sighting.upstream_id
    return chosen


def _choose_one(
    sighting: Sighting, taken: Mapping[str, int], transparent: bool, always_prefixed: bool
) -> str:
    if transparent and taken.get(sighting.name) != sighting.upstream_id:
        fits = len(sighting.name) <= LONGEST_PINNED and sighting.name not in taken
        return sighting.name if fits else ""
    # Also where the single upstream adds a name that another tool of its own was given by hand.
    with_key = (prefixed(sighting.key, sighting.name), hashed(sighting.key, sighting.name))
    for candidate in with_key if always_prefixed else (bare(sighting.name), *with_key):
        if candidate not in taken:
            return candidate
    return ""


def bare(name: str) -> str:
    """Return the name itself, made safe and short if it is not."""
    return _fitted(name, name)


def prefixed(key: str, name: str) -> str:
    """Return the collider's name: the upstream's key, never what the server calls itself (a34)."""
    return _fitted(f"{key}_{name}", f"{key}\0{name}")


def hashed(key: str, name: str) -> str:
    """Return the last resort, for when another upstream owns even the prefixed name."""
    return _suffixed(f"{key}_{name}", f"{key}\0{name}")


def _fitted(wanted: str, identity: str) -> str:
    return wanted if _SAFE.match(wanted) else _suffixed(wanted, identity)


def _suffixed(wanted: str, identity: str) -> str:
    """Replace what is not allowed, cut, and keep different names apart by a digest."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{_UNSAFE.sub('_', wanted)[: LONGEST - _DIGITS - 1]}_{digest}"


def is_safe(name: str) -> bool:
    """Tell whether hosts take a name: of the right characters, and not too long for a model."""
    return _SAFE.match(name) is not None


def resolve(
    name: str,
    routes: Mapping[str, Route],
    shown: Callable[[Route], bool],
    former: Mapping[str, Route] | None = None,
) -> Resolution:
    """Find where a called name leads, among the routes this person is shown.

    Public names come first, then those that a tool had before an administrator gave it another.
    Then hidden aliases: the upstream's own name and its prefixed form, as long as exactly one
    upstream owns it (MCP Apps hard-code bare names; hosts keep lists from before a rename).
    """
    route = routes.get(name) or (former or {}).get(name)
    if route is not None and shown(route):
        return Resolution(route)
    owners = [
        (public, route)
        for public, route in routes.items()
        if name in (route.name, prefixed(route.upstream.key, route.name)) and shown(route)
    ]
    if len(owners) == 1:
        return Resolution(owners[0][1])
    return Resolution(candidates=tuple(public for public, _ in owners))
