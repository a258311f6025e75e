"""Public URIs in the arguments of a call, given back to the upstream as it wrote them. Pure.

Behind an address with several upstreams a tool's result may name ``notes+file:///a`` where the
upstream said ``file:///a``, and a model passes on what it read (protocol.md 3.3, "where not").
Only a string that is such a URI of the very upstream that is called, and nothing else, is
changed; an administrator chooses it, since a tool may mean the text itself.
"""

import re

import msgspec

from virtualmcp import raw_members, resource_uris
from virtualmcp.raw_members import NotAnObject

# What deeper structures hold stays as it is.
DEEPEST = 32
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def given_back(arguments: bytes, key: str) -> bytes | None:
    """Return raw ``arguments`` with the URIs that upstream ``key`` knows; None if there is none.

    Everything else stays byte for byte, apart from the space around changed members.
    """
    marker = f"{key}+".encode()
    if marker not in arguments:
        return None
    try:
        changed = _value(arguments, key, marker, DEEPEST)
    except NotAnObject:
        return None
    return None if changed == arguments else changed


def _value(raw: bytes, key: str, marker: bytes, depth: int) -> bytes:
    if depth == 0 or marker not in raw:
        return raw
    match raw.lstrip()[:1]:
        case b'"':
            return _string(raw, key)
        case b"{":
            members = raw_members.read(raw)
            return raw_members.write(
                {
                    name: msgspec.Raw(_value(bytes(member), key, marker, depth - 1))
                    for name, member in members.items()
                }
            )
        case b"[":
            items = raw_members.read_items(raw)
            return raw_members.join_items(
                _value(bytes(item), key, marker, depth - 1) for item in items
            )
    return raw


def _string(raw: bytes, key: str) -> bytes:
    owner = resource_uris.to_upstream(raw_members.text(raw) or "")
    # "{key}+word" is no URI of the upstream: its URIs have a scheme of their own.
    if owner is None or owner.key != key or not _SCHEME.match(owner.uri):
        return raw
    return raw_members.write(owner.uri)
