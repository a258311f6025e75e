"""What a listener wants to hear of an upstream: changed lists, resources by URI, tasks. Pure.

The same type serves as filter of ``subscriptions/listen`` (2026-07-28), as the sum of
``resources/subscribe`` requests of a stateful session, and as what an upstream agreed to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from upstreams import json_rpc
from upstreams.json_rpc import NotJsonRpc

UPDATED: Final = "notifications/resources/updated"
LISTS: Final = ("tools", "prompts", "resources")
LIST_METHODS: Final = {f"notifications/{name}/list_changed": name for name in LISTS}
_FLAGS: Final = {f"{name}ListChanged": name for name in LISTS}
URIS_MEMBER: Final = "resourceSubscriptions"
# Of the tasks extension: each notice is the whole state of one task.
TASK_CHANGED: Final = "notifications/tasks"
TASKS_MEMBER: Final = "taskIds"
# What may follow a subscribed URI in that of a part of it (protocol.md 2.3.6).
_BOUNDARIES: Final = "/#?"


@dataclass(frozen=True, slots=True)
class Interest:
    """``lists`` are names out of ``LISTS``; ``uris``, and ids of ``tasks``, are in the terms of
    whoever holds this."""

    lists: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.lists or self.uris or self.tasks)

    def __or__(self, other: "Interest") -> "Interest":
        return Interest(self.lists | other.lists, self.uris | other.uris, self.tasks | other.tasks)

    def __and__(self, other: "Interest") -> "Interest":
        return Interest(self.lists & other.lists, self.uris & other.uris, self.tasks & other.tasks)

    def __le__(self, other: "Interest") -> bool:
        return self.lists <= other.lists and self.uris <= other.uris and self.tasks <= other.tasks

    def within(self, capabilities: Mapping[str, Any]) -> "Interest":
        """Return the part that a server with these capabilities says it can tell of, but tasks:
        of those each client hears by a stream of its own."""
        lists = {name for name in self.lists if _flag(capabilities, name, "listChanged")}
        uris = self.uris if _flag(capabilities, "resources", "subscribe") else frozenset()
        return Interest(frozenset(lists), uris)

    def covers(self, method: str, uri: str) -> bool:
        """Tell whether a notice is one of these; ``uri`` may be a part of a subscribed one. For a
        notice about a task it is the task's id."""
        if method == TASK_CHANGED:
            return uri in self.tasks
        if method != UPDATED:
            return LIST_METHODS.get(method) in self.lists
        return uri in self.uris or any(part_of(uri, whole) for whole in self.uris)

    def as_filter(self) -> dict[str, Any]:
        """Return it as ``notifications`` of ``subscriptions/listen``."""
        found: dict[str, Any] = {flag: True for flag, name in _FLAGS.items() if name in self.lists}
        if self.uris:
            found[URIS_MEMBER] = sorted(self.uris)
        if self.tasks:
            found[TASKS_MEMBER] = sorted(self.tasks)
        return found


def part_of(uri: str, whole: str) -> bool:
    """Tell whether a URI names something inside of what another one names."""
    if not uri.startswith(whole) or len(uri) == len(whole):
        return False
    return whole[-1:] in _BOUNDARIES or uri[len(whole)] in _BOUNDARIES


def union(interests: Iterable[Interest]) -> Interest:
    """Return everything that any of them wants."""
    lists: set[str] = set()
    uris: set[str] = set()
    tasks: set[str] = set()
    for interest in interests:
        lists |= interest.lists
        uris |= interest.uris
        tasks |= interest.tasks
    return Interest(frozenset(lists), frozenset(uris), frozenset(tasks))


def from_filter(found: object) -> Interest:
    """Read a filter, also that of an acknowledgement.

    Raises:
        ValueError: a member has the wrong type.
    """
    if not isinstance(found, dict):
        raise ValueError("notifications must be an object.")
    lists = set()
    for flag, name in _FLAGS.items():
        wanted = found.get(flag, False)
        if not isinstance(wanted, bool):
            raise ValueError(f"notifications.{flag} must be true or false.")
        if wanted:
            lists.add(name)
    uris = _texts(found, URIS_MEMBER, "URIs")
    return Interest(frozenset(lists), uris, _texts(found, TASKS_MEMBER, "task ids"))


def _texts(found: Mapping[str, object], member: str, what: str) -> frozenset[str]:
    texts = found.get(member) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"notifications.{member} must be an array of {what}.")
    return frozenset(texts)


def capabilities_in(opened: bytes) -> Mapping[str, Any]:
    """Return the capabilities in a raw ``initialize`` or ``server/discover`` result."""
    try:
        found = json_rpc.plain(opened)
    except NotJsonRpc:
        return {}
    declared = found.get("capabilities") if isinstance(found, dict) else None
    return declared if isinstance(declared, dict) else {}


def uri_in(params: bytes) -> str:
    """Return the URI of ``notifications/resources/updated``, ``""`` where there is none."""
    return _member(params, "uri")


def task_in(params: bytes) -> str:
    """Return the task's id of ``notifications/tasks``, ``""`` where there is none."""
    return _member(params, "taskId")


def _member(params: bytes, name: str) -> str:
    try:
        found = json_rpc.members_of(params or b"{}").get(name)
        text = None if found is None else json_rpc.plain(found)
    except NotJsonRpc:
        return ""
    return text if isinstance(text, str) else ""


def _flag(capabilities: Mapping[str, Any], feature: str, flag: str) -> bool:
    declared = capabilities.get(feature)
    return isinstance(declared, dict) and declared.get(flag) is True
