"""What the relay path must know of a Virtual MCP, as an immutable snapshot in memory.

A snapshot is read with a constant number of queries and lives at most ``LIFETIME`` seconds;
``forget`` drops it at once when the configuration changes. A request keeps the snapshot it began
with, so one answer never mixes two configurations.
"""

import asyncio
import functools
import hashlib
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType

from channels.db import database_sync_to_async
from django.conf import settings

from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import definitions, icon_addresses
from virtualmcp.definitions import Known, Pinned, Review, Standing
from virtualmcp.models import PublicName, UpstreamChoice, VirtualMcp
from virtualmcp.result_mapping import ResultMapping
from virtualmcp.tool_groups import reading_tools

LIFETIME = 60.0
ABSENT_LIFETIME = 2.0
MOST_SNAPSHOTS = 1_024
MOST_ABSENT = 256

# (upstream id, name as the upstream gives it)
Owned = tuple[int, str]


@dataclass(slots=True, frozen=True)
class Route:
    """Where a public name leads: the upstream and the name it knows."""

    upstream: UpstreamFacts
    name: str


@dataclass(slots=True, frozen=True)
class ChoiceFacts:
    """One upstream of a Virtual MCP. ``tools`` are upstream names, ``None`` for all of them.

    ``hidden`` are tools that the person at hand may not use (``person_view``). What the upstream
    ``may`` ask of clients counts only where several share a URL (protocol.md 5.14).
    """

    upstream: UpstreamFacts
    required: bool
    tools: frozenset[str] | None
    hidden: frozenset[str] = frozenset()
    may_sample: bool = False
    may_list_roots: bool = False
    # Tools that only read, where the others need ``mcp:tools.write``; None where all are alike.
    reading: frozenset[str] | None = None
    # Tools of which the administrator says that they change something.
    changing: frozenset[str] = frozenset()
    # Tools whose calls may be made anew when the process that held one has died.
    rerun: frozenset[str] = frozenset()

    def shows(self, tool: str) -> bool:
        """Tell whether the administrator offers this tool."""
        return (self.tools is None or tool in self.tools) and tool not in self.hidden


@dataclass(slots=True, frozen=True)
class RuleFacts:
    """Groups that alone may use an upstream (``tools`` is empty) or some of its tools."""

    upstream_id: int
    tools: frozenset[str]
    group_ids: frozenset[int]


@dataclass(slots=True, frozen=True, weakref_slot=True)
class VirtualMcpFacts:
    """A Virtual MCP as it was configured when the snapshot was taken.

    ``choices`` holds enabled upstreams only, in the administrator's order. ``tools`` and
    ``prompts`` lead from pinned public names to those upstreams; ``tool_names`` and
    ``prompt_names`` hold *every* pin the other way round, those of upstreams that are switched
    off too, because their names stay taken. ``former_tools`` and ``former_prompts`` lead on from
    names that were changed by hand. ``review`` says which definitions may be passed on.
    ``version`` changes with the content.
    """

    id: int
    slug: str
    title: str
    description: str
    instructions: str
    open_to_everyone: bool
    group_ids: frozenset[int]
    choices: tuple[ChoiceFacts, ...]
    resource: str
    tools: Mapping[str, Route] = field(default_factory=dict)
    prompts: Mapping[str, Route] = field(default_factory=dict)
    version: int = 0
    tool_names: Mapping[Owned, str] = field(default_factory=dict)
    prompt_names: Mapping[Owned, str] = field(default_factory=dict)
    former_tools: Mapping[str, Route] = field(default_factory=dict)
    former_prompts: Mapping[str, Route] = field(default_factory=dict)
    rules: tuple[RuleFacts, ...] = ()
    # How many upstreams there are, whoever looks; names are the same for everybody.
    upstream_count: int = 0
    review: Review = field(default_factory=Review)
    # The URL for which domains of MCP Apps are made anew; "" leaves them out.
    app_address: str = ""
    # Whether every new name begins with its upstream's key, taken or not (3.2.1).
    always_prefixed: bool = False
    # Whether public URIs in arguments become the upstream's own (3.3).
    undoes_argument_uris: bool = False

    # Exactly one upstream: nothing is renamed (protocol.md 3.1).
    transparent: bool = field(init=False)

    def __post_init__(self) -> None:
        """Work out what every request asks."""
        object.__setattr__(self, "transparent", len(self.choices) == 1 >= self.upstream_count)

    def choice_of(self, upstream_id: int) -> ChoiceFacts | None:
        """Return the choice of an upstream, ``None`` if it is not (or no longer) offered."""
        for choice in self.choices:
            if choice.upstream.id == upstream_id:
                return choice
        return None

    def mapping(self, upstream: UpstreamFacts) -> ResultMapping:
        """Return the mapping of names and URIs for one answer of an upstream."""
        if self.transparent:
            return ResultMapping("", self.app_address)
        icon = functools.partial(icon_addresses.public, upstream.id)
        return ResultMapping(upstream.key, self.app_address, icon)

    def choice_by_key(self, key: str) -> ChoiceFacts | None:
        """Return the choice whose upstream has this key."""
        for choice in self.choices:
            if choice.upstream.key == key:
                return choice
        return None


