"""Which groups may use which upstreams and tools of a Virtual MCP: checking and storing the rules.

``virtualmcp.actions`` calls these inside its transactions; ``person_view`` applies what is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

from upstreams.models import Upstream
from virtualmcp.models import AccessRule, VirtualMcp
from virtualmcp.tool_names import LONGEST_UPSTREAM

MOST_RULES: Final = 200
MOST_TOOLS: Final = 1_000


@dataclass(frozen=True)
class Rule:
    """Only ``groups`` may use ``tools`` of an upstream, all of it where no tools are named.

    No groups means nobody. A rule for an upstream that is not offered waits until it is.
    """

    upstream: Upstream
    tools: tuple[str, ...]
    groups: frozenset[Group]


def check_rules(rules: Sequence[Rule]) -> None:
    """Check rules before they are stored.

    Raises:
        ValidationError: too many, or what is no tool name.
    """
    if len(rules) > MOST_RULES:
        raise ValidationError({"access": f"Make at most {MOST_RULES} access rules."})
    for rule in rules:
        good = all(isinstance(t, str) and 0 < len(t) <= LONGEST_UPSTREAM for t in rule.tools)
        if not good or len(rule.tools) > MOST_TOOLS:
            message = f"The tools of an access rule for {rule.upstream.key} must be tool names."
            raise ValidationError({"access": message})


def write_rules(row: VirtualMcp, rules: Sequence[Rule]) -> None:
    """Make the rules those given."""
    row.rules.all().delete()
    for rule in rules:
        made = AccessRule.objects.create(
            virtual_mcp=row, upstream=rule.upstream, tools=list(rule.tools)
        )
        made.groups.set(rule.groups)


def change_rules(row: VirtualMcp, rules: Sequence[Rule]) -> dict[str, Any]:
    """Make the rules those given; return what changed, for the audit trail.

    Raises:
        ValidationError: see ``check_rules``.
    """
    check_rules(rules)
    present = present_rules(row)
    if present == list(rules):
        return {}
    write_rules(row, rules)
    return {"access_rules": {"before": _described(present), "after": _described(rules)}}


def present_rules(row: VirtualMcp) -> list[Rule]:
    """Return the rules as they are stored."""
    rows = row.rules.select_related("upstream").prefetch_related("groups")
    return [Rule(r.upstream, tuple(r.tools), frozenset(r.groups.all())) for r in rows]


def _described(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    return [
        {
            "upstream": rule.upstream.key,
            "tools": list(rule.tools) or "all",
            "groups": sorted(group.name for group in rule.groups),
        }
        for rule in rules
    ]
