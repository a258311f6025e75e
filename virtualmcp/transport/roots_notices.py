"""A stateful client's notice of changed roots, on its way to the upstreams its calls use (2.3.1).

Any process may hold sessions that the client uses, so all hear of it by the change feed:

    changed(kind="roots", key="<session> <number>")

Of a session's notices within ``APART_SECONDS`` the first is passed on, and the last at their end.

A session may be shared by clients of one person with equal capabilities. Its upstream is told all
the same, and the ``roots/list`` that follows is put to the client that told.
"""

import asyncio
import secrets
from collections import OrderedDict
from typing import Final
from weakref import WeakKeyDictionary

from upstreams import legacy_sessions
from virtualmcp import raw_members
from virtualmcp.eras.era_in import Session
from virtualmcp.raw_members import NotAnObject
from virtualmcp.signals import changed

KIND: Final = "roots"
METHOD: Final = "notifications/roots/list_changed"
MOST_REMEMBERED: Final = 1_000
APART_SECONDS: Final = 1.0
# The sessions whose notice was passed on just now, and whether another one came since.
_lately: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, bool]] = WeakKeyDictionary()
_heard: OrderedDict[str, None] = OrderedDict()


def tell(session: Session) -> None:
    """Pass a notice on, if the client said that it would send any."""
    if not _announced(session.facts.capabilities):
        return
    lately = _lately.setdefault(asyncio.get_running_loop(), {})
    if session.digest in lately:
        lately[session.digest] = True
    else:
        _pass_on(session.digest)


def _pass_on(digest: str) -> None:
    changed.send(sender=Session, kind=KIND, key=f"{digest} {secrets.token_hex(8)}")
    loop = asyncio.get_running_loop()
    _lately[loop][digest] = False
    loop.call_later(APART_SECONDS, _end_of, digest)


def _end_of(digest: str) -> None:
    if _lately[asyncio.get_running_loop()].pop(digest):
        _pass_on(digest)


def hear(key: str) -> None:
    """Tell the upstreams of this process, once for each notice; from any thread."""
    digest, _, number = key.partition(" ")
    if not number or key in _heard:
        return
    _heard[key] = None
    while len(_heard) > MOST_REMEMBERED:
        _heard.popitem(last=False)
    legacy_sessions.roots_changed_anywhere(digest, number)


def _announced(capabilities: bytes) -> bool:
    try:
        roots = raw_members.read(raw_members.read(capabilities)["roots"])
    except (KeyError, NotAnObject):
        return False
    return bytes(roots.get("listChanged", b"")) == b"true"
