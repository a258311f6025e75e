"""The log level that each stateful client asked for, the same in every process (a41).

It is kept in the database for the session's life and remembered with the session, so that a warm
call reads nothing. Two rules make it certain that a call after ``logging/setLevel`` was answered
meets the new level, whichever process serves it:

- the answer waits ``SETTLE_SECONDS`` where another process may remember sessions;
- a process whose change feed has not read for that long looks the level up again.
"""

import asyncio
import logging
import time
from typing import Final

from channels.db import database_sync_to_async

from virtualmcp.models import EndedSession
from virtualmcp.routing import shared_notes
from virtualmcp.signals import changed

logger = logging.getLogger(__name__)

# Kind of change by which the other processes hear how much a client wants to hear.
KIND: Final = "log level"
# Twice the time between two readings of the change feed.
SETTLE_SECONDS: Final = 1.0
# For how long a level that can't be looked up holds up a call.
LOOK_UP_SECONDS: Final = 1.0
# A process says that it remembers sessions at most this often, and is believed for longer than
# it remembers one after that.
PRESENT_AGAIN_SECONDS: Final = 60.0
PRESENT_SECONDS: Final = 180.0
_PRESENT: Final = "remembers-sessions:"


class _Feed:
    """What this process knows of its change feed and has said of itself."""

    def __init__(self) -> None:
        # Every change before this is known here (``time.monotonic()``); None without a feed.
        self.heard: float | None = None
        self.present_at = float("-inf")
        # A look-up failed since the feed last read: none is tried again before it does.
        self.failing = False


feed = _Feed()


def forget() -> None:
    """Begin anew, as a process does."""
    global feed
    feed = _Feed()


def heard_all_before(moment: float) -> None:
    """The change feed has read what was committed before ``moment`` (``time.monotonic()``)."""
    feed.heard, feed.failing = moment, False


def certain(read_at: float) -> bool:
    """Whether a level that was looked up at ``read_at``, or heard of since, is the level now."""
    heard = feed.heard
    if heard is None or feed.failing:
        return True
    return max(heard, read_at) > time.monotonic() - SETTLE_SECONDS


async def be_present() -> bool:
    """Say that this process remembers sessions from now on; False if it could not be said.

    To be done before a level is read: who sets one afterwards will wait for this process.
    """
    now = time.monotonic()
    if now - feed.present_at < PRESENT_AGAIN_SECONDS:
        return True
    try:
        await shared_notes.put(f"{_PRESENT}{shared_notes.PROCESS}", b"", PRESENT_SECONDS)
    except Exception as failure:
        logger.warning("sessions are not remembered: %s", type(failure).__name__)
        return False
    feed.present_at = now
    return True


async def kept(digest: str) -> str | None:
    """Return a session's level, "" if it never set one, None if that can't be read now."""
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return (await shared_notes.get(_key(digest)) or b"").decode()
    except Exception as failure:
        feed.failing = True
        logger.warning("a log level can't be read: %s", type(failure).__name__)
        return None


async def keep(digest: str, level: str, seconds: float) -> None:
    """Make a level known, and return when every process goes by it.

    It is not worth failing for: what can't be told to the others holds here.
    """
    try:
        await shared_notes.put(_key(digest), level.encode(), seconds)
        await database_sync_to_async(_tell, thread_sensitive=False)(f"{digest} {level}")
        present = await shared_notes.all_of(_PRESENT)
    except Exception as failure:
        logger.warning("a log level is known to one process: %s", type(failure).__name__)
        return
    if present.keys() - {f"{_PRESENT}{shared_notes.PROCESS}"}:
        await asyncio.sleep(SETTLE_SECONDS)


def _key(digest: str) -> str:
    return f"log-level:{digest}"


def _tell(key: str) -> None:
    changed.send(sender=EndedSession, kind=KIND, key=key)
