"""What one upstream lists: tools, prompts, resources or resource templates. Pure.

Entries stay raw; only what routing must know is looked at.
"""

import hashlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec

from virtualmcp import raw_members
from virtualmcp.mirrored_arguments import AnnotationInvalid, Mirrored, annotations
from virtualmcp.raw_members import Members, NotAnObject

MOST_BYTES = 2 * 1024 * 1024


class Kind(StrEnum):
    """The four lists; the value is the JSON-RPC method."""

    TOOLS = "tools/list"
    PROMPTS = "prompts/list"
    RESOURCES = "resources/list"
    TEMPLATES = "resources/templates/list"

    @property
    def member(self) -> str:
        """Name of the array in the result."""
        return _MEMBERS[self][0]

    @property
    def identity(self) -> str:
        """Name of the member that tells entries apart."""
        return _MEMBERS[self][1]

    @property
    def most(self) -> int:
        """How many entries of one upstream are taken."""
        return _MEMBERS[self][2]


_MEMBERS = {
    Kind.TOOLS: ("tools", "name", 1_000),
    Kind.PROMPTS: ("prompts", "name", 1_000),
    Kind.RESOURCES: ("resources", "uri", 5_000),
    Kind.TEMPLATES: ("resourceTemplates", "uriTemplate", 1_000),
}
_ENVELOPE = frozenset({"nextCursor", "resultType", "ttlMs", "cacheScope", "_meta"})


@dataclass(slots=True, frozen=True)
class Listed:
    """One entry. ``mirrored`` is ``None`` where the schema's header annotations are invalid;
    ``task_only`` tells that its server runs the tool as a task or not at all."""

    identity: str
    raw: bytes
    mirrored: tuple[Mirrored, ...] | None = ()
    task_only: bool = False


@dataclass(slots=True, frozen=True, weakref_slot=True, eq=False)
class ListContent:
    """A whole list of one upstream, all pages together.

    ``digest`` identifies the content, so equal lists of different people are kept once.
    ``extras`` are members of the first page that the gateway does not know. ``mirrors`` tells
    whether arguments of any tool are repeated in headers, ``needs_tasks`` whether any tool can be
    called by clients that take tasks alone; a stateful server's are driven for the others.
    """

    kind: Kind
    entries: tuple[Listed, ...]
    modern: bool
    truncated: bool
    left_out: int
    extras: tuple[tuple[str, bytes], ...]
    meta: bytes
    digest: bytes
    size: int
    by_identity: Mapping[str, Listed] = field(repr=False)
    mirrors: bool = field(init=False)
    needs_tasks: bool = field(init=False)

    def __post_init__(self) -> None:
        """Work out what every call asks."""
        object.__setattr__(self, "mirrors", any(entry.mirrored for entry in self.entries))
        needs = self.modern and any(entry.task_only for entry in self.entries)
        object.__setattr__(self, "needs_tasks", needs)


_kept: "weakref.WeakValueDictionary[bytes, ListContent]" = weakref.WeakValueDictionary()


class ListUnreadable(ValueError):
    """A page that is not the list it should be."""


@dataclass(slots=True, frozen=True)
class Page:
    """One page as it came."""

    items: list[msgspec.Raw]
    next_cursor: str | None
    ttl: float | None
    extras: tuple[tuple[str, bytes], ...]
    meta: bytes


def read_page(kind: Kind, result: bytes) -> Page:
    """Take one page apart.

    Raises:
        ListUnreadable: no such array, or a result that is not final.
    """
    try:
        members = raw_members.read(result)
        items = raw_members.read_items(members.get(kind.member, msgspec.Raw(b"null")))
    except NotAnObject as error:
        raise ListUnreadable(f"the answer to {kind} has no {kind.member}") from error
    if raw_members.text(members.get("resultType")) not in (None, "complete"):
        raise ListUnreadable(f"the answer to {kind} is not final")
    extras = tuple(
        (name, bytes(value))
        for name, value in members.items()
        if name not in _ENVELOPE and name != kind.member
    )
    return Page(
        items=items,
        next_cursor=raw_members.text(members.get("nextCursor")),
        ttl=_seconds(members.get("ttlMs")),
        extras=extras,
        meta=bytes(members.get("_meta", b"")),
    )


