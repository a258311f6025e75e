"""What an administrator does to Virtual MCPs: check, change, tell, in one transaction each.

Admin, configuration file and REST interface all come through here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction

from upstreams.models import Upstream
from virtualmcp.access_rules import Rule, change_rules, check_rules, write_rules
from virtualmcp.models import UpstreamChoice, VirtualMcp
from virtualmcp.signals import audit, changed
from virtualmcp.tool_names import LONGEST_UPSTREAM

EDITABLE: Final = (
    "slug",
    "title",
    "description",
    "instructions",
    "enabled",
    "audience",
    "new_definitions",
    "changed_definitions",
    "step_up",
    "ask_again",
    "app_domains",
    "naming",
    "argument_uris",
)
_TOLD_IN_AUDIT: Final = (
    *("enabled", "audience", "new_definitions", "changed_definitions", "step_up", "ask_again"),
    "app_domains",
    "naming",
    "argument_uris",
)
MOST_CHOICES: Final = 50
MOST_CHOSEN_TOOLS: Final = 1_000


@dataclass(frozen=True)
class Choice:
    """One upstream to offer. ``tools`` are names as the upstream gives them, ``None`` for all.

    ``read_tools`` and ``write_tools``: what the administrator says of tools for step-up;
    ``rerun_tools``: which may be run again when a call is lost.
    ``sampling`` and ``roots``: it may ask clients for these also beside other upstreams.
    """

    upstream: Upstream
    required: bool = True
    tools: Sequence[str] | None = None
    sampling: bool = False
    roots: bool = False
    read_tools: Sequence[str] = ()
    write_tools: Sequence[str] = ()
    rerun_tools: Sequence[str] = ()


@transaction.atomic
def create_virtual_mcp(
    data: Mapping[str, Any],
    *,
    groups: Iterable[Group] = (),
    choices: Iterable[Choice] = (),
    rules: Iterable[Rule] = (),
    actor: Any,
) -> VirtualMcp:
    """Add a Virtual MCP; ``data`` holds fields named in ``EDITABLE``.

    Raises:
        ValidationError: by field.
    """
    row = VirtualMcp()
    _assign(row, data)
    row.full_clean()
    row.save()
    row.groups.set(groups)
    listed = list(choices)
    _write_choices(row, listed)
    narrowing = list(rules)
    check_rules(narrowing)
    write_rules(row, narrowing)
    keys = [choice.upstream.key for choice in listed]
    _report("virtual_mcp.created", row, actor, upstreams=keys, access_rules=len(narrowing))
    return row


@transaction.atomic
def update_virtual_mcp(
    row: VirtualMcp,
    data: Mapping[str, Any],
    *,
    groups: Iterable[Group] | None = None,
    choices: Iterable[Choice] | None = None,
    rules: Iterable[Rule] | None = None,
    actor: Any,
) -> VirtualMcp:
    """Change a Virtual MCP; ``None`` leaves groups, choices or rules as they are.

    Raises:
        ValidationError: by field; always for another slug, since clients and tokens know it.
    """
    before = VirtualMcp.objects.select_for_update().get(pk=row.pk)
    _assign(row, data)
    if row.slug != before.slug:
        message = "The address cannot change: clients were given it. Make a new server instead."
        raise ValidationError({"slug": message})
    row.full_clean()
    details: dict[str, Any] = {}
    fields = [name for name in EDITABLE if getattr(before, name) != getattr(row, name)]
    if fields:
        row.save()
        details["fields"] = fields
        for name in _TOLD_IN_AUDIT:
            if name in fields:
                details[name] = {"before": getattr(before, name), "after": getattr(row, name)}
    if groups is not None:
        details |= _change_groups(row, list(groups))
    if choices is not None:
        details |= _change_choices(row, list(choices))
    if rules is not None:
        details |= change_rules(row, list(rules))
    if details:
        _report("virtual_mcp.changed", row, actor, **details)
    return row


@transaction.atomic
def delete_virtual_mcp(row: VirtualMcp, *, actor: Any) -> None:
    """Remove a Virtual MCP with its pinned names; tokens for it open nothing any more."""
    slug = row.slug
    row.delete()
    _send("virtual_mcp.deleted", slug, actor, {})


def _assign(row: VirtualMcp, data: Mapping[str, Any]) -> None:
    unknown = set(data) - set(EDITABLE)
    if unknown:
        raise ValidationError(f"A Virtual MCP has no {', '.join(sorted(unknown))}.")
    for name, value in data.items():
        setattr(row, name, value)


def _change_groups(row: VirtualMcp, groups: list[Group]) -> dict[str, Any]:
    before = set(row.groups.values_list("name", flat=True))
    after = {group.name for group in groups}
    if before == after:
        return {}
    row.groups.set(groups)
    return {"groups": {"before": sorted(before), "after": sorted(after)}}


def _change_choices(row: VirtualMcp, choices: list[Choice]) -> dict[str, Any]:
    before = _described(row)
    _write_choices(row, choices)
    after = _described(row)
    return {} if before == after else {"choices": {"before": before, "after": after}}


def _described(row: VirtualMcp) -> list[dict[str, Any]]:
    return [
        {
            "upstream": choice.upstream.key,
            "required": choice.required,
            "tools": choice.chosen_tools if choice.tool_mode == "chosen" else "all",
            "sampling": choice.may_sample,
            "roots": choice.may_list_roots,
            "read_tools": choice.read_tools,
            "write_tools": choice.write_tools,
            "rerun_tools": choice.rerun_tools,
        }
        for choice in row.choices.select_related("upstream")
    ]


def _write_choices(row: VirtualMcp, choices: list[Choice]) -> None:
    """Make the choices those given, in their order; rows of the same upstream are kept."""
    check_choices(choices)
    row.choices.exclude(upstream__in=[choice.upstream for choice in choices]).delete()
    for position, choice in enumerate(choices):
        modes = UpstreamChoice.ToolMode
        UpstreamChoice.objects.update_or_create(
            virtual_mcp=row,
            upstream=choice.upstream,
            defaults={
                "position": position,
                "required": choice.required,
                "tool_mode": modes.ALL if choice.tools is None else modes.CHOSEN,
                "chosen_tools": [] if choice.tools is None else list(choice.tools),
                "may_sample": choice.sampling,
                "may_list_roots": choice.roots,
                "read_tools": list(choice.read_tools),
                "write_tools": list(choice.write_tools),
                "rerun_tools": list(choice.rerun_tools),
            },
        )


def check_choices(choices: Sequence[Choice]) -> None:
    """Check what a Virtual MCP is to offer.

    Raises:
        ValidationError: an upstream twice, too many, or tools that are not names.
    """
    keys = [choice.upstream.key for choice in choices]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValidationError({"choices": f"Choose each upstream once, not {', '.join(twice)}."})
    if len(choices) > MOST_CHOICES:
        raise ValidationError({"choices": f"Choose at most {MOST_CHOICES} upstreams."})
    for choice in choices:
        apart = (*choice.read_tools, *choice.write_tools, *choice.rerun_tools)
        tools = [*(choice.tools or ()), *apart]
        good = all(isinstance(name, str) and 0 < len(name) <= LONGEST_UPSTREAM for name in tools)
        if not good or len(tools) > MOST_CHOSEN_TOOLS:
            message = f"The chosen tools of {choice.upstream.key} must be a list of tool names."
            raise ValidationError({"choices": message})


def _report(kind: str, row: VirtualMcp, actor: Any, **details: Any) -> None:
    _send(kind, row.slug, actor, details)


def _send(kind: str, slug: str, actor: Any, details: dict[str, Any]) -> None:
    audit.send(sender=VirtualMcp, kind=kind, user=actor, target=slug, details=details, address="")
    changed.send(sender=VirtualMcp, kind="configuration", key=slug)
