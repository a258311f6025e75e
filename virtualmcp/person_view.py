"""A Virtual MCP as one person may see it: without the upstreams and tools that rules deny them.

Everything behind the gate is handed this view instead of the snapshot, so that lists, calls,
resources and prompts cannot disagree, and what is denied looks like what does not exist.
"""

from collections import OrderedDict
from dataclasses import replace
from hashlib import blake2b

from virtualmcp.route_table import ChoiceFacts, RuleFacts, VirtualMcpFacts

MOST_VIEWS = 4_096

# With the snapshot that each was made from: a view of an older one must never stand in.
_views: OrderedDict[tuple[int, frozenset[int]], tuple[VirtualMcpFacts, VirtualMcpFacts]]
_views = OrderedDict()


def seen_by(server: VirtualMcpFacts, group_ids: frozenset[int]) -> VirtualMcpFacts:
    """Return the view of a person in these groups; warm, it is one set and one look-up.

    People whose groups make no difference here share a view, and thereby the merged lists.
    """
    if not server.rules:
        return server
    named: frozenset[int] = frozenset().union(*(rule.group_ids for rule in server.rules))
    key = (server.id, named & group_ids)
    kept = _views.get(key)
    if kept is not None and kept[0] is server:
        return kept[1]
    view = _narrowed(server, key[1])
    _views[key] = (server, view)
    while len(_views) > MOST_VIEWS:
        _views.popitem(last=False)
    return view


def lost_any(before: VirtualMcpFacts, server: VirtualMcpFacts, group_ids: frozenset[int]) -> bool:
    """Tell whether rules now deny what the view ``before`` still had."""
    if not server.rules:
        return False
    now = seen_by(server, group_ids)
    for choice in before.choices:
        after = now.choice_of(choice.upstream.id)
        offered = server.choice_of(choice.upstream.id) is not None
        if offered and (after is None or not after.hidden <= choice.hidden):
            return True
    return False


def _narrowed(server: VirtualMcpFacts, group_ids: frozenset[int]) -> VirtualMcpFacts:
    choices = []
    for choice in server.choices:
        rules = [rule for rule in server.rules if rule.upstream_id == choice.upstream.id]
        whole = [rule for rule in rules if not rule.tools]
        if not whole or _opens(whole, group_ids):
            choices.append(replace(choice, hidden=_hidden(rules, group_ids)))
    seen = repr((server.version, [_outline(choice) for choice in choices]))
    version = int.from_bytes(blake2b(seen.encode(), digest_size=8).digest())
    return replace(server, choices=tuple(choices), version=version)


def _opens(rules: list[RuleFacts], group_ids: frozenset[int]) -> bool:
    return any(not rule.group_ids.isdisjoint(group_ids) for rule in rules)


def _hidden(rules: list[RuleFacts], group_ids: frozenset[int]) -> frozenset[str]:
    named = frozenset().union(*(rule.tools for rule in rules))
    return frozenset(
        tool for tool in named if not _opens([r for r in rules if tool in r.tools], group_ids)
    )


def _outline(choice: ChoiceFacts) -> tuple[int, list[str]]:
    return (choice.upstream.id, sorted(choice.hidden))
