"""How a read begins: heads that clients repeat, recognised by their bytes.

Clients repeat the head of a request on a connection, but for its ``Content-Length``. A head that a
parser has read before is known by a digest of its bytes. The digest decides nothing: it finds what
was learned of the head (``virtualmcp.transport.known_heads``), which is looked at anew each time.
"""

import os
import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

# A client's tools each have a head of their own in the stateless revision (``Mcp-Name``).
MOST_KNOWN_HEADS = 32
MOST_KNOWN_HEAD_BYTES = 4 * 1024
# As nearly all clients write it. Everything else is for the parser to judge.
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?(0|[1-9][0-9]{0,8})\r\n")
# Heads hold tokens: they are known by a digest that means nothing outside of this process.
_KEY = os.urandom(32)
# What says more of a message's framing or the connection's future than its length.
_FRAMING = frozenset((b"transfer-encoding", b"upgrade", b"expect"))


class Begun(NamedTuple):
    """What a read begins with: a head's digest, where its body begins and where that has to end."""

    digest: bytes
    start: int
    end: int


def begun(data: bytes) -> Begun | None:
    """Return what head a read begins with, None if it begins with none that can be known.

    The digest leaves out the number of the one ``Content-Length`` that is looked at, and nothing
    else. A second one makes another digest, and so does a sign, a space or a leading zero.
    """
    stop = data.find(b"\r\n\r\n")
    if not 0 < stop <= MOST_KNOWN_HEAD_BYTES:
        return None
    found = _LENGTH.search(data, 0, stop + 2)
    if found is None:
        return None
    first, last = found.span(1)
    rest = b"%b\0%b" % (data[:first], data[last:stop])
    digest = blake2b(rest, digest_size=16, key=_KEY).digest()
    return Begun(digest, stop + 4, stop + 4 + int(found[1]))


def may_be_known(names: Iterable[bytes]) -> bool:
    """Tell whether a head with headers of these names, in lower case, frames its body by one
    length and by nothing else."""
    names = list(names)
    return names.count(b"content-length") == 1 and _FRAMING.isdisjoint(names)


def remember(known: dict[bytes, Any], digest: bytes, head: Any) -> None:
    """Keep what a head said; the one that was learned first makes room."""
    if len(known) >= MOST_KNOWN_HEADS:
        del known[next(iter(known))]
    known[digest] = head
