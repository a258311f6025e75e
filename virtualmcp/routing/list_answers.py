"""Answers to tools/list, prompts/list, resources/list and resources/templates/list.

Lists are served merged and from memory, in pages of our own, also where there is a single
upstream: a warm list is a look-up and costs no upstream call.
"""

from collections.abc import Mapping

from upstreams.canonical_call import CallSink
from upstreams.connect_links import link_for
from upstreams.revisions import Era
from virtualmcp import definition_pins, name_pins, person_view, published_lists, raw_members
from virtualmcp.eras.conversion import signed
from virtualmcp.errors import INTERNAL_ERROR, ParamsInvalid, RequestRefused
from virtualmcp.listed_entries import Kind
from virtualmcp.published_lists import Published, names_kind
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import connect_prompts, cursors, fan_out, upstream_failures
from virtualmcp.routing.client_abilities import takes_tasks
from virtualmcp.routing.client_request import Answer, ClientRequest, WireError
from virtualmcp.routing.fan_out import Contribution, Problem
from virtualmcp.server_identity import raw_server_info

# Vendor key of ``_meta`` that names the upstreams whose part is missing or old.
PROBLEMS_KEY = "gateway/upstreams"
# Seconds a client may keep a list: no longer than a change of policy may take to show.
LONGEST_KEPT = 60.0


