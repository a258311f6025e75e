"""The demo's open upstream: a harbour office. Nobody has to sign in.

python -m gateway_site.demo.harbor --port 8001
"""

import asyncio
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway_site.demo.mcp_wire import McpWire, Receive, Scope, Send
from gateway_site.demo.running import run, text_answer
from gateway_site.demo.server_features import (
    Prompt,
    Resource,
    Result,
    ServerFeatures,
    Tool,
    ToolRefusal,
    ToolRun,
)

BERTHS_PAGE = "ui://harbor/berths.html"
# Number, depth at low water in metres, ship in berth.
BERTHS: tuple[tuple[int, float, str], ...] = (
    (1, 4.5, "Marie Galante"),
    (2, 4.5, ""),
    (3, 6.0, "Northern Tern"),
    (4, 6.0, ""),
    (5, 8.5, "Oskar"),
    (6, 8.5, ""),
)
TIDE_HOURS = 12.42
NOTICES = """# Notices to mariners

- The fairway is 7.5 m deep at low water.
- Speed limit inside the moles: 5 knots.
- Berths are assigned by the harbour office on channel 12.
"""


def berth(number: int) -> Result:
    """Return one berth as an object.

    Raises:
        LookupError: there is no such berth.
    """
    for known, depth, ship in BERTHS:
        if known == number:
            return {"number": known, "depth_m": depth, "ship": ship}
    raise LookupError(number)


def water_level(at: datetime) -> float:
    """Return metres above chart datum: the principal lunar tide with a two-week swing."""
    hours = (at - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds() / 3600
    swing = 1.0 + 0.25 * math.cos(2 * math.pi * hours / (14.77 * 24))
    return 2.1 + 1.6 * swing * math.cos(2 * math.pi * hours / TIDE_HOURS)


async def list_berths(call: ToolRun) -> Result:
    """Return all berths."""
    return {"berths": [berth(number) for number, _, _ in BERTHS]}


async def tide_times(call: ToolRun) -> Result:
    """Return the next high and low waters."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    levels = [(now + timedelta(minutes=m), 0.0) for m in range(0, 25 * 60, 5)]
    levels = [(at, water_level(at)) for at, _ in levels]
    turns = []
    for before, here, after in zip(levels, levels[1:], levels[2:], strict=False):
        if (here[1] - before[1]) * (after[1] - here[1]) < 0:
            kind = "high" if here[1] > before[1] else "low"
            at = here[0].isoformat(timespec="minutes")
            turns.append({"kind": kind, "at": at, "level_m": round(here[1], 2)})
    return {"now_m": round(water_level(now), 2), "turns": turns[:4]}


async def survey_berths(call: ToolRun) -> Result:
    """Sound the depth of every berth, one after the other, and report on the way."""
    await call.log("info", "The survey boat has left", "harbor")
    level = water_level(datetime.now(UTC))
    measured = []
    for position, (number, depth, _) in enumerate(BERTHS, start=1):
        await asyncio.sleep(0.25)
        measured.append({"number": number, "depth_now_m": round(depth + level, 2)})
        await call.progress(position, len(BERTHS), f"Berth {number} is sounded")
    await call.log("info", "The survey boat is back", "harbor")
    return {"berths": measured}


async def find_berth(call: ToolRun) -> Result:
    """Return the shallowest free berth that is deep enough at low water."""
    draught = float(call.arguments["draught_m"])
    fitting = [one for one in BERTHS if not one[2] and one[1] >= draught + 0.5]
    if not fitting:
        raise ToolRefusal(f"No free berth is deep enough for a draught of {draught} m.")
    return berth(min(fitting, key=lambda one: one[1])[0])


def read_berth(number: str) -> str:
    """Return the text of ``harbor://berths/{number}``."""
    found = berth(int(number) if number.isdecimal() else 0)
    ship = found["ship"] or "free"
    return f"Berth {found['number']}: {found['depth_m']} m at low water, {ship}."


def plan_arrival(arguments: Mapping[str, str]) -> str:
    """Return the prompt's text."""
    return (
        f"Plan the arrival of the ship {arguments['ship']} "
        f"with a draught of {arguments.get('draught_m') or 'unknown'} m. Use the tide times and "
        "find a berth; say when to enter and what to watch out for."
    )


def complete(argument: str, begun: str) -> list[str]:
    """Suggest ships and berth numbers."""
    known = {
        "ship": [ship for _, _, ship in BERTHS if ship],
        "number": [str(number) for number, _, _ in BERTHS],
    }
    return [value for value in known.get(argument, []) if value.lower().startswith(begun.lower())]


BERTH_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "number": {"type": "integer"},
        "depth_m": {"type": "number"},
        "ship": {"type": "string"},
    },
    "required": ["number", "depth_m", "ship"],
}
BERTHS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"berths": {"type": "array", "items": BERTH_SCHEMA}},
    "required": ["berths"],
}
PAGE_META: dict[str, Any] = {"ui": {"prefersBorder": True, "csp": {}}}

FEATURES = ServerFeatures(
    name="harbor-office",
    title="Harbour office",
    instructions="Tides, depths and berths of a small harbour. Metres and UTC throughout.",
    tools=(
        Tool(
            "list_berths",
            "List berths",
            "All berths with their depth at low water and the ship lying there.",
            list_berths,
            output=BERTHS_SCHEMA,
        ),
        Tool(
            "show_berths",
            "Show the berths",
            "Show all berths as a small interactive page.",
            list_berths,
            output=BERTHS_SCHEMA,
            meta={"ui": {"resourceUri": BERTHS_PAGE}, "openai/outputTemplate": BERTHS_PAGE},
        ),
        Tool(
            "tide_times",
            "Tide times",
            "Water level now and the next high and low waters.",
            tide_times,
        ),
        Tool(
            "survey_berths",
            "Survey the berths",
            "Sound the depth of every berth. Takes a moment and reports progress.",
            survey_berths,
            streams=True,
        ),
        Tool(
            "find_berth",
            "Find a berth",
            "Find a free berth that is deep enough at low water.",
            find_berth,
            arguments={
                "draught_m": {
                    "type": "number",
                    "description": "Draught of the ship in metres.",
                    "minimum": 0.1,
                    "maximum": 20,
                }
            },
            required=("draught_m",),
            output=BERTH_SCHEMA,
        ),
    ),
    resources=(
        Resource(
            "harbor://notices",
            "notices",
            "Notices to mariners",
            "text/markdown",
            lambda _: NOTICES,
            "What every skipper must know before entering.",
        ),
        Resource(
            BERTHS_PAGE,
            "berths-page",
            "Berths page",
            "text/html;profile=mcp-app",
            lambda _: (Path(__file__).parent / "harbor_berths.html").read_text(encoding="utf-8"),
            "The page that show_berths opens.",
            PAGE_META,
        ),
    ),
    templates=(
        Resource(
            "harbor://berths/{number}",
            "berth",
            "One berth",
            "text/plain",
            read_berth,
            "Depth and occupation of one berth.",
        ),
    ),
    prompts=(
        Prompt(
            "plan_arrival",
            "Plan an arrival",
            "Plan when a ship enters and where it lies.",
            {"ship": "Name of the ship", "draught_m": "Draught in metres"},
            plan_arrival,
            required=("ship",),
        ),
    ),
    complete=complete,
)
_wire = McpWire(FEATURES)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The harbour office at ``/mcp``."""
    if scope["path"] == "/mcp":
        await _wire(scope, receive, send)
    else:
        await text_answer(send, 404, "The MCP server is at /mcp.\n")


if __name__ == "__main__":
    run("The demo's harbour office.", lambda options: application)
