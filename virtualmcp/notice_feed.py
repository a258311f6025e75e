"""Notices of stateful upstreams, passed on to every process.

Each process has sessions of its own with an upstream, and an upstream may tell only that session
of a change whose call made it. Who listens may be connected to another process. So a notice that
came on a call's stream, or on a session's, travels with the change feed as well:

    changed(kind="notice", key="<process>.<number> <upstream id> <credential id> <what>")

``what`` is "tools", "prompts", "resources", or a resource's URI behind "=". One that does not fit
is heard by this process alone. At most one of a kind in ``APART_SECONDS`` is passed on at once;
what comes in between follows at the end of that time.
"""

import asyncio
import itertools
import logging
import secrets
from collections import OrderedDict
from typing import Final

from upstreams import change_streams, credentials, json_rpc
from upstreams.change_interest import LIST_METHODS, UPDATED, uri_in
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp.signals import changed
from virtualmcp.tool_catalogue import catalogue

logger = logging.getLogger(__name__)

APART_SECONDS: Final = 0.25
LONGEST_KEY: Final = 500
MOST_REMEMBERED: Final = 2_000
_METHODS: Final = {name: method for method, name in LIST_METHODS.items()}

_process = secrets.token_hex(6)
_numbers = itertools.count(1)
_waiting: dict[tuple[int, str, str], asyncio.TimerHandle] = {}
_seen: OrderedDict[str, None] = OrderedDict()


def lists_changed(upstream_id: int, credential_id: str) -> None:
    """Have lists read again that an upstream said are other ones now."""
    catalogue.expire(upstream_id=upstream_id, credential_id=credential_id)


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
    about = (upstream_id, credential_id, what)
    if what == "=" or about in _waiting:
        return
    _waiting[about] = asyncio.get_running_loop().call_later(APART_SECONDS, _send, about)


def _send(about: tuple[int, str, str]) -> None:
    _waiting.pop(about, None)
    key = f"{_process}.{next(_numbers)} {about[0]} {about[1]} {about[2]}"
    if len(key) <= LONGEST_KEY and not any(char in about[1] for char in " \n"):
        changed.send(sender=None, kind="notice", key=key)


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
    elif what.startswith("="):
        params = json_rpc.object_of({"uri": what[1:]})
        change_streams.deliver_anywhere(int(upstream), credential_id, UPDATED, params)