async def tools(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer tools/list."""
    return await _answer(request, Kind.TOOLS)


async def prompts(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer prompts/list."""
    return await _answer(request, Kind.PROMPTS)


async def resources(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer resources/list."""
    return await _answer(request, Kind.RESOURCES)


async def templates(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer resources/templates/list."""
    return await _answer(request, Kind.TEMPLATES)


async def _answer(request: ClientRequest, kind: Kind) -> Answer:
    try:
        cursor = _cursor(request.params)
        parts = await contributions(request, kind)
        if _all_failed(parts):
            return _failure(request, parts)
        published = await _published(request, kind, parts)
        number = cursors.page_number(request, cursor, published)
        following = cursors.next_cursor(request, published, number)
    except RequestRefused as refused:
        return Answer(error=WireError(refused.code, refused.message, refused.data))
    return Answer(result=_result(request, kind, parts, published, number, following))


async def contributions(request: ClientRequest, kind: Kind) -> list[Contribution]:
    """Return every upstream's part, from memory if they are all there."""
    user_id, choices = request.holder.user_id, request.server.choices
    parts = fan_out.remembered(user_id, request.client, choices, kind)
    if parts is None:
        parts = await fan_out.gather(user_id, request.client, choices, kind)
    return parts


def _cursor(params: bytes) -> str:
    if not params:
        return ""
    try:
        given = raw_members.read(params).get("cursor")
    except NotAnObject as error:
        raise ParamsInvalid("params must be an object.") from error
    if given is None or bytes(given) == b"null":
        return ""
    cursor = raw_members.text(given)
    if cursor is None:
        raise ParamsInvalid("cursor must be a string.")
    return cursor


async def _published(request: ClientRequest, kind: Kind, parts: list[Contribution]) -> Published:
    """Merge the parts; names seen for the first time are pinned before they go out."""
    known = [(part.choice, part.content) for part in parts if part.content is not None]
    for choice, content in known:
        definition_pins.look(request.server, choice, content)
    tasks = takes_tasks(request)
    published = published_lists.publish(request.server, kind, known, request.era, tasks=tasks)
    pins = names_kind(kind)
    if not published.unpinned or pins is None:
        return published
    if request.server.transparent:
        name_pins.pin_in_background(request.server, pins, published.unpinned)
        return published
    reloaded = await name_pins.pin_and_reload(request.server, pins, published.unpinned)
    server = person_view.seen_by(reloaded, request.holder.group_ids)
    # The choices of the newer snapshot: a rule may have come meanwhile.
    now = {choice.upstream.id: choice for choice in server.choices}
    known = [(now[c.upstream.id], content) for c, content in known if c.upstream.id in now]
    return published_lists.publish(server, kind, known, request.era, tasks=tasks)


async def learn_names(request: ClientRequest, kind: Kind) -> None:
    """Read and pin what a name was not found in; see ``call_router``."""
    parts = await contributions(request, kind)
    await _published(request, kind, parts)


async def visible(request: ClientRequest, kind: Kind) -> Published | None:
    """Return a list as this client would read it now; None where a part of it can't be read.

    A list that is short only because an upstream is away has not changed.
    """
    parts = await contributions(request, kind)
    if any(p.content is None and p.problem and not p.problem.needs for p in parts):
        return None
    try:
        return await _published(request, kind, parts)
    except RequestRefused:
        return None


def visible_in_memory(request: ClientRequest, kind: Kind) -> Published | None:
    """Return a list as this client last could read it; None where it is not in memory."""
    user_id, server = request.holder.user_id, request.server
    parts = fan_out.remembered(user_id, request.client, server.choices, kind)
    if parts is None:
        return None
    known = [(part.choice, part.content) for part in parts if part.content is not None]
    tasks = takes_tasks(request)
    return published_lists.publish(server, kind, known, request.era, tasks=tasks)


def _all_failed(parts: list[Contribution]) -> bool:
    """An empty list as a success would make hosts store an empty connector (security.md R4)."""
    return bool(parts) and all(part.content is None for part in parts)


def _failure(request: ClientRequest, parts: list[Contribution]) -> Answer:
    needed = [part for part in parts if part.problem is not None and part.problem.needs]
    if len(needed) == len(parts):
        pages = [
            connect_prompts.connect_page(request, part.problem.needs)
            for part in needed
            if part.problem is not None and part.problem.needs is not None
        ]
        return connect_prompts.in_words(request, needed[0].choice.upstream.key, pages)
    said = " ".join(
        upstream_failures.named(part.choice.upstream, part.problem.message)
        for part in parts
        if part.problem is not None
    )
    message = f"No upstream could be read. {said} Try again in a moment."
    data = raw_members.write({PROBLEMS_KEY: _problems(request, parts)})
    return Answer(error=WireError(INTERNAL_ERROR, message, data))


def _problems(request: ClientRequest, parts: list[Contribution]) -> list[dict[str, object]]:
    return [_problem(request, part, part.problem) for part in parts if part.problem is not None]


def _problem(request: ClientRequest, part: Contribution, problem: Problem) -> dict[str, object]:
    facts = part.choice.upstream
    entry: dict[str, object] = {
        "key": facts.key,
        "title": facts.title,
        "problem": problem.code,
        "message": problem.message,
    }
    if problem.stale:
        entry["stale"] = True
    if problem.needs is not None:
        entry["connect_url"] = link_for(request.holder.user_id, facts.key)
    return entry


def _result(
    request: ClientRequest,
    kind: Kind,
    parts: list[Contribution],
    published: Published,
    number: int,
    following: str,
) -> bytes:
    """Put the result together around the array that was serialised before."""
    written = [b'{"%s":' % kind.member.encode(), published.pages[number]]
    written += [b",%s:%s" % (raw_members.write(name), value) for name, value in published.extras]
    if following:
        written.append(b',"nextCursor":' + raw_members.write(following))
    meta: Mapping[str, object] = published.meta
    problems = _problems(request, parts)
    if problems:
        meta = {**meta, PROBLEMS_KEY: problems}
    if request.era is Era.MODERN:
        ttl = int(_remaining(parts) * 1000)
        written.append(b',"resultType":"complete","ttlMs":%d,"cacheScope":"private"' % ttl)
        info = raw_server_info(request.server)
        signature = bytes(signed(raw_members.raw(meta) if meta else None, info))
        written.append(b',"_meta":' + signature)
    elif meta:
        written.append(b',"_meta":' + raw_members.write(meta))
    written.append(b"}")
    return b"".join(written)


def _remaining(parts: list[Contribution]) -> float:
    """Seconds the list is good for; a missing or old part has none, so the client soon asks."""
    return min([LONGEST_KEPT, *(part.remaining for part in parts)])
