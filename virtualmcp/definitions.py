"""What a model is told of a tool, a prompt or a server, as something that can be pinned. Pure.

A server that was harmless when it was chosen can change what it tells the model later (tool
poisoning, "rug pull"; protocol.md 3.2.6, 5.14). So whatever is told is reduced to its meaning,
title, description, schemas, arguments and annotations, and known by a digest of that. ``_meta``
and icons are not part of it: models do not read them, and servers put changing values there.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from virtualmcp import raw_members
from virtualmcp.listed_entries import Kind, ListContent
from virtualmcp.raw_members import NotAnObject

TOLD = ("title", "description", "inputSchema", "outputSchema", "arguments", "annotations")
_DIGEST_BYTES = 16
# What is beyond is never written down; it is withheld where anything may be held.
LONGEST_NAME = 256
MOST_PER_UPSTREAM = 5_000


class Subject(StrEnum):
    """What a definition is of; instructions have no name."""

    TOOL = "tool"
    PROMPT = "prompt"
    INSTRUCTIONS = "instructions"


SUBJECTS: Mapping[Kind, Subject] = {Kind.TOOLS: Subject.TOOL, Kind.PROMPTS: Subject.PROMPT}

# (upstream id, subject, name as the upstream gives it)
Pinned = tuple[int, str, str]


class Standing(StrEnum):
    """What is decided about a definition; ``NEW`` is one that nobody has written down yet."""

    APPROVED = "approved"
    WAITING = "waiting"
    REJECTED = "rejected"
    NEW = "new"


@dataclass(slots=True, frozen=True)
class Known:
    """The definitions one name was seen with: what is decided of each, and the last one seen.

    ``refused``: the last word of an administrator on the name was a no, so another wording is not
    served either before they have looked at it, whatever the policy.
    """

    standings: Mapping[str, Standing]
    last: str
    refused: bool = False


@dataclass(slots=True, frozen=True)
class Review:
    """A Virtual MCP's rules for definitions, and what is known of them.

    ``hold_new``: what is seen for the first time waits for an administrator. ``hold_changed``:
    so does what differs from what was seen before. Otherwise either is served, unless the name was
    rejected; a change raises an alert in any case.
    """

    hold_new: bool = False
    hold_changed: bool = False
    known: Mapping[Pinned, Known] = field(default_factory=dict)
    any_rejected: bool = False
    # Upstreams of which nothing more is written down.
    full: frozenset[int] = frozenset()

    @property
    def can_hold(self) -> bool:
        """Whether anything may be held back at all; if not, a call need not be looked at."""
        return self.hold_new or self.hold_changed or self.any_rejected

    def standing(self, pinned: Pinned, digest: str) -> Standing:
        """Return what is decided about a definition."""
        known = self.known.get(pinned)
        return Standing.NEW if known is None else known.standings.get(digest, Standing.NEW)

    def serves(self, pinned: Pinned, digest: str) -> bool:
        """Tell whether clients may see and use what is defined so; ``""`` takes the last one
        that was seen."""
        known = self.known.get(pinned)
        if known is None:
            # What can't be pinned could change unnoticed.
            pinnable = pinned[0] not in self.full and len(pinned[2]) <= LONGEST_NAME
            return not self.hold_new and (pinnable or not self.hold_changed)
        standing = known.standings.get(digest or known.last, Standing.NEW)
        if standing is Standing.APPROVED:
            return True
        if standing is Standing.REJECTED or known.refused:
            return False
        approved = Standing.APPROVED in known.standings.values()
        return not (self.hold_changed if approved else self.hold_new)


@dataclass(slots=True, frozen=True)
class Definition:
    """What is told, as sorted JSON, its digest, and whether a tool says that it only reads."""

    digest: str
    content: bytes
    read_only: bool = False


_by_content: "WeakKeyDictionary[ListContent, dict[str, str]]" = WeakKeyDictionary()


def of_entry(raw: bytes) -> Definition:
    """Return the definition of a listed tool or prompt.

    Raises:
        NotAnObject: the entry is not a JSON object, or can't be read.
    """
    members = raw_members.read(raw)
    return _definition({name: members[name] for name in TOLD if name in members})


def of_instructions(text: str) -> Definition:
    """Return the definition of a server's instructions."""
    return _definition({"instructions": text})


def _definition(told: Mapping[str, Any]) -> Definition:
    plain = raw_members.value(raw_members.write(told))
    content = msgspec.json.encode(plain, order="sorted")
    annotations = plain.get("annotations") if isinstance(plain, dict) else None
    read_only = isinstance(annotations, dict) and annotations.get("readOnlyHint") is True
    digest = hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()
    return Definition(digest, content, read_only)


def digests(content: ListContent) -> Mapping[str, str]:
    """Return the digest of every entry by its name; reckoned once per list."""
    found = _by_content.get(content)
    if found is None:
        found = {}
        for entry in content.entries:
            try:
                found[entry.identity] = of_entry(entry.raw).digest
            except NotAnObject:
                found[entry.identity] = ""
        _by_content[content] = found
    return found
