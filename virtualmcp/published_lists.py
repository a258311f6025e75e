"""The merged lists of a Virtual MCP, serialised once for everybody whose parts are equal.

Tools the administrator filtered out, and definitions that are held back, are not in them; public
names come from the pins; the order is the administrator's order of upstreams, then each upstream's
own (protocol.md 3.2). Parts are identified by content, so the key of a merged list holds nothing
about a person.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from upstreams.revisions import META_SERVER_INFO, Era
from virtualmcp import (
    definitions,
    hidden_text,
    icons,
    raw_members,
    resource_uris,
    security_schemes,
)
from virtualmcp.definitions import SUBJECTS
from virtualmcp.eras.conversion import tool_for
from virtualmcp.listed_entries import Kind, ListContent, Listed
from virtualmcp.models import PublicName
from virtualmcp.raw_members import Members, NotAnObject
from virtualmcp.result_mapping import ResultMapping
from virtualmcp.route_table import ChoiceFacts, Owned, VirtualMcpFacts
from virtualmcp.tool_names import Sighting

# Many clients never ask for a second page, so pages are as large as is reasonable.
PAGE_ENTRIES = 1_000
PAGE_BYTES = 4 * 1024 * 1024
MOST_LISTS = 4_096
MOST_BYTES = 64 * 1024 * 1024

Part = tuple[ChoiceFacts, ListContent]
_shown: dict[bytes, bytes] = {}


@dataclass(slots=True, frozen=True)
class Published:
    """A merged list: raw JSON arrays, one per page, and what a single upstream added to it."""

    digest: bytes
    pages: tuple[bytes, ...]
    extras: tuple[tuple[str, bytes], ...]
    meta: Members
    unpinned: tuple[Sighting, ...]

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(map(len, self.pages))

    @property
    def shown(self) -> bytes:
        """A digest of what clients see: equal for equal lists, whatever else was configured."""
        found = _shown.get(self.digest)
        if found is None:
            if len(_shown) >= MOST_LISTS:
                _shown.clear()
            seen = hashlib.blake2b(digest_size=16)
            for page in self.pages:
                seen.update(page)
            found = _shown[self.digest] = seen.digest()
        return found


class _Shelf:
    """Bounded memory of merged lists, the least recently used go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Published] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[object, ...]) -> Published | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, key: tuple[object, ...], published: Published) -> None:
        self._kept[key] = published
        self._bytes += published.size
        while len(self._kept) > MOST_LISTS or (self._bytes > MOST_BYTES and len(self._kept) > 1):
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.size

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


_shelf = _Shelf()


def forget() -> None:
    """Drop every merged list."""
    _shelf.clear()


def publish(
    server: VirtualMcpFacts, kind: Kind, parts: Sequence[Part], era: Era, *, tasks: bool
) -> Published:
    """Return the merged list, from memory if the same parts were merged before.

    ``tasks``: the client takes tasks; tools of stateless servers that are nothing else are not
    shown to others, who could not call them (protocol.md 2.3.8).
    """
    hide = not tasks and any(content.needs_tasks for _, content in parts)
    digests = tuple((choice.upstream.id, content.digest) for choice, content in parts)
    key = (server.id, server.version, kind, era, digests, hide)
    found = _shelf.get(key)
    if found is None:
        found = _merge(server, kind, parts, era, repr(key).encode(), hide_task_only=hide)
        _shelf.keep(key, found)
    return found


def names_kind(kind: Kind) -> PublicName.Kind | None:
    """Return which pins a list's entries are named by; resources have none."""
    kinds = {Kind.TOOLS: PublicName.Kind.TOOL, Kind.PROMPTS: PublicName.Kind.PROMPT}
    return kinds.get(kind)


