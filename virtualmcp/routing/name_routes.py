"""Where a called tool or prompt lives, for the person who calls it.

What the administrator filtered out is found as little as what does not exist.
"""

from collections.abc import Mapping

from virtualmcp import person_view, route_table
from virtualmcp.errors import NameAmbiguous, NameUnknown
from virtualmcp.listed_entries import Kind
from virtualmcp.route_table import ChoiceFacts, Route, VirtualMcpFacts
from virtualmcp.routing import fan_out, list_answers
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.tool_names import resolve

# Another node may have pinned a name a moment ago; looked up at most this often, in seconds.
_SNAPSHOT_AGE = 1.0
_WORDS = {Kind.TOOLS: "tool", Kind.PROMPTS: "prompt"}


async def find(request: ClientRequest, name: str, kind: Kind) -> tuple[ChoiceFacts, str]:
    """Return the upstream and its own name for what a client calls.

    Raises:
        NameUnknown: nothing of this name is offered here.
        NameAmbiguous: a bare name with several owners.
    """
    server = request.server
    if server.transparent:
        only, own = _in_single(server, name, kind)
        if kind is Kind.TOOLS and only.hidden and not await _listed(request, only, own):
            # The upstream would say it in other words than the gateway does of a hidden tool.
            raise _unknown(name, kind)
        return only, own
    found = _in_routes(server, name, kind)
    if found is None:
        newer = await route_table.load_newer_than(server.slug, _SNAPSHOT_AGE)
        found = _in_newer(request, newer, name, kind)
    if found is None and await _learned(request, kind):
        newer = await route_table.load(server.slug)
        found = _in_newer(request, newer, name, kind)
    if found is None:
        raise _unknown(name, kind)
    choice = server.choice_of(found.upstream.id)
    if choice is None:
        raise _unknown(name, kind)
    return choice, found.name


def _in_single(server: VirtualMcpFacts, name: str, kind: Kind) -> tuple[ChoiceFacts, str]:
    """A single upstream gets every name as it is, unless a pin or an old alias says otherwise."""
    choice = server.choices[0]
    routes, former = _routes(server, kind)
    route = routes.get(name) or former.get(name)
    if route is None and name.startswith(f"{choice.upstream.key}_"):
        route = resolve(name, routes, lambda _: True).route
    own = route.name if route is not None else name
    if kind is Kind.TOOLS and not choice.shows(own):
        raise _unknown(name, kind)
    return choice, own


def _in_newer(
    request: ClientRequest, newer: VirtualMcpFacts | None, name: str, kind: Kind
) -> Route | None:
    if newer is None:
        return None
    return _in_routes(person_view.seen_by(newer, request.holder.group_ids), name, kind)


def _in_routes(server: VirtualMcpFacts, name: str, kind: Kind) -> Route | None:
    def shown(route: Route) -> bool:
        choice = server.choice_of(route.upstream.id)
        return choice is not None and (kind is not Kind.TOOLS or choice.shows(route.name))

    routes, former = _routes(server, kind)
    resolution = resolve(name, routes, shown, former)
    if resolution.candidates:
        names = ", ".join(sorted(resolution.candidates))
        raise NameAmbiguous(
            f"Several upstreams have a {_WORDS[kind]} {name!r}. Use one of: {names}"
        )
    return resolution.route


async def _listed(request: ClientRequest, choice: ChoiceFacts, tool: str) -> bool:
    """Tell whether the upstream lists a tool; also true when its list can't be read."""
    asked = (request.holder.user_id, choice.upstream, request.client, Kind.TOOLS)
    content = fan_out.remembered_list(*asked)
    if content is None or tool not in content.by_identity:
        parts = await list_answers.contributions(request, Kind.TOOLS)
        content = parts[0].content
    return content is None or tool in content.by_identity


async def _learned(request: ClientRequest, kind: Kind) -> bool:
    """Read the lists nobody has read yet, so that a call works before the first listing."""
    user_id, client = request.holder.user_id, request.client
    unread = any(
        fan_out.remembered_list(user_id, choice.upstream, client, kind) is None
        for choice in request.server.choices
    )
    if unread:
        await list_answers.learn_names(request, kind)
    return unread


def _routes(server: VirtualMcpFacts, kind: Kind) -> tuple[Mapping[str, Route], Mapping[str, Route]]:
    """Return where public names lead, and where those lead that things had before."""
    if kind is Kind.TOOLS:
        return server.tools, server.former_tools
    return server.prompts, server.former_prompts


def _unknown(name: str, kind: Kind) -> NameUnknown:
    return NameUnknown(f"Unknown {_WORDS[kind]}: {name[:128]}. List the {_WORDS[kind]}s again.")
