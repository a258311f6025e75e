"""Writes down definitions that were seen for the first time, and raises the alert for changes.

Always beside the request that saw them: whether something is served is decided from the snapshot
at hand (``definitions.Review``), for which a definition that nobody wrote down yet is new.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from channels.db import database_sync_to_async
from django.db import transaction

from upstreams.models import Upstream
from virtualmcp import definitions, route_table
from virtualmcp.definitions import (
    LONGEST_NAME,
    SUBJECTS,
    Definition,
    Pinned,
    Standing,
    Subject,
    digests,
    of_entry,
    of_instructions,
)
from virtualmcp.listed_entries import ListContent
from virtualmcp.models import ToolDefinition, VirtualMcp
from virtualmcp.route_table import ChoiceFacts, VirtualMcpFacts
from virtualmcp.signals import audit

logger = logging.getLogger(__name__)

# An upstream that words things anew with every answer must not fill the database.
MOST_WORDINGS = 20
LONGEST_CONTENT = 256 * 1024
_MOST_NOTED = 50_000
_BATCH = 500
_background: set[asyncio.Task[None]] = set()
# What this process has handed on already, so that a failure is not repeated with every list.
_noted: OrderedDict[tuple[int, Pinned, str], None] = OrderedDict()
# Lists that hold nothing new for a snapshot.
_looked: OrderedDict[tuple[int, int, int, bytes], None] = OrderedDict()


@dataclass(slots=True, frozen=True)
class Seen:
    """One definition and whose it is."""

    pinned: Pinned
    definition: Definition


def look(server: VirtualMcpFacts, choice: ChoiceFacts, content: ListContent) -> None:
    """Have the definitions of a list that the snapshot does not know written down.

    A list that was looked at before costs one dictionary look-up.
    """
    key = (server.id, server.version, choice.upstream.id, content.digest)
    subject = SUBJECTS.get(content.kind)
    if subject is None or key in _looked:
        return
    _looked[key] = None
    while len(_looked) > _MOST_NOTED:
        _looked.popitem(last=False)
    found = digests(content)
    unknown = []
    for name, digest in found.items():
        pinned: Pinned = (choice.upstream.id, subject, name)
        if digest and server.review.standing(pinned, digest) is Standing.NEW:
            unknown.append(Seen(pinned, of_entry(content.by_identity[name].raw)))
    _hand_on(server, unknown)


def look_at_instructions(server: VirtualMcpFacts, choice: ChoiceFacts, text: str) -> bool:
    """Do so for what a server tells of itself; returns whether it may be passed on."""
    pinned: Pinned = (choice.upstream.id, Subject.INSTRUCTIONS, "")
    definition = of_instructions(text)
    if server.review.standing(pinned, definition.digest) is Standing.NEW:
        _hand_on(server, [Seen(pinned, definition)])
    return server.review.serves(pinned, definition.digest)


def forget() -> None:
    """Begin as a process that was just started."""
    _noted.clear()
    _looked.clear()


def _hand_on(server: VirtualMcpFacts, unknown: Iterable[Seen]) -> None:
    fresh = []
    for seen in unknown:
        key = (server.id, seen.pinned, seen.definition.digest)
        if key not in _noted:
            _noted[key] = None
            fresh.append(seen)
    while len(_noted) > _MOST_NOTED:
        _noted.popitem(last=False)
    if not fresh:
        return

    async def work() -> None:
        write = database_sync_to_async(note, thread_sensitive=False)
        try:
            written = await write(server.id, fresh)
        except Exception:  # whatever it was, calls go on
            logger.exception("definitions of %s could not be written", server.slug)
            for seen in fresh:
                _noted.pop((server.id, seen.pinned, seen.definition.digest), None)
            _looked.clear()
            return
        told_apart = any(choice.reading is not None for choice in server.choices)
        if written and (server.review.can_hold or told_apart):
            # Only then does anything depend on what is known.
            route_table.forget_one(server.slug)

    task = asyncio.get_running_loop().create_task(work())
    _background.add(task)
    task.add_done_callback(_background.discard)


@transaction.atomic
def note(virtual_mcp_id: int, seen: Sequence[Seen]) -> int:
    """Write down definitions that are not there yet (blocking); returns how many.

    The first one of a name is approved, unless the policy holds what is new; another one waits.
    Two nodes may write at once: the row of the Virtual MCP is locked meanwhile.
    """
    server = VirtualMcp.objects.select_for_update().filter(pk=virtual_mcp_id).first()
    if server is None:
        return 0
    wordings: Counter[Pinned] = Counter()
    per_upstream: Counter[int] = Counter()
    known: set[tuple[Pinned, str]] = set()
    rows = ToolDefinition.objects.filter(
        virtual_mcp=server, upstream_id__in={one.pinned[0] for one in seen}
    ).values_list("upstream_id", "subject", "name", "digest")
    for upstream_id, subject, name, digest in rows:
        wordings[(upstream_id, subject, name)] += 1
        per_upstream[upstream_id] += 1
        known.add(((upstream_id, subject, name), digest))
    new: list[ToolDefinition] = []
    for one in seen:
        full = per_upstream[one.pinned[0]] >= definitions.MOST_PER_UPSTREAM
        if (
            (one.pinned, one.definition.digest) in known
            or full
            or len(one.pinned[2]) > LONGEST_NAME
        ):
            continue
        if wordings[one.pinned] >= MOST_WORDINGS:
            continue
        new.append(_row(server, one, changed=wordings[one.pinned] > 0))
        wordings[one.pinned] += 1
        per_upstream[one.pinned[0]] += 1
    ToolDefinition.objects.bulk_create(new, batch_size=_BATCH)
    _alert(server, [row for row in new if row.state == ToolDefinition.State.WAITING])
    return len(new)


def _row(server: VirtualMcp, one: Seen, *, changed: bool) -> ToolDefinition:
    upstream_id, subject, name = one.pinned
    states = ToolDefinition.State
    held = server.new_definitions == VirtualMcp.NewDefinitions.HOLD
    content = one.definition.content.decode("utf-8", "replace").replace("\x00", "")
    return ToolDefinition(
        virtual_mcp=server,
        upstream_id=upstream_id,
        subject=subject,
        name=name,
        digest=one.definition.digest,
        read_only=one.definition.read_only,
        content=content if len(content) <= LONGEST_CONTENT else "",
        state=states.WAITING if changed or held else states.APPROVED,
    )


def _alert(server: VirtualMcp, waiting: list[ToolDefinition]) -> None:
    """Tell of what waits, one event for each upstream."""
    for upstream in Upstream.objects.filter(pk__in={row.upstream_id for row in waiting}):
        names = [row.name or "(instructions)" for row in waiting if row.upstream_id == upstream.pk]
        audit.send(
            sender=ToolDefinition,
            kind="definition.waiting",
            user=None,
            target=f"{upstream.key} in {server.slug}",
            details={"definitions": names[:100], "count": len(names)},
            address="",
        )
