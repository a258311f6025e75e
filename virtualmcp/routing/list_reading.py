"""Reading one whole list of one upstream on behalf of one person."""

import asyncio
import logging
from functools import lru_cache

import msgspec

from upstreams import authorized_call, call_gate
from upstreams.canonical_call import CanonicalCall, ClientFacts, Outcome, SilentSink
from upstreams.errors import UpstreamAnswerInvalid, UpstreamTimeout
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import raw_members
from virtualmcp.errors import METHOD_NOT_FOUND
from virtualmcp.listed_entries import (
    Collected,
    Kind,
    ListContent,
    ListUnreadable,
    annotation_fault,
    read_page,
)
from virtualmcp.raw_members import NotAnObject

logger = logging.getLogger(__name__)

MOST_PAGES = 50
_MOST_NAMED = 20


async def read_list(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind
) -> tuple[ListContent, float | None]:
    """Read all pages within the upstream's list timeout; returns the list and its ttl in seconds.

    An upstream without this kind of thing has an empty list.

    Raises:
        UpstreamError: it can't be read; see ``upstreams.errors``.
    """
    try:
        async with asyncio.timeout(facts.list_timeout):
            content, lifetime = await _read_pages(user_id, facts, client, kind)
    except TimeoutError as error:
        message = f"{facts.title} did not answer {kind} within {facts.list_timeout:g} seconds."
        late = UpstreamTimeout(message)
        call_gate.note_timeout(facts, str(kind), late)
        raise late from error
    except ListUnreadable as error:
        message = f"{facts.title} answered {kind} with something that is not such a list."
        raise UpstreamAnswerInvalid(message, detail=str(error)) from error
    if content.left_out or any(entry.mirrored is None for entry in content.entries):
        _warn(facts.key, content)
    return content, lifetime


def _warn(key: str, content: ListContent) -> None:
    """Log what of a list is not offered, and why (b5)."""
    if content.left_out:
        _warn_once(key, f"{content.left_out} entries of {content.kind} are unusable or come twice")
    bad = [entry for entry in content.entries if entry.mirrored is None]
    for entry in bad[:_MOST_NAMED]:
        _warn_once(key, f"the tool {entry.identity[:128]!r}: {annotation_fault(entry)}")


@lru_cache(maxsize=1_024)
def _warn_once(key: str, fault: str) -> None:
    """Log it the first time: lists are read again all the time."""
    logger.warning("%s: left out of what is offered: %s", key, fault)


async def _read_pages(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind
) -> tuple[ListContent, float | None]:
    collected = Collected(kind)
    lifetimes: list[float] = []
    extras: tuple[tuple[str, bytes], ...] = ()
    meta, modern = b"", True
    cursor: str | None = None
    seen: set[str] = set()
    for number in range(MOST_PAGES):
        outcome = await _read_page(user_id, facts, client, kind, cursor)
        modern = outcome.modern
        if outcome.error:
            if number == 0 and error_code(outcome.error) == METHOD_NOT_FOUND:
                return collected.content(modern=modern), None
            raise ListUnreadable(
                "a JSON-RPC error: " + outcome.error[:300].decode("utf-8", "replace")
            )
        page = read_page(kind, outcome.result)
        if number == 0:
            extras, meta = page.extras, page.meta
        if page.ttl is not None:
            lifetimes.append(page.ttl)
        collected.add(page.items)
        cursor = page.next_cursor
        if cursor is None or collected.truncated:
            break
        if cursor in seen:
            raise ListUnreadable("its pages lead in a circle")
        seen.add(cursor)
    else:
        collected.truncated = True
    content = collected.content(modern=modern, extras=extras, meta=meta)
    return content, min(lifetimes) if lifetimes else None


async def _read_page(
    user_id: int, facts: UpstreamFacts, client: ClientFacts, kind: Kind, cursor: str | None
) -> Outcome:
    params = b"{}" if cursor is None else raw_members.write({"cursor": cursor})
    call = CanonicalCall(
        method=kind.value,
        params=params,
        facts=client,
        principal=str(user_id),
        timeout=facts.list_timeout,
    )
    return await authorized_call.call_as(user_id, facts, call, SilentSink())


def error_code(error: bytes) -> int:
    """Return the code of a raw JSON-RPC error, 0 if it has none that is an integer."""
    try:
        code = raw_members.value(raw_members.read(error).get("code", msgspec.Raw(b"0")))
    except NotAnObject:
        return 0
    return code if isinstance(code, int) and not isinstance(code, bool) else 0