def _seconds(raw: msgspec.Raw | None) -> float | None:
    try:
        value = raw_members.value(raw) if raw is not None else None
    except NotAnObject:
        return None
    # A negative one means that it is stale at once (b13).
    return max(float(value), 0.0) / 1000 if isinstance(value, int) and value < 10**12 else None


class Collected:
    """Entries of a list while its pages come in, up to the bounds."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.truncated = False
        self._entries: dict[str, Listed] = {}
        self._left_out = 0
        self._size = 0

    def add(self, items: list[msgspec.Raw]) -> None:
        """Take a page's entries; a bad one is left out and the good ones stay."""
        for item in items:
            if len(self._entries) >= self.kind.most or self._size + len(bytes(item)) > MOST_BYTES:
                self.truncated = True
                return
            entry = _listed(self.kind, item)
            if entry is None or entry.identity in self._entries:
                self._left_out += 1
                continue
            self._entries[entry.identity] = entry
            self._size += len(entry.raw)

    def content(
        self,
        *,
        modern: bool,
        extras: tuple[tuple[str, bytes], ...] = (),
        meta: bytes = b"",
    ) -> ListContent:
        """Return the list, or the equal one that is in memory already."""
        digest = hashlib.blake2b(digest_size=16)
        head = (self.kind.value, modern, self.truncated, self._left_out, extras, meta)
        digest.update(repr(head).encode())
        for entry in self._entries.values():
            digest.update(b"%d:" % len(entry.raw))
            digest.update(entry.raw)
        key = digest.digest()
        known = _kept.get(key)
        if known is None:
            known = ListContent(
                kind=self.kind,
                entries=tuple(self._entries.values()),
                modern=modern,
                truncated=self.truncated,
                left_out=self._left_out,
                extras=extras,
                meta=meta,
                digest=key,
                size=self._size,
                by_identity=MappingProxyType(self._entries),
            )
            _kept[key] = known
        return known


def _listed(kind: Kind, item: msgspec.Raw) -> Listed | None:
    try:
        members = raw_members.read(item)
    except NotAnObject:
        return None
    identity = raw_members.text(members.get(kind.identity))
    if not identity:
        return None
    if kind in (Kind.TOOLS, Kind.PROMPTS) and not identity.isprintable():
        # Characters nobody sees can't be told apart, and not every database stores them.
        return None
    raw = bytes(item)
    if kind is not Kind.TOOLS:
        return Listed(identity, raw)
    task_only = False
    if b"taskSupport" in raw:
        try:
            raw, task_only = _without_tasks(members)
        except NotAnObject:
            return None
    mirrored: tuple[Mirrored, ...] | None = ()
    if b"x-mcp-header" in raw:
        mirrored = _mirrored(members)
    return Listed(identity, raw, mirrored, task_only)


def _mirrored(members: Members) -> tuple[Mirrored, ...] | None:
    try:
        return annotations(raw_members.value(members.get("inputSchema", msgspec.Raw(b"null"))))
    except (AnnotationInvalid, NotAnObject):
        return None


def annotation_fault(entry: Listed) -> str:
    """Say what is wrong with the header annotations of a tool; "" where nothing is."""
    try:
        members = raw_members.read(entry.raw)
        annotations(raw_members.value(members.get("inputSchema", msgspec.Raw(b"null"))))
    except (AnnotationInvalid, NotAnObject) as fault:
        return str(fault)
    return ""


def _without_tasks(members: Members) -> tuple[bytes, bool]:
    """Drop what says how a tool runs as a task of 2025-11-25, which clients do not see (2.3.8);
    tells whether it runs in no other way."""
    execution: Any = raw_members.value(members.get("execution", msgspec.Raw(b"null")))
    if not isinstance(execution, dict) or "taskSupport" not in execution:
        return raw_members.write(members), False
    task_only = execution.pop("taskSupport") == "required"
    rest = {**members, "execution": raw_members.raw(execution)}
    if not execution:
        del rest["execution"]
    return raw_members.write(rest), task_only