@dataclass(slots=True, frozen=True)
class _Kept:
    facts: VirtualMcpFacts | None
    until: float
    loaded_at: float


class _Snapshots:
    """Bounded memory of snapshots; entries read before a ``forget`` can't come in after it."""

    def __init__(self) -> None:
        self.generation = 0
        self._present: OrderedDict[str, _Kept] = OrderedDict()
        self._absent: OrderedDict[str, _Kept] = OrderedDict()

    def get(self, slug: str) -> _Kept | None:
        kept = self._present.get(slug) or self._absent.get(slug)
        return kept if kept is not None and kept.until > time.monotonic() else None

    def keep(self, slug: str, facts: VirtualMcpFacts | None, generation: int) -> None:
        if generation != self.generation:
            return
        now = time.monotonic()
        lifetime, shelf, most = (
            (LIFETIME, self._present, MOST_SNAPSHOTS)
            if facts is not None
            else (ABSENT_LIFETIME, self._absent, MOST_ABSENT)
        )
        self._present.pop(slug, None)
        self._absent.pop(slug, None)
        shelf[slug] = _Kept(facts, now + lifetime, now)
        while len(shelf) > most:
            shelf.popitem(last=False)

    def forget(self, slug: str) -> None:
        self.generation += 1
        for shelf in (self._present, self._absent):
            if slug:
                shelf.pop(slug, None)
            else:
                shelf.clear()


_snapshots = _Snapshots()
_loading: dict[str, "asyncio.Task[VirtualMcpFacts | None]"] = {}


def cached(slug: str) -> VirtualMcpFacts | None:
    """Return the snapshot in memory, ``None`` if there is none (which says nothing more)."""
    kept = _snapshots.get(slug)
    return kept.facts if kept is not None else None


async def load(slug: str) -> VirtualMcpFacts | None:
    """Return the snapshot, reading it if need be; ``None`` for an unknown or disabled slug.

    Simultaneous callers share one read.

    Raises:
        django.db.DatabaseError: the configuration can't be read now.
    """
    kept = _snapshots.get(slug)
    return kept.facts if kept is not None else await _shared_read(slug)


async def load_newer_than(slug: str, age: float) -> VirtualMcpFacts | None:
    """Return a snapshot that was read at most ``age`` seconds ago.

    For a name that the snapshot at hand does not know: another node may have pinned it. The
    bound keeps a client that invents names from asking the database each time.
    """
    kept = _snapshots.get(slug)
    if kept is not None and time.monotonic() - kept.loaded_at <= age:
        return kept.facts
    return await _shared_read(slug)


