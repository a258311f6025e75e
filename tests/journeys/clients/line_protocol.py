"""The Python programs' side of the line protocol; see ``tests/journeys/official_client.py``."""

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

REDIRECT_URI = "http://127.0.0.1:33418/callback"
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class NotComingBack(Exception):
    """The person was asked to sign in and did not come back."""


def say(event: str, **more: Any) -> None:
    """Write one event."""
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


async def hear() -> dict[str, Any]:
    """Read one line."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return dict(json.loads(line)) if line else {"do": "quit"}


async def ask_person(url: str) -> str:
    """Have the person open ``url``; returns the redirect.

    Raises:
        NotComingBack: there was none.
    """
    say("authorize", url=url)
    redirect = str((await hear())["redirect"])
    if not redirect:
        raise NotComingBack("asked to sign in again")
    return redirect


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def answer_commands(handler: Handler) -> bool:
    """Answer commands until "quit" (returns True) or until one fails (returns False)."""
    while True:
        command = await hear()
        if command["do"] == "quit":
            return True
        try:
            answer = await handler(command)
        except Exception as error:
            report(error)
            return False
        say(**answer)


def report(error: BaseException) -> None:
    """Say that something failed, with its trace on the error stream."""
    inner = _innermost(error)
    traceback.print_exception(inner, file=sys.stderr)
    say("failed", error=f"{type(inner).__name__}: {inner}")
