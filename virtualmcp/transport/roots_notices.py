"""A stateful client's notice of changed roots, on its way to the upstreams its calls use (2.3.1).

Any process may hold sessions that the client uses, so all hear of it by the change feed:

    changed(kind="roots", key="<session> <number>")

A session may be shared by clients of one person with equal capabilities. Its upstream is told all
the same, and the ``roots/list`` that follows is put to the client that told.
"""

import secrets
from collections import OrderedDict
from typing import Final

from upstreams import legacy_sessions
from virtualmcp import raw_members
from virtualmcp.eras.era_in import Session
from virtualmcp.raw_members import NotAnObject
from virtualmcp.signals import changed

KIND: Final = "roots"
METHOD: Final = "notifications/roots/list_changed"
MOST_REMEMBERED: Final = 1_000
_heard: OrderedDict[str, None] = OrderedDict()


def tell(session: Session) -> None:
    """Pass a notice on, if the client said that it would send any."""
    if _announced(session.facts.capabilities):
        key = f"{session.digest} {secrets.token_hex(8)}"
        changed.send(sender=Session, kind=KIND, key=key)


def hear(key: str) -> None:
    """Tell the upstreams of this process, once for each notice; from any thread."""
    digest, _, number = key.partition(" ")
    if not number or key in _heard:
        return
    _heard[key] = None
    while len(_heard) > MOST_REMEMBERED:
        _heard.popitem(last=False)
    legacy_sessions.roots_changed_anywhere(digest)


def _announced(capabilities: bytes) -> bool:
    try:
        roots = raw_members.read(raw_members.read(capabilities)["roots"])
    except (KeyError, NotAnObject):
        return False
    return bytes(roots.get("listChanged", b"")) == b"true"