def _merge(
    server: VirtualMcpFacts,
    kind: Kind,
    parts: Sequence[Part],
    era: Era,
    identity: bytes,
    *,
    hide_task_only: bool,
) -> Published:
    names = server.tool_names if kind is Kind.TOOLS else server.prompt_names
    entries: list[bytes] = []
    unpinned: list[Sighting] = []
    seen: set[str] = set()
    for choice, content in parts:
        mapping = server.mapping(choice.upstream)
        for entry in content.entries:
            if hide_task_only and content.needs_tasks and entry.task_only:
                continue
            if not _offered(server, choice, content, entry, era):
                continue
            name = entry.identity
            if names_kind(kind) is not None:
                owned: Owned = (choice.upstream.id, entry.identity)
                if owned not in names:
                    unpinned.append(Sighting(choice.upstream.id, choice.upstream.key, name))
                    if not server.transparent or _leads_elsewhere(server, kind, name):
                        continue
                name = names.get(owned, name)
            written = _written(mapping, kind, entry, name, content, era, choice)
            if written is None or not _first(seen, kind, name):
                continue
            entries.append(written)
    extras, meta = _single(server, parts)
    digest = hashlib.blake2b(identity, digest_size=12).digest()
    return Published(digest, _pages(entries), extras, meta, tuple(unpinned))


def _leads_elsewhere(server: VirtualMcpFacts, kind: Kind, name: str) -> bool:
    """Tell whether a name without a pin is that of another entry: one was given it by hand."""
    if kind is Kind.TOOLS:
        return name in server.tools or name in server.former_tools
    return name in server.prompts or name in server.former_prompts


def _offered(
    server: VirtualMcpFacts, choice: ChoiceFacts, content: ListContent, entry: Listed, era: Era
) -> bool:
    subject = SUBJECTS.get(content.kind)
    if subject is not None and server.review.can_hold:
        pinned = (choice.upstream.id, subject, entry.identity)
        if not server.review.serves(pinned, definitions.digests(content)[entry.identity]):
            return False
    if content.kind is not Kind.TOOLS:
        return True
    if entry.mirrored is None and (content.modern or era is Era.MODERN):
        return False
    return choice.shows(entry.identity)


def _written(
    mapping: ResultMapping,
    kind: Kind,
    entry: Listed,
    name: str,
    content: ListContent,
    era: Era,
    choice: ChoiceFacts,
) -> bytes | None:
    renamed = name if name != entry.identity else ""
    try:
        seen, _ = hidden_text.cleaned(entry.raw, definitions.TOLD)
        raw = mapping.entry(kind, icons.loadable(seen), renamed)
        if kind is not Kind.TOOLS:
            return raw
        if choice.reading is not None:
            raw = security_schemes.with_schemes(raw, reads=_reads(choice, entry))
        return tool_for(era, raw, modern_upstream=content.modern)
    except NotAnObject:
        return None


def _reads(choice: ChoiceFacts, entry: Listed) -> bool:
    """Tell whether a tool only reads; the upstream's hint counts before it is learned as well.

    Hosts keep the first list for weeks, and at the first list nothing is known yet.
    """
    if choice.reading is None or entry.identity in choice.reading:
        return True
    hinted = raw_members.value(entry.raw).get("annotations") or {}
    unsaid = entry.identity not in choice.changing
    return unsaid and isinstance(hinted, dict) and hinted.get("readOnlyHint") is True


def _first(seen: set[str], kind: Kind, identity: str) -> bool:
    """Tell whether an https resource is listed for the first time; others can't coincide (3.6)."""
    if kind is not Kind.RESOURCES or not resource_uris.is_web(identity):
        return True
    known = identity in seen
    seen.add(identity)
    return not known


def _single(
    server: VirtualMcpFacts, parts: Sequence[Part]
) -> tuple[tuple[tuple[str, bytes], ...], Members]:
    """Return what the one upstream of a transparent server said beside its entries."""
    if not server.transparent or not parts:
        return (), {}
    content = parts[0][1]
    try:
        meta = raw_members.read(content.meta) if content.meta else {}
    except NotAnObject:
        meta = {}
    meta.pop(META_SERVER_INFO, None)
    return content.extras, meta


def _pages(entries: list[bytes]) -> tuple[bytes, ...]:
    pages: list[bytes] = []
    page: list[bytes] = []
    size = 0
    for entry in entries:
        if page and (len(page) >= PAGE_ENTRIES or size + len(entry) > PAGE_BYTES):
            pages.append(raw_members.join_items(page))
            page, size = [], 0
        page.append(entry)
        size += len(entry)
    pages.append(raw_members.join_items(page))
    return tuple(pages)
