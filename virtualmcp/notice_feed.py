"""Notices of upstreams, passed on to every process.

One process hears what an upstream tells for all: it listens to a stateless one
(``shared_listening``), or holds the stream of a session with a stateful one (``stream_turns``).
Who wants to hear may be connected to another process. So a notice travels with the change feed as
well:

    changed(kind="notice", key="<process>.<number> <upstream id> <credential id> <what>")

``what`` is "tools", "prompts", "resources", a resource's URI behind "=", or "*": so many resources
were updated, or one with so long a URI, that everybody hears of all they subscribed to. What comes
within ``APART_SECONDS`` is passed on together at their end.
"""

import asyncio
import itertools
import logging
import secrets
from collections import OrderedDict
from typing import Final
from weakref import WeakKeyDictionary

from upstreams import change_streams, credentials, json_rpc
from upstreams.change_interest import LIST_METHODS, UPDATED, uri_in
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp.signals import changed
from virtualmcp.tool_catalogue import catalogue

logger = logging.getLogger(__name__)

APART_SECONDS: Final = 0.25
# Different resources of one upstream and credential told of by name in that time.
MOST_URIS: Final = 20
ANYTHING: Final = "*"
LONGEST_KEY: Final = 500
MOST_REMEMBERED: Final = 2_000
_METHODS: Final = {name: method for method, name in LIST_METHODS.items()}

_process = secrets.token_hex(6)
_numbers = itertools.count(1)
_seen: OrderedDict[str, None] = OrderedDict()
_Owner = tuple[int, str]


class _Expiring:
    """Has the lists of an upstream and credential read again, at most once in APART_SECONDS."""

    def __init__(self) -> None:
        self._again: dict[_Owner, bool] = {}

    def changed(self, owner: _Owner) -> None:
        """Do so now, or at the end of the time that is running."""
        if owner in self._again:
            self._again[owner] = True
        else:
            self._expire(owner)

    def _expire(self, owner: _Owner) -> None:
        catalogue.expire(upstream_id=owner[0], credential_id=owner[1])
        self._again[owner] = False
        asyncio.get_running_loop().call_later(APART_SECONDS, self._end, owner)

    def _end(self, owner: _Owner) -> None:
        if not self._again.pop(owner):
            return
        self._expire(owner)
        # Who looked since the first of these notices may have seen what was still kept.
        for method in LIST_METHODS:
            change_streams.deliver(*owner, method, b"{}")
        self._again[owner] = False


class _Telling:
    """What the other processes are told of an upstream and credential at the end of this time."""

    def __init__(self) -> None:
        self._waiting: dict[_Owner, dict[str, None]] = {}

    def tell(self, owner: _Owner, what: str) -> None:
        """Tell it soon; of too many resources it is only said that anything may have changed."""
        waiting = self._waiting.get(owner)
        if waiting is None:
            waiting = self._waiting[owner] = {}
            asyncio.get_running_loop().call_later(APART_SECONDS, self._send, owner)
        if what in waiting or (ANYTHING in waiting and what not in _METHODS):
            return
        if sum(known not in _METHODS for known in waiting) >= MOST_URIS and what not in _METHODS:
            for known in [known for known in waiting if known not in _METHODS]:
                del waiting[known]
            what = ANYTHING
        waiting[what] = None

    def _send(self, owner: _Owner) -> None:
        for what in self._waiting.pop(owner):
            key = _key(owner, what)
            if len(key) > LONGEST_KEY:
                key = _key(owner, ANYTHING)
            if not any(char in owner[1] for char in " \n"):
                changed.send(sender=None, kind="notice", key=key)


def _key(owner: _Owner, what: str) -> str:
    return f"{_process}.{next(_numbers)} {owner[0]} {owner[1]} {what}"


# Of each event loop, so that one that has ended leaves nothing waiting.
_expiring: WeakKeyDictionary[asyncio.AbstractEventLoop, _Expiring] = WeakKeyDictionary()
_telling: WeakKeyDictionary[asyncio.AbstractEventLoop, _Telling] = WeakKeyDictionary()


def lists_changed(upstream_id: int, credential_id: str) -> None:
    """Have lists read again that an upstream said are other ones now."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        catalogue.expire(upstream_id=upstream_id, credential_id=credential_id)
        return
    _expiring.setdefault(loop, _Expiring()).changed((upstream_id, credential_id))


def heard_on_call(user_id: int, facts: UpstreamFacts, method: str, params: bytes) -> None:
    """A notice came on the stream of a person's call."""
    credential = credentials.cached_credential(user_id, facts)
    if credential is None:
        return
    if method in LIST_METHODS:
        lists_changed(facts.id, credential.id)
    change_streams.deliver(facts.id, credential.id, method, params)
    pass_on(facts.id, credential.id, method, params)


def pass_on(upstream_id: int, credential_id: str, method: str, params: bytes) -> None:
    """Tell the other processes, soon."""
    what = LIST_METHODS.get(method) or f"={uri_in(params)}"
    if what != "=":
        telling = _telling.setdefault(asyncio.get_running_loop(), _Telling())
        telling.tell((upstream_id, credential_id), what)


def hear(key: str) -> None:
    """Take in what a process passed on; our own, and what came before, is left alone."""
    number, _, rest = key.partition(" ")
    if not rest or number.startswith(f"{_process}.") or number in _seen:
        return
    _seen[number] = None
    while len(_seen) > MOST_REMEMBERED:
        _seen.popitem(last=False)
    upstream, _, rest = rest.partition(" ")
    credential_id, _, what = rest.partition(" ")
    if not upstream.isdecimal():
        return
    if what in _METHODS:
        lists_changed(int(upstream), credential_id)
        change_streams.deliver_anywhere(int(upstream), credential_id, _METHODS[what], b"{}")
    elif what == ANYTHING:
        change_streams.make_up_anywhere(int(upstream), credential_id)
    elif what.startswith("="):
        params = json_rpc.object_of({"uri": what[1:]})
        change_streams.deliver_anywhere(int(upstream), credential_id, UPDATED, params)
