"""What a Virtual MCP says of itself at ``initialize`` and ``server/discover``.

Answered from memory. What was never asked is asked at once and waited for only shortly; the
client must not wait for the slowest upstream to connect (protocol.md 2.3.1).
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upstreams.canonical_call import ClientFacts
from upstreams.change_interest import LISTS
from upstreams.revisions import MODERN
from virtualmcp import definition_pins, hidden_text
from virtualmcp.route_table import ChoiceFacts, VirtualMcpFacts
from virtualmcp.routing.client_abilities import TASKS
from virtualmcp.server_identity import server_info
from virtualmcp.upstream_openings import UpstreamOpening, openings

if TYPE_CHECKING:
    from oauthserver.bearer_tokens import TokenHolder

LONGEST_WAIT = 2.0
MOST_FROM_ONE = 4_000
MOST_ALL = 16_000
APPS = "io.modelcontextprotocol/ui"
# What the gateway relays from any number of upstreams.
_RELAYED = frozenset({APPS, TASKS})
_FEATURES = ("prompts", "resources", "completions", "logging")
_PRESUMED: dict[str, Any] = {"prompts": {}, "resources": {}, "completions": {}}


@dataclass(slots=True, frozen=True)
class OpeningFacts:
    """For the wire to put into the form of the era."""

    capabilities: dict[str, Any]
    server_info: dict[str, str]
    instructions: str


async def opening(
    server: VirtualMcpFacts, holder: "TokenHolder", client: ClientFacts
) -> OpeningFacts:
    """Return capabilities, name and instructions as this person sees the server; never raises
    for upstreams."""
    said = await _said(server, holder.user_id, client)
    return OpeningFacts(
        capabilities=_capabilities(server, client, said),
        server_info=server_info(server),
        instructions=_instructions(server, said),
    )


async def _said(
    server: VirtualMcpFacts, user_id: int, client: ClientFacts
) -> list[tuple[ChoiceFacts, UpstreamOpening | None]]:
    """Return every upstream's opening, ``None`` where nothing at all is known."""
    found = {c.upstream.id: openings.known(user_id, c.upstream, client) for c in server.choices}
    missing = [c for c in server.choices if found[c.upstream.id] is None]
    if missing:
        reading = {
            c.upstream.id: asyncio.create_task(openings.read(user_id, c.upstream, client))
            for c in missing
        }
        try:
            await asyncio.wait(reading.values(), timeout=LONGEST_WAIT)
        finally:
            for task in reading.values():
                task.cancel()
        for choice in missing:
            task = reading[choice.upstream.id]
            answered = task.result() if task.done() and not task.cancelled() else None
            found[choice.upstream.id] = answered or openings.shared(choice.upstream)
    return [(choice, found[choice.upstream.id]) for choice in server.choices]


def _capabilities(
    server: VirtualMcpFacts,
    client: ClientFacts,
    said: list[tuple[ChoiceFacts, UpstreamOpening | None]],
) -> dict[str, Any]:
    """Return the union. An upstream nobody could ask may have prompts and resources: lists are
    answered in any case, and a client asks for none that were not declared when it connected."""
    capabilities: dict[str, Any] = {"tools": {"listChanged": True}}
    for _, opened in said:
        declared = opened.capabilities if opened is not None else _PRESUMED
        for feature in _FEATURES:
            found = declared.get(feature)
            if not isinstance(found, dict):
                continue
            # What is offered can always change, by an administrator's hand if not by an
            # upstream's; resources are told of only where an upstream does.
            ours = capabilities.setdefault(feature, {})
            if feature in LISTS:
                ours["listChanged"] = True
            if feature == "resources" and found.get("subscribe") is True:
                ours["subscribe"] = True
    extensions = _extensions(server, client, [opened for _, opened in said if opened is not None])
    if extensions:
        capabilities["extensions"] = extensions
    if server.transparent and said and said[0][1] is not None:
        experimental = said[0][1].capabilities.get("experimental")
        if isinstance(experimental, dict) and experimental:
            capabilities["experimental"] = experimental
    return capabilities


def _extensions(
    server: VirtualMcpFacts, client: ClientFacts, said: Iterable[UpstreamOpening]
) -> dict[str, Any]:
    """What the gateway relays always; anything else only where one upstream answers for it."""
    extensions: dict[str, Any] = {}
    for opened in said:
        declared = opened.capabilities.get("extensions")
        for name, settings in declared.items() if isinstance(declared, dict) else ():
            known = name in _RELAYED or server.transparent
            if name == TASKS and client.revision != MODERN:
                # Stateful clients know no such tasks; tools that need them are called as one.
                continue
            if known and name not in extensions:
                extensions[name] = settings
    return extensions


def _instructions(
    server: VirtualMcpFacts, said: list[tuple[ChoiceFacts, UpstreamOpening | None]]
) -> str:
    """The administrator's words first: hosts heed the beginning most (clients.md 1.6)."""
    texts = [server.instructions.strip()]
    for choice, opened in said:
        text = _of_upstream(server, choice, opened) if opened is not None else ""
        if text and not server.transparent:
            text = f"## {choice.upstream.title} ({choice.upstream.key})\n{text}"
        texts.append(text)
    return "\n\n".join(text for text in texts if text)[:MOST_ALL]


def _of_upstream(server: VirtualMcpFacts, choice: ChoiceFacts, opened: UpstreamOpening) -> str:
    """Return an upstream's own words, if they may be passed on: they reach the model unasked."""
    said = opened.instructions
    if not said or not definition_pins.look_at_instructions(server, choice, said):
        return ""
    return hidden_text.without(said)[:MOST_FROM_ONE].strip()
