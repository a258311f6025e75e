"""One gateway process of the refresh races: makes real calls for a person when it is told to.

Started by ``test_refresh_races.py`` on the test's own database. Each line of its input is a
JSON command, each line of its output the answer:

    {"calls": 25}            25 calls at once; answers how each ended
    {"begin": 1}             forks a child that makes one call; answers its process id
    {"end": 1}               waits for the child; answers how its call ended, "killed" if it was
"""

# ruff: noqa: E402  Django is set up before what needs it is imported

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"

import django

django.setup()

from django.db import connection, connections

from tests.upstreams.relaying import tool_call
from upstreams import authorized_call, credentials, mcp_client, refresh_lease
from upstreams.canonical_call import SilentSink
from upstreams.errors import UpstreamError
from upstreams.models import Upstream
from upstreams.upstream_facts import UpstreamFacts


async def calls(user_id: int, facts: UpstreamFacts, count: int) -> list[str]:
    """Make so many calls at once."""

    async def one() -> str:
        try:
            outcome = await authorized_call.call_as(
                user_id, facts, tool_call("echo", {"text": "x"}), SilentSink()
            )
        except UpstreamError as error:
            return f"{error.code}: {error.message}"
        return "done" if outcome.result else f"error: {outcome.error[:200]!r}"

    credentials.forget()
    found = await asyncio.gather(*(one() for _ in range(count)))
    return list(found)


async def alone(user_id: int, facts: UpstreamFacts) -> list[str]:
    try:
        return await calls(user_id, facts, 1)
    finally:
        await mcp_client.close_all()


def child_of(user_id: int, facts: UpstreamFacts) -> tuple[int, int]:
    """Fork a process that makes one call; returns its id and where it writes how that ended."""
    connections.close_all()
    if connection.vendor == "postgresql":
        connection.close_pool()  # its threads do not come along into the child
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    os.close(reading)
    found = asyncio.run(alone(user_id, facts))
    os.write(writing, json.dumps(found).encode())
    os._exit(0)


def ended(process: int, reading: int) -> str:
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    return json.loads(text)[0] if text else "killed"


def main() -> None:
    user_id, upstream_id, lease = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    refresh_lease.LEASE = timedelta(seconds=lease)
    refresh_lease.HEARTBEAT_SECONDS = lease / 4
    facts = UpstreamFacts.of(Upstream.objects.get(pk=upstream_id))
    loop = asyncio.new_event_loop()
    child: tuple[int, int] = (0, 0)
    answer: Any = "ready"
    while True:
        print(json.dumps(answer), flush=True)
        line = sys.stdin.readline()
        if not line:
            break
        command = json.loads(line)
        if "calls" in command:
            answer = loop.run_until_complete(calls(user_id, facts, command["calls"]))
        elif "begin" in command:
            child = child_of(user_id, facts)
            answer = child[0]
        else:
            answer = ended(*child)
    loop.run_until_complete(mcp_client.close_all())


if __name__ == "__main__":
    main()
