"""The demo's upstream behind an API key: a parcel service.

python -m gateway_site.demo.parcels --port 8003 --data /tmp/demo
"""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

from gateway_site.demo.mcp_wire import McpWire, Receive, Scope, Send
from gateway_site.demo.running import Application, Options, header, parcels_key, run, text_answer
from gateway_site.demo.server_features import Result, ServerFeatures, Tool, ToolRefusal, ToolRun

KEY_HEADER = "x-api-key"
STATIONS = ("Collected", "At the sorting centre", "On the night train", "At the depot", "Delivered")
ZONES = {"city": 1, "country": 2, "island": 4}


def _number_of(call: ToolRun) -> str:
    number = str(call.arguments["number"]).strip().upper()
    if not (number.startswith("PX") and number[2:].isdecimal() and len(number) == 10):
        raise ToolRefusal("A parcel number is PX and eight digits, such as PX00412087.")
    return number


async def track_parcel(call: ToolRun) -> Result:
    """Return where a parcel is: every number has been under way for its own time."""
    number = _number_of(call)
    seed = int.from_bytes(hashlib.sha256(number.encode()).digest()[:4], "big")
    collected = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(
        hours=seed % 60
    )
    history = [
        {"station": station, "at": (collected + timedelta(hours=12 * step)).isoformat()}
        for step, station in enumerate(STATIONS)
        if collected + timedelta(hours=12 * step) <= datetime.now(UTC)
    ]
    return {"number": number, "status": history[-1]["station"], "history": history}


async def estimate_delivery(call: ToolRun) -> Result:
    """Return price and days for a new parcel."""
    weight, zone = float(call.arguments["weight_kg"]), str(call.arguments["zone"])
    price = 3.9 + 0.8 * weight + 1.5 * (ZONES[zone] - 1)
    return {"zone": zone, "days": ZONES[zone], "price_eur": round(price, 2)}


FEATURES = ServerFeatures(
    name="parcel-service",
    title="Parcel service",
    instructions="Track parcels by number (PX and eight digits) and estimate new deliveries.",
    tools=(
        Tool(
            "track_parcel",
            "Track a parcel",
            "Where a parcel is now and where it has been.",
            track_parcel,
            arguments={"number": {"type": "string", "description": "Such as PX00412087."}},
            required=("number",),
        ),
        Tool(
            "estimate_delivery",
            "Estimate a delivery",
            "Price and duration of sending a parcel.",
            estimate_delivery,
            arguments={
                "weight_kg": {"type": "number", "minimum": 0.1, "maximum": 30},
                "zone": {"type": "string", "enum": list(ZONES)},
            },
            required=("weight_kg", "zone"),
        ),
    ),
)


def make(options: Options) -> Application:
    """Return the parcel service at ``/mcp``, opened by the key in ``X-Api-Key``."""
    wire, key = McpWire(FEATURES), parcels_key(options.data)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/mcp":
            await text_answer(send, 404, "The MCP server is at /mcp.\n")
        elif not hmac.compare_digest(header(scope, KEY_HEADER).encode(), key.encode()):
            await text_answer(send, 401, "The header X-Api-Key does not hold a valid key.\n")
        else:
            await wire({**scope, "person": "key"}, receive, send)

    return application


if __name__ == "__main__":
    run("The demo's parcel service.", make)
