"""Which tools only read, and which may change something, where an administrator asks for step-up.

With it on, a client needs the further scope ``mcp:tools.write`` for every tool that is not known
to only read: by the administrator's choice or else by the upstream's ``readOnlyHint``. The hint
is the upstream's own claim (b18), so the administrator's choice goes first, and a tool of which
nobody says anything counts as one that changes something.
"""

import json

from virtualmcp.models import ToolDefinition, UpstreamChoice, VirtualMcp


def reading_tools(server: VirtualMcp) -> dict[int, frozenset[str]] | None:
    """Return the tools that only read by upstream, in its own names; None where all are alike."""
    if not server.step_up:
        return None
    # Of several wordings that are in use, one that does not say so is enough.
    said: dict[tuple[int, str], bool] = {}
    rows = (
        server.definitions.filter(subject=ToolDefinition.Subject.TOOL)
        .exclude(state=ToolDefinition.State.REJECTED)
        .values_list("upstream_id", "name", "read_only")
    )
    for upstream_id, name, read_only in rows:
        said[upstream_id, name] = said.get((upstream_id, name), True) and read_only
    found: dict[int, frozenset[str]] = {}
    for choice in server.choices.all():
        hinted = {name for (owner, name), reads in said.items() if reads and owner == _of(choice)}
        found[_of(choice)] = frozenset((hinted - _names(choice.write_tools)) | _read(choice))
    return found


def offered_tools(server: VirtualMcp) -> set[tuple[int, str]]:
    """Return the known tools that the server offers, each with its upstream's id, in the upstream's
    own names: of upstreams that are on, only the chosen ones, and none that was rejected."""
    shown = {
        _of(choice): _names(choice.chosen_tools)
        if choice.tool_mode == UpstreamChoice.ToolMode.CHOSEN
        else None
        for choice in server.choices.filter(upstream__enabled=True)
    }
    known = server.definitions.filter(subject=ToolDefinition.Subject.TOOL).exclude(
        state=ToolDefinition.State.REJECTED
    )
    return {
        (owner, name)
        for owner, name in known.values_list("upstream_id", "name")
        if owner in shown and (shown[owner] is None or name in (shown[owner] or ()))
    }


def groups_of(server: VirtualMcp) -> tuple[list[str], list[str]]:
    """Return the known tools that only read, and those that may change something, by name."""
    reading = reading_tools(server) or {}
    tools = offered_tools(server)
    reads = {name for owner, name in tools if name in reading.get(owner, frozenset())}
    writes = {name for owner, name in tools if name not in reading.get(owner, frozenset())}
    return sorted(reads), sorted(writes)


def repeatable(choice: UpstreamChoice) -> list[str]:
    """Return the tools of which the upstream says, in every wording, that they only read or that a
    repetition changes nothing (``readOnlyHint``, ``idempotentHint``)."""
    if choice.virtual_mcp_id is None or choice.upstream_id is None:
        return []
    said: dict[str, bool] = {}
    rows = ToolDefinition.objects.filter(
        virtual_mcp=choice.virtual_mcp_id,
        upstream=choice.upstream_id,
        subject=ToolDefinition.Subject.TOOL,
    ).exclude(state=ToolDefinition.State.REJECTED)
    for name, read_only, content in rows.values_list("name", "read_only", "content"):
        said[name] = said.get(name, True) and (read_only or _idempotent(content))
    return sorted(name for name, repeats in said.items() if repeats)


def _idempotent(content: str) -> bool:
    try:
        told = json.loads(content) if content else {}
    except ValueError:
        return False
    hints = told.get("annotations") if isinstance(told, dict) else None
    return isinstance(hints, dict) and hints.get("idempotentHint") is True


def _of(choice: UpstreamChoice) -> int:
    return int(choice.upstream_id)


def _read(choice: UpstreamChoice) -> set[str]:
    return _names(choice.read_tools) - _names(choice.write_tools)


def _names(value: object) -> set[str]:
    # A list that can't be read names nothing.
    return {name for name in value if isinstance(name, str)} if isinstance(value, list) else set()
