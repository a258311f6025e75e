"""What one warm call costs in the upstream client alone, against httpx doing the same.

    python bench/relay_client.py [--calls 20000] [--rounds 5]

No gateway and no web server: this process calls the fast upstream itself. Rounds are
interleaved and every answer is checked; the medians of the CPU time per call and its ratio
to the leanest row are printed. The first row is the floor: the HTTP client without MCP.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_site.settings")
os.environ.setdefault("SECRET_KEY", "only-for-this-benchmark-0123456789-0123456789")
os.environ.setdefault("GATEWAY_ALLOW_LOOPBACK_UPSTREAMS", "true")

import django  # noqa: E402
import httpx  # noqa: E402
import uvloop  # noqa: E402

django.setup()

import stack as processes  # noqa: E402

from upstreams import mcp_client, modern_exchange, relay_client  # noqa: E402
from upstreams.canonical_call import CanonicalCall, SilentSink  # noqa: E402
from upstreams.credentials import Credential  # noqa: E402
from upstreams.upstream_facts import UpstreamFacts  # noqa: E402

PARAMS = (
    b'{"name":"echo","arguments":{"text":"hello"},"_meta":{'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{}}}'
)
BODY = b'{"jsonrpc":"2.0","id":"1","method":"tools/call","params":%s}' % PARAMS
EXPECTED = b"hello, and a few"
HEADERS = modern_exchange.mirror_headers("tools/call", "echo")
CREDENTIAL = Credential(
    id="bench", headers=((b"Authorization", b"Bearer x"),), query=b"", expires_at=None
)
Call = Callable[[], Awaitable[bytes]]


def facts_of(port: int) -> UpstreamFacts:
    """Return the facts of the upstream on a local port."""
    return UpstreamFacts(
        id=1,
        key="bench",
        title="Bench",
        url=f"http://127.0.0.1:{port}/mcp",
        enabled=True,
        era="modern",
        detected_era="modern",
        detected_revision="2026-07-28",
        credential_kind="fixed",
        credential_placement="header",
        credential_name="Authorization",
        credential_prefix="Bearer ",
        private_network="",
        call_timeout=50.0,
        list_timeout=5.0,
    )


def clients(facts: UpstreamFacts, http: httpx.AsyncClient) -> dict[str, Call]:
    """Return what is compared, by name."""

    async def over_http() -> bytes:
        async with relay_client.post(facts, CREDENTIAL, HEADERS, BODY, timeout=50) as answer:
            return await answer.read()

    async def over_mcp() -> bytes:
        call = CanonicalCall(
            method="tools/call", params=PARAMS, params_are_modern=True, name="echo"
        )
        return (await mcp_client.call(facts, CREDENTIAL, call, SilentSink())).result

    async def over_httpx() -> bytes:
        headers = [*HEADERS, *CREDENTIAL.headers]
        return (await http.post(facts.url, headers=headers, content=BODY)).content

    return {"relay client": over_http, "MCP client on it": over_mcp, "httpx": over_httpx}


async def cost(call: Call, calls: int, together: int) -> float:
    """Return the CPU microseconds a call takes this process."""

    async def some() -> None:
        for _ in range(calls // together):
            if EXPECTED not in await call():
                raise RuntimeError("wrong answer")

    await call()
    before = time.process_time()
    await asyncio.gather(*(some() for _ in range(together)))
    return (time.process_time() - before) / (calls // together * together) * 1e6


async def measure(port: int, calls: int, rounds: int) -> None:
    """Run the rounds and print the table."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(limits=limits, timeout=30) as http:
        compared = clients(facts_of(port), http)
        print("| client | at a time | CPU µs a call (least - most) | x floor |")
        print("|---|---|---|---|")
        for together in (1, 32):
            seen: dict[str, list[float]] = {name: [] for name in compared}
            for turn in range(rounds):
                order = list(compared) if turn % 2 == 0 else list(reversed(compared))
                for name in order:
                    number = calls // 20 if name == "httpx" else calls
                    seen[name].append(await cost(compared[name], number, together))
            floor = statistics.median(seen["relay client"])
            for name, costs in seen.items():
                middle = statistics.median(costs)
                spread = f"{min(costs):.0f} - {max(costs):.0f}"
                print(f"| {name} | {together} | {middle:.0f} ({spread}) | {middle / floor:.1f} |")
    await mcp_client.close_all()


def main() -> None:
    """Start the upstream and measure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--calls", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    with processes.upstream() as (port, _):
        uvloop.run(measure(port, options.calls, options.rounds))


if __name__ == "__main__":
    main()
