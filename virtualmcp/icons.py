"""Icons that upstreams give their tools, prompts and resources (b20). Pure.

A host loads an icon when it shows a list. Only what it can load without asking a stranger's
network for something else is passed on: pictures over https, and pictures inside the entry.
"""

import re

from virtualmcp import raw_members
from virtualmcp.raw_members import NotAnObject

_SIGN = b'"icons"'
_WEB = re.compile(r"https://[^\s/@\\]+(/|\Z)", re.IGNORECASE)
_INSIDE = re.compile(r"data:image/(png|jpeg|jpg|webp|gif|svg\+xml)[;,]", re.IGNORECASE)


def loadable(raw: bytes) -> bytes:
    """Return a listed entry without the icons that a host must not load; the very same bytes
    where there are none."""
    if _SIGN not in raw:
        return raw
    members = raw_members.read(raw)
    if "icons" not in members:
        return raw
    try:
        icons = raw_members.read_items(members["icons"])
        kept = [
            icon for icon in icons if _good(raw_members.text(raw_members.read(icon).get("src")))
        ]
    except NotAnObject:
        del members["icons"]
        return raw_members.write(members)
    if len(kept) == len(icons):
        return raw
    members["icons"] = raw_members.raw(kept)
    return raw_members.write(members)


def _good(source: str | None) -> bool:
    return source is not None and bool(_WEB.match(source) or _INSIDE.match(source))
