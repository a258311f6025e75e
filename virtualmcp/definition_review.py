"""What an administrator decides about definitions, and what they see to decide it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from virtualmcp.hidden_text import marked, without
from virtualmcp.models import PublicName, ToolDefinition
from virtualmcp.signals import audit, changed

_LONGEST_SHOWN = 4_000
_SHORTEST_NAME = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One member that is or was told: "added", "removed", "changed" or "same"."""

    what: str
    path: str
    before: str
    after: str


@transaction.atomic
def decide(rows: Iterable[ToolDefinition], *, approve: bool, actor: Any) -> int:
    """Approve or reject definitions; returns how many were not decided so before.

    What holds from now on is served or held back everywhere within a second.
    """
    states = ToolDefinition.State
    state = states.APPROVED if approve else states.REJECTED
    wanted = [row.pk for row in rows]
    locked = (
        ToolDefinition.objects.select_for_update(of=("self",))
        .select_related("virtual_mcp", "upstream")
        .filter(pk__in=wanted)
        .exclude(state=state)
    )
    decided: dict[tuple[str, str], list[str]] = {}
    for row in locked:
        row.state = state
        row.decided_at = timezone.now()
        row.decided_by = str(actor)[:200]
        row.save(update_fields=["state", "decided_at", "decided_by"])
        key = (row.virtual_mcp.slug, row.upstream.key)
        decided.setdefault(key, []).append(row.name or "(instructions)")
    for (slug, upstream), names in decided.items():
        audit.send(
            sender=ToolDefinition,
            kind="definition.approved" if approve else "definition.rejected",
            user=actor,
            target=f"{upstream} in {slug}",
            details={"definitions": names[:100], "count": len(names)},
            address="",
        )
    for slug in {slug for slug, _ in decided}:
        changed.send(sender=ToolDefinition, kind="configuration", key=slug)
    return sum(map(len, decided.values()))


def approved(virtual_mcp_id: int) -> tuple[str, int]:
    """Return a digest over all approved definitions of a Virtual MCP, and how many there are."""
    rows = ToolDefinition.objects.filter(
        virtual_mcp=virtual_mcp_id, state=ToolDefinition.State.APPROVED
    )
    found = sorted(rows.values_list("upstream_id", "subject", "name", "digest"))
    return hashlib.sha256(repr(found).encode()).hexdigest(), len(found)


def before(row: ToolDefinition) -> ToolDefinition | None:
    """Return the last approved definition of the same thing that is older than this one."""
    return (
        ToolDefinition.objects.filter(
            virtual_mcp=row.virtual_mcp_id,
            upstream=row.upstream_id,
            subject=row.subject,
            name=row.name,
            state=ToolDefinition.State.APPROVED,
            pk__lt=row.pk,
        )
        .order_by("-pk")
        .first()
    )


def difference(old: str, new: str) -> list[Line]:
    """Compare two definitions member by member; both are sorted JSON, ``""`` for none.

    Hidden characters are written out, so that what a model would read can be read.
    """
    was, now = dict(_members(old)), dict(_members(new))
    lines = []
    for path in dict.fromkeys([*was, *now]):
        before, after = was.get(path), now.get(path)
        if before == after:
            what = "same"
        elif before is None:
            what = "added"
        else:
            what = "removed" if after is None else "changed"
        lines.append(Line(what, marked(path), before or "", after or ""))
    return lines


def _members(content: str) -> Iterator[tuple[str, str]]:
    try:
        value = json.loads(content) if content else {}
    except ValueError:
        value = {}
    yield from _walk("", value)


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _walk(f"{path}.{name}" if path else str(name), inner)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for number, inner in enumerate(value):
            yield from _walk(f"{path}[{number}]", inner)
    elif path:
        said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield path, marked(said)[:_LONGEST_SHOWN]


def warnings(row: ToolDefinition) -> list[str]:
    """Return what an administrator should look at twice: hidden characters, and words that name
    another upstream's tool (shadowing, protocol.md 5.14)."""
    found = []
    text = "\n".join(_texts(row.content))
    if without(text) != text:
        found.append("It holds characters that people cannot see. Clients are not sent them.")
    foreign = foreign_names(row, text)
    if foreign:
        names = ", ".join(foreign)
        found.append(f"It speaks of tools of other upstreams: {names}.")
    if not row.content:
        found.append("It is too long to be shown.")
    return found


def foreign_names(row: ToolDefinition, text: str) -> Sequence[str]:
    """Return the public names of other upstreams' tools that a text mentions."""
    others = (
        PublicName.objects.filter(virtual_mcp=row.virtual_mcp_id, kind=PublicName.Kind.TOOL)
        .exclude(upstream=row.upstream_id)
        .values_list("public_name", "upstream_name")
    )
    names = {name for pair in others for name in pair if len(name) >= _SHORTEST_NAME}
    own = {row.name}
    marks = "".join(char if char.isalnum() or char in "_-." else " " for char in text)
    words = {word.strip(".") for word in marks.split()}
    return sorted(name for name in names - own if name in words and not name.isalpha())


def _texts(content: str) -> Iterator[str]:
    try:
        waiting = [json.loads(content)] if content else []
    except ValueError:
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
