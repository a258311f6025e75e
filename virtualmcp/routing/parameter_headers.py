"""``Mcp-Param-*``: checked against the published schema, made anew for the upstream (a30, b4).

The schema comes from the lists in memory, never from an upstream while a call waits, unless the
client sent such headers and no list was read yet.
"""

from typing import Any

from upstreams.errors import UpstreamError
from upstreams.revisions import Era
from virtualmcp import raw_members
from virtualmcp.errors import HeaderMismatch
from virtualmcp.listed_entries import Kind, ListContent
from virtualmcp.mirrored_arguments import (
    HEADER_PREFIX,
    Mirrored,
    headers_for,
    mismatch,
    unrecognised,
)
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import fan_out
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import ClientRequest

Headers = tuple[tuple[str, str], ...]


async def of_call(request: ClientRequest, target: Target, content: ListContent | None) -> Headers:
    """Return the headers for the upstream; ``content`` are its tools, if they are in memory.

    Raises:
        HeaderMismatch: a stateless client's headers do not repeat its arguments.
    """
    facts, client = target.choice.upstream, request.client
    if content is None:
        if not request.param_headers:
            return ()
        try:
            content = await fan_out.read_now(request.holder.user_id, facts, client, Kind.TOOLS)
        except UpstreamError:
            # The call itself will say what is wrong with the upstream.
            return ()
    return _checked(request, content, target)


async def after_refresh(request: ClientRequest, target: Target) -> Headers:
    """Return the headers by a schema read anew, after the upstream found the old ones wrong (b5).

    Raises:
        UpstreamError: the list can't be read.
    """
    facts, client = target.choice.upstream, request.client
    content = await fan_out.read_now(request.holder.user_id, facts, client, Kind.TOOLS)
    return _repeating(mirrored(content, target.name), target)


def _checked(request: ClientRequest, content: ListContent, target: Target) -> Headers:
    repeated = mirrored(content, target.name)
    if not repeated and not request.param_headers:
        return ()
    if request.era is not Era.MODERN:
        return _repeating(repeated, target)
    wrong = mismatch(repeated, _object(target.arguments), request.param_headers)
    if wrong:
        raise HeaderMismatch(f"Header mismatch: {wrong} must repeat the argument it stands for.")
    headers = _repeating(repeated, target)
    if request.server.transparent:
        extra = unrecognised(repeated, request.param_headers)
        headers += tuple(pair for pair in extra if pair[0].lower().startswith(HEADER_PREFIX))
    return headers


def _repeating(repeated: tuple[Mirrored, ...], target: Target) -> Headers:
    own = target.arguments if target.own_arguments is None else target.own_arguments
    return headers_for(repeated, _object(own))


def mirrored(content: ListContent, name: str) -> tuple[Mirrored, ...]:
    """Return which arguments of a tool are repeated in headers."""
    entry = content.by_identity.get(name)
    return (entry.mirrored or ()) if entry is not None else ()


def _object(arguments: bytes) -> dict[str, Any]:
    try:
        found = raw_members.value(arguments or b"{}")
    except NotAnObject:
        return {}
    return found if isinstance(found, dict) else {}
