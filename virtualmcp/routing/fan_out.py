"""One list from every upstream of a Virtual MCP at once; who fails is named, never fatal.

Each upstream has its own deadline, the whole has one too. An upstream that fails contributes its
last good list if that is younger than a day (security.md R3); one that the person has not
connected contributes nothing. Both are reported as a ``Problem``.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from upstreams import credentials
from upstreams.canonical_call import ClientFacts
from upstreams.errors import NeedsConnection, UpstreamError
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp.listed_entries import Kind, ListContent
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing.list_reading import read_list
from virtualmcp.tool_catalogue import CatalogueKey, Kept, catalogue

logger = logging.getLogger(__name__)

WHOLE_DEADLINE = 8.0
# Only bookkeeping is left when the reading itself has already timed out.
GRACE = 0.2


@dataclass(slots=True, frozen=True)
class Problem:
    """Why an upstream's part is missing or old. ``needs`` is set where connecting mends it."""

    code: str
    message: str
    needs: NeedsConnection | None = None
    stale: bool = False


@dataclass(slots=True, frozen=True)
class Contribution:
    """One upstream's part of a list; ``remaining`` is how many seconds it stays fresh."""

    choice: ChoiceFacts
    content: ListContent | None
    remaining: float = 0.0
    problem: Problem | None = None


def remembered(
    user_id: int, client: ClientFacts, choices: tuple[ChoiceFacts, ...], kind: Kind
) -> list[Contribution] | None:
    """Return every part from memory, ``None`` if any has to be read. No I/O, no hop.

    Stale parts are renewed in the background.
    """
    parts = []
    for choice in choices:
        key = key_for(user_id, choice.upstream, client, kind)
        kept = catalogue.peek(key) if key is not None else None
        if key is None or kept is None:
            return None
        parts.append(_part(user_id, client, choice, key, kept))
    return parts


async def gather(
    user_id: int, client: ClientFacts, choices: tuple[ChoiceFacts, ...], kind: Kind
) -> list[Contribution]:
    """Return every part, reading at once those that are not in memory; never raises for one."""
    tasks = [asyncio.create_task(_contribute(user_id, client, choice, kind)) for choice in choices]
    try:
        await asyncio.wait(tasks, timeout=WHOLE_DEADLINE)
    finally:
        for task in tasks:
            task.cancel()
    parts = []
    for choice, task in zip(choices, tasks, strict=True):
        if task.done() and not task.cancelled():
            parts.append(task.result())
        else:
            problem = Problem("timeout", f"{choice.upstream.title} did not answer in time.")
            parts.append(_stand_in(user_id, client, choice, kind, problem))
    return parts


def key_for(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind
) -> CatalogueKey | None:
    """Return where this person's list is kept, ``None`` while their credential is not known."""
    credential = credentials.cached_credential(user_id, facts)
    if credential is None:
        return None
    return CatalogueKey(facts.id, facts.url, credential.id, client.fingerprint, kind)


def remembered_list(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind
) -> ListContent | None:
    """Return one upstream's list from memory, also a stale one."""
    key = key_for(user_id, facts, client, kind)
    kept = catalogue.last_good(key) if key is not None else None
    return kept.content if kept is not None else None


def watched_list(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind, oldest: float
) -> ListContent | None:
    """Do as ``remembered_list``; one older than ``oldest`` seconds is renewed in the background."""
    key = key_for(user_id, facts, client, kind)
    kept = catalogue.last_good(key) if key is not None else None
    if key is None or kept is None:
        return None
    if time.monotonic() - kept.read_at > oldest:
        catalogue.renew(key, _reading(user_id, facts, client, kind))
    return kept.content


async def read_now(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind
) -> ListContent:
    """Read one upstream's list, whatever is in memory.

    Raises:
        UpstreamError: it can't be read.
    """
    credential = await credentials.credential_for(user_id, facts)
    key = CatalogueKey(facts.id, facts.url, credential.id, client.fingerprint, kind)
    return (await catalogue.read(key, _reading(user_id, facts, client, kind))).content


def _part(
    user_id: int, client: ClientFacts, choice: ChoiceFacts, key: CatalogueKey, kept: Kept
) -> Contribution:
    remaining = kept.remaining
    if not remaining:
        catalogue.renew(key, _reading(user_id, choice.upstream, client, key.kind))
    return Contribution(choice, kept.content, remaining, _shortened(choice, kept.content))


async def _contribute(
    user_id: int, client: ClientFacts, choice: ChoiceFacts, kind: Kind
) -> Contribution:
    facts = choice.upstream
    try:
        async with asyncio.timeout(facts.list_timeout + GRACE):
            credential = await credentials.credential_for(user_id, facts)
            key = CatalogueKey(facts.id, facts.url, credential.id, client.fingerprint, kind)
            kept = catalogue.peek(key)
            if kept is None:
                kept = await catalogue.read(key, _reading(user_id, facts, client, kind))
        return _part(user_id, client, choice, key, kept)
    except NeedsConnection as needed:
        return Contribution(choice, None, problem=Problem(needed.reason, needed.message, needed))
    except UpstreamError as error:
        logger.warning("%s of %s failed: %s", kind, facts.key, error.code)
        problem = Problem(error.code, error.message)
    except TimeoutError:
        problem = Problem("timeout", f"{facts.title} did not answer in time.")
    except Exception:
        logger.exception("%s of %s failed", kind, facts.key)
        problem = Problem("internal", f"The list of {facts.title} could not be read.")
    return _stand_in(user_id, client, choice, kind, problem)


def _stand_in(
    user_id: int, client: ClientFacts, choice: ChoiceFacts, kind: Kind, problem: Problem
) -> Contribution:
    """Put the last good list in the place of one that can't be read."""
    key = key_for(user_id, choice.upstream, client, kind)
    kept = catalogue.last_good(key) if key is not None else None
    if kept is None:
        return Contribution(choice, None, problem=problem)
    return Contribution(
        choice, kept.content, problem=Problem(problem.code, problem.message, stale=True)
    )


def _shortened(choice: ChoiceFacts, content: ListContent) -> Problem | None:
    if not content.truncated:
        return None
    most = f"{choice.upstream.title} lists more than the gateway takes; the rest is left out."
    return Problem("truncated", most)


def _reading(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind
) -> functools.partial[Coroutine[Any, Any, tuple[ListContent, float | None]]]:
    return functools.partial(read_list, user_id, facts, client, kind)
