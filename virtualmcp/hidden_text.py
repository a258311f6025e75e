"""Characters that people can't see and models read (security.md #203). Pure.

Tag characters spell out whole sentences nobody sees; bidirectional controls show a text in
another order than it is read in; escape sequences drive terminals. None of them has a place in
what a tool says of itself. Joiners and variation selectors stay: scripts and emoji need them.
"""

import re
from typing import Any

import msgspec

from virtualmcp import raw_members
from virtualmcp.raw_members import NotAnObject

_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b"
    "\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
# What raw JSON has in it if there can be any: an escape, or the first bytes of one in UTF-8.
_PERHAPS = re.compile(
    rb"\\u[0-9a-fA-F]|\x7f|\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe1[\x85\x9e\xa0]|\xe2[\x80\x81]"
    rb"|\xe3\x85|\xef[\xbb\xbe\xbf]|\xf3\xa0"
)


def without(text: str) -> str:
    """Return the text as people see it."""
    return _HIDDEN.sub("", text)


def marked(text: str) -> str:
    """Return the text with every hidden character written out, for those who review it."""
    return _HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def cleaned(raw: bytes, members: tuple[str, ...]) -> tuple[bytes, bool]:
    """Return an object without hidden characters in the strings of these members, and whether
    there were any; the very same bytes where there were none."""
    if not _PERHAPS.search(raw):
        return raw, False
    try:
        found = raw_members.read(raw)
        changed = False
        for name in members:
            before = raw_members.value(found[name]) if name in found else None
            after = _without(before)
            if after != before:
                found[name] = raw_members.raw(after)
                changed = True
    except (NotAnObject, msgspec.MsgspecError, UnicodeEncodeError):
        return raw, False
    return (raw_members.write(found), True) if changed else (raw, False)


def _without(value: Any) -> Any:
    if isinstance(value, str):
        return without(value)
    if isinstance(value, list):
        return [_without(item) for item in value]
    if isinstance(value, dict):
        return {name: _without(item) for name, item in value.items()}
    return value
