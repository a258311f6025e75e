"""Where a resource lives, by its public URI (protocol.md 3.3).

Most URIs say so themselves. Bare ones are aliases for what exactly one upstream has; https ones
keep their form and are found by who listed or returned them. The gateway never opens a URI.
"""

from collections import OrderedDict

from virtualmcp import resource_uris
from virtualmcp.errors import ResourceUnknown
from virtualmcp.listed_entries import Kind
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import fan_out, list_answers
from virtualmcp.routing.client_request import ClientRequest

MOST_RETURNED = 50_000
_KINDS = (Kind.RESOURCES, Kind.TEMPLATES)


class _Returned:
    """Bounded memory of https URIs in results: whose they were, per server and person."""

    def __init__(self) -> None:
        self._owners: OrderedDict[tuple[int, int, str], int] = OrderedDict()

    def note(self, request: ClientRequest, uris: list[str], upstream_id: int) -> None:
        for uri in uris:
            self._owners[(request.server.id, request.holder.user_id, uri)] = upstream_id
        while len(self._owners) > MOST_RETURNED:
            self._owners.popitem(last=False)

    def owner(self, request: ClientRequest, uri: str) -> ChoiceFacts | None:
        found = self._owners.get((request.server.id, request.holder.user_id, uri))
        return request.server.choice_of(found) if found is not None else None

    def clear(self) -> None:
        self._owners.clear()


_returned = _Returned()


def note_returned(request: ClientRequest, uris: list[str], upstream_id: int) -> None:
    """Remember that an upstream returned these https URIs to this person."""
    if uris:
        _returned.note(request, uris, upstream_id)


def forget() -> None:
    """Drop what was noted."""
    _returned.clear()


async def find(request: ClientRequest, uri: str) -> tuple[ChoiceFacts, str]:
    """Return the upstream and its own URI (or URI template) for a public one.

    Raises:
        ResourceUnknown: nobody here has it, or several have and the URI does not say which.
    """
    known = in_memory(request, uri)
    if known is not None:
        return known
    found = _by_alias(request, uri) if await _learned(request) else None
    if found is None:
        raise ResourceUnknown(uri)
    return found, uri


def in_memory(request: ClientRequest, uri: str) -> tuple[ChoiceFacts, str] | None:
    """Return the same where the URI itself says it, or what was listed or returned before."""
    server = request.server
    if server.transparent:
        return server.choices[0], uri
    owner = resource_uris.to_upstream(uri)
    if owner is not None:
        choice = server.choice_by_key(owner.key)
        if choice is not None:
            return choice, owner.uri
    found = _by_alias(request, uri)
    return None if found is None else (found, uri)


def _by_alias(request: ClientRequest, uri: str) -> ChoiceFacts | None:
    owners = [choice for choice in request.server.choices if _lists(request, choice, uri)]
    if len(owners) == 1 or (owners and resource_uris.is_web(uri)):
        return owners[0]
    if owners:
        return None
    return _returned.owner(request, uri) or _by_template(request, uri)


def _lists(request: ClientRequest, choice: ChoiceFacts, uri: str) -> bool:
    user_id, client = request.holder.user_id, request.client
    for kind in _KINDS:
        content = fan_out.remembered_list(user_id, choice.upstream, client, kind)
        if content is not None and uri in content.by_identity:
            return True
    if not uri.startswith("ui://"):
        return False
    # Pages of MCP Apps need not be listed as resources; the tool that shows them names them.
    tools = fan_out.remembered_list(user_id, choice.upstream, client, Kind.TOOLS)
    quoted = b'"%s"' % uri.encode("utf-8", "replace")
    return tools is not None and any(
        quoted in tool.raw and choice.shows(tool.identity) for tool in tools.entries
    )


def _by_template(request: ClientRequest, uri: str) -> ChoiceFacts | None:
    """Return the upstream with the longest fitting literal start of a template, if it is one."""
    best: dict[int, list[ChoiceFacts]] = {}
    for choice in request.server.choices:
        content = fan_out.remembered_list(
            request.holder.user_id, choice.upstream, request.client, Kind.TEMPLATES
        )
        starts = (
            [resource_uris.literal_start(t.identity) for t in content.entries] if content else []
        )
        fitting = [len(start) for start in starts if ":" in start and uri.startswith(start)]
        if fitting:
            best.setdefault(max(fitting), []).append(choice)
    owners = best[max(best)] if best else []
    return owners[0] if len(owners) == 1 else None


async def _learned(request: ClientRequest) -> bool:
    """Read the lists that nobody has read yet."""
    learned = False
    for kind in _KINDS:
        unread = any(
            fan_out.remembered_list(request.holder.user_id, choice.upstream, request.client, kind)
            is None
            for choice in request.server.choices
        )
        if unread:
            await list_answers.contributions(request, kind)
            learned = True
    return learned
