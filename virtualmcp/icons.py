"""Icons that upstreams give their tools, prompts and resources (b20, protocol.md 3.6). Pure.

A host loads an icon when it shows a list. Only what it can load without harm is passed on:
pictures over https, and pictures inside the entry. Behind a shared URL the former are loaded by
way of the gateway (``icon_addresses``): hosts want an icon to be of the server's own origin, and
no stranger's server learns who looks at a list.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from virtualmcp import raw_members
from virtualmcp.raw_members import NotAnObject

SIGN = b'"icons"'
_WEB = re.compile(r"https://[^\s/@\\]+(/|\Z)", re.IGNORECASE)
_INSIDE = re.compile(r"data:image/(png|jpeg|jpg|webp|gif|svg\+xml)[;,]", re.IGNORECASE)
MOST_ICONS: Final = 8
LONGEST_INSIDE: Final = 64 * 1024

# Returns the address to load a picture from in the place of the upstream's, "" for none.
Address = Callable[[str], str]


def loadable(raw: bytes) -> bytes:
    """Return a listed entry without the icons that a host must not load; the very same bytes
    where there are none."""
    if SIGN not in raw:
        return raw
    members = raw_members.read(raw)
    if "icons" not in members:
        return raw
    try:
        icons = raw_members.read_items(members["icons"])
        kept = [icon for icon in icons if _good(_source(icon))]
    except NotAnObject:
        del members["icons"]
        return raw_members.write(members)
    if len(kept) == len(icons):
        return raw
    members["icons"] = raw_members.raw(kept)
    return raw_members.write(members)


def of_the_gateway(icons: msgspec.Raw, address: Address) -> msgspec.Raw:
    """Return icons as they are loaded by way of the gateway; those that can't be are left out."""
    try:
        found = [_of_the_gateway(icon, address) for icon in raw_members.read_items(icons)]
    except NotAnObject:
        return msgspec.Raw(b"[]")
    return raw_members.raw([icon for icon in found if icon is not None][:MOST_ICONS])


def _of_the_gateway(icon: msgspec.Raw, address: Address) -> msgspec.Raw | None:
    members = raw_members.read(icon)
    source = raw_members.text(members.get("src"))
    if source is None or not _good(source):
        return None
    if not _WEB.match(source):
        return icon if len(source) <= LONGEST_INSIDE else None
    instead = address(source)
    return raw_members.raw({**members, "src": instead}) if instead else None


def _source(icon: msgspec.Raw) -> str | None:
    return raw_members.text(raw_members.read(icon).get("src"))


def _good(source: str | None) -> bool:
    return source is not None and bool(_WEB.match(source) or _INSIDE.match(source))