async def _shared_read(slug: str) -> VirtualMcpFacts | None:
    loop = asyncio.get_running_loop()
    task = _loading.get(slug)
    if task is None or task.done() or task.get_loop() is not loop:
        task = loop.create_task(_read(slug))
        _loading[slug] = task
        task.add_done_callback(
            lambda done: _loading.pop(slug, None) if _loading.get(slug) is done else None
        )
    return await asyncio.shield(task)


async def _read(slug: str) -> VirtualMcpFacts | None:
    generation = _snapshots.generation
    read = database_sync_to_async(read_facts, thread_sensitive=False)
    facts: VirtualMcpFacts | None = await read(slug)
    _snapshots.keep(slug, facts, generation)
    return facts


def forget(key: str = "") -> None:
    """Drop every snapshot; reads under way are not kept either. ``key`` is not looked at: a
    change of an upstream concerns any number of Virtual MCPs."""
    _snapshots.forget("")
    _loading.clear()


def forget_one(slug: str) -> None:
    """Drop the snapshot of one Virtual MCP."""
    _snapshots.forget(slug)
    _loading.pop(slug, None)


def resource_of(slug: str) -> str:
    """Return the address of a Virtual MCP, which is its OAuth resource identifier (RFC 8707)."""
    return f"{settings.PUBLIC_URL}/v1/mcp/{slug}"


def read_facts(slug: str) -> VirtualMcpFacts | None:
    """Take a snapshot from the database: six queries, whatever the size."""
    row = VirtualMcp.objects.filter(slug=slug, enabled=True).first()
    if row is None:
        return None
    groups = frozenset(row.groups.values_list("pk", flat=True))
    reading = reading_tools(row)
    choices = tuple(
        _choice(choice, reading)
        for choice in row.choices.select_related("upstream").filter(upstream__enabled=True)
    )
    pins = list(
        row.names.order_by("pk").values_list(
            "kind", "upstream_id", "upstream_name", "public_name", "former"
        )
    )
    tools, tool_names, former_tools = _routes(choices, pins, PublicName.Kind.TOOL)
    prompts, prompt_names, former_prompts = _routes(choices, pins, PublicName.Kind.PROMPT)
    rules = _rules(row)
    review, definitions = _review(row)
    about = (row.pk, row.slug, row.title, row.description, row.instructions, row.audience)
    apart = sorted((key, sorted(names)) for key, names in (reading or {}).items())
    app_address = resource_of(slug) if row.app_domains == row.AppDomains.RECOMPUTE else ""
    policy = (row.new_definitions, row.changed_definitions, definitions, row.step_up, apart)
    content = (*about, groups, choices, pins, sorted(map(_plain_rule, rules)), policy, app_address)
    return VirtualMcpFacts(
        id=row.pk,
        slug=row.slug,
        title=row.title,
        description=row.description,
        instructions=row.instructions,
        open_to_everyone=row.audience == VirtualMcp.Audience.EVERYONE,
        group_ids=groups,
        choices=choices,
        resource=resource_of(row.slug),
        tools=tools,
        prompts=prompts,
        version=int.from_bytes(hashlib.blake2b(_canonical(content), digest_size=8).digest()),
        tool_names=tool_names,
        prompt_names=prompt_names,
        former_tools=former_tools,
        former_prompts=former_prompts,
        rules=rules,
        upstream_count=len(choices),
        review=review,
        app_address=app_address,
        always_prefixed=row.naming == row.Naming.PREFIXED,
        undoes_argument_uris=row.argument_uris == row.ArgumentUris.UNDO,
    )


def _rules(row: VirtualMcp) -> tuple[RuleFacts, ...]:
    found: dict[int, tuple[int, list[str], set[int]]] = {}
    for pk, upstream_id, tools, group in row.rules.values_list(
        "pk", "upstream_id", "tools", "groups"
    ):
        groups = found.setdefault(pk, (upstream_id, tools, set()))[2]
        if group is not None:
            groups.add(group)
    return tuple(
        RuleFacts(upstream_id, frozenset(tools), frozenset(groups))
        for upstream_id, tools, groups in found.values()
    )


