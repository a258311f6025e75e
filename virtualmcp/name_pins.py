"""Writes down the public names chosen for tools and prompts; safe on any number of nodes."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from channels.db import database_sync_to_async
from django.db import DatabaseError

from virtualmcp import route_table
from virtualmcp.models import PublicName
from virtualmcp.route_table import Owned, VirtualMcpFacts
from virtualmcp.tool_names import Sighting, choose

logger = logging.getLogger(__name__)

# An upstream that invents new names with every list must not fill the database.
MOST_PER_UPSTREAM = 5_000
_ROUNDS = 5
_BATCH = 500
_background: set[asyncio.Task[None]] = set()


def pinned(server: VirtualMcpFacts, kind: PublicName.Kind) -> "dict[Owned, str]":
    """Return the names of this kind that the snapshot knows."""
    return dict(server.tool_names if kind == PublicName.Kind.TOOL else server.prompt_names)


async def pin_and_reload(
    server: VirtualMcpFacts, kind: PublicName.Kind, sightings: Sequence[Sighting]
) -> VirtualMcpFacts:
    """Pin what is new and return a snapshot that knows it; the old one if that can't be."""
    try:
        write = database_sync_to_async(pin, thread_sensitive=False)
        await write(
            server.id,
            kind,
            sightings,
            transparent=server.transparent,
            always_prefixed=server.always_prefixed,
        )
        route_table.forget_one(server.slug)
        return await route_table.load(server.slug) or server
    except DatabaseError:
        logger.exception("public names of %s could not be written", server.slug)
        return server


def pin_in_background(
    server: VirtualMcpFacts, kind: PublicName.Kind, sightings: Sequence[Sighting]
) -> None:
    """Pin without making anybody wait: a transparent server's names are already what they are."""

    async def work() -> None:
        await pin_and_reload(server, kind, sightings)

    task = asyncio.get_running_loop().create_task(work())
    _background.add(task)
    task.add_done_callback(_background.discard)


def pin(
    virtual_mcp_id: int,
    kind: PublicName.Kind,
    sightings: Sequence[Sighting],
    *,
    transparent: bool,
    always_prefixed: bool = False,
) -> None:
    """Choose and write names for those sighted that have none (blocking).

    Two nodes may choose at once. The unique constraints decide; whose name was taken meanwhile
    chooses again, knowing it.
    """
    rows = PublicName.objects.filter(virtual_mcp_id=virtual_mcp_id, kind=kind)
    for _ in range(_ROUNDS):
        known: dict[Owned, str] = {}
        reserved: dict[str, int] = {}
        for upstream_id, upstream_name, public_name, former in rows.values_list(
            "upstream_id", "upstream_name", "public_name", "former"
        ):
            if former:
                reserved[public_name] = upstream_id
            else:
                known[(upstream_id, upstream_name)] = public_name
        counts = Counter(upstream_id for upstream_id, _ in known)
        wanted = []
        for sighting in sightings:
            if sighting.owned not in known and counts[sighting.upstream_id] < MOST_PER_UPSTREAM:
                counts[sighting.upstream_id] += 1
                wanted.append(sighting)
        chosen = choose(
            wanted,
            known,
            transparent=transparent,
            always_prefixed=always_prefixed,
            former=reserved,
        )
        if not chosen:
            return
        PublicName.objects.bulk_create(
            [
                PublicName(
                    virtual_mcp_id=virtual_mcp_id,
                    upstream_id=upstream_id,
                    kind=kind,
                    upstream_name=upstream_name,
                    public_name=public_name,
                )
                for (upstream_id, upstream_name), public_name in chosen.items()
            ],
            ignore_conflicts=True,
            batch_size=_BATCH,
        )
