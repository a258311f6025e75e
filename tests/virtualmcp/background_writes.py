"""What the first requests of a test write beside their answers, and when all of it is written."""

import asyncio
import time
from typing import Any

from gateway_site import change_feed
from oauthserver import bearer_tokens
from tests.patience import PATIENCE
from upstreams import upstream_era
from virtualmcp import definition_pins, name_pins


def under_way() -> set[asyncio.Task[Any]]:
    """Return what is still being written, in any loop of this process."""
    places = (
        definition_pins._background,
        name_pins._background,
        upstream_era._background,
        bearer_tokens._notes,
        change_feed._pending,
    )
    tasks = {task for place in places for task in tuple(place)}
    return {task for task in tasks if not task.get_loop().is_closed()}


def settle() -> None:
    """Wait until what a server in a thread notes beside the first requests is written."""
    until = time.monotonic() + PATIENCE
    while under_way():
        assert time.monotonic() < until, under_way()
        time.sleep(0.01)


async def settled() -> None:
    """Wait until what this loop notes beside the first requests is written."""
    while tasks := under_way():
        await asyncio.wait(tasks, timeout=PATIENCE)