def _plain_rule(rule: RuleFacts) -> tuple[int, list[str], list[int]]:
    return (rule.upstream_id, sorted(rule.tools), sorted(rule.group_ids))


def _review(row: VirtualMcp) -> tuple[Review, Sequence[tuple[object, ...]]]:
    """Return the rules for definitions and what is known of them, and the rows it came from."""
    rows = list(
        row.definitions.order_by("pk").values_list(
            "upstream_id", "subject", "name", "digest", "state", "decided_at"
        )
    )
    standings: dict[Pinned, dict[str, Standing]] = {}
    decided: dict[Pinned, tuple[datetime, bool]] = {}
    for upstream_id, subject, name, digest, state, decided_at in rows:
        pinned: Pinned = (upstream_id, subject, name)
        standings.setdefault(pinned, {})[digest] = Standing(state)
        if decided_at is not None:
            word = (decided_at, state == Standing.REJECTED)
            decided[pinned] = max(decided.get(pinned, word), word)
    written = Counter(upstream_id for upstream_id, *_ in rows)
    known = {
        pinned: Known(found, next(reversed(found)), pinned in decided and decided[pinned][1])
        for pinned, found in standings.items()
    }
    review = Review(
        hold_new=row.new_definitions == VirtualMcp.NewDefinitions.HOLD,
        hold_changed=row.changed_definitions == VirtualMcp.ChangedDefinitions.HOLD,
        known=MappingProxyType(known),
        any_rejected=any(state == Standing.REJECTED for *_, state, _ in rows),
        full=frozenset(
            upstream_id
            for upstream_id, count in written.items()
            if count >= definitions.MOST_PER_UPSTREAM
        ),
    )
    return review, rows


def _choice(row: UpstreamChoice, reading: dict[int, frozenset[str]] | None) -> ChoiceFacts:
    chosen = row.chosen_tools if row.tool_mode == UpstreamChoice.ToolMode.CHOSEN else None
    return ChoiceFacts(
        upstream=UpstreamFacts.of(row.upstream),
        required=row.required,
        # A list that can't be read shows nothing rather than everything.
        tools=None if chosen is None else frozenset(t for t in chosen if isinstance(t, str)),
        may_sample=row.may_sample,
        may_list_roots=row.may_list_roots,
        reading=None if reading is None else reading.get(row.upstream_id, frozenset()),
        changing=frozenset(name for name in row.write_tools if isinstance(name, str)),
        rerun=frozenset(name for name in row.rerun_tools if isinstance(name, str)),
    )


def _routes(
    choices: tuple[ChoiceFacts, ...], pins: list[tuple[str, int, str, str, bool]], kind: str
) -> tuple[Mapping[str, Route], Mapping[Owned, str], Mapping[str, Route]]:
    upstreams = {choice.upstream.id: choice.upstream for choice in choices}
    routes: dict[str, Route] = {}
    names: dict[Owned, str] = {}
    led_on: dict[str, Route] = {}
    for pin_kind, upstream_id, upstream_name, public_name, former in pins:
        if pin_kind != kind:
            continue
        if not former:
            names[(upstream_id, upstream_name)] = public_name
        if upstream_id in upstreams:
            route = Route(upstreams[upstream_id], upstream_name)
            (led_on if former else routes)[public_name] = route
    return MappingProxyType(routes), MappingProxyType(names), MappingProxyType(led_on)


def _canonical(content: tuple[object, ...]) -> bytes:
    """Return bytes that are equal for equal content; sets are sorted first."""

    def plain(value: object) -> object:
        if isinstance(value, frozenset):
            return sorted(map(repr, value))
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        if isinstance(value, ChoiceFacts):
            return [plain(getattr(value, member.name)) for member in fields(value)]
        if isinstance(value, UpstreamFacts):
            return repr(value)
        return value

    return repr(plain(content)).encode()
