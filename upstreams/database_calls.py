"""The one way from the event loop of this room to the ORM."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from channels.db import database_sync_to_async

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking database work on a thread of its own.

    Not the thread-sensitive default, which makes all such work of a process wait in line.
    """
    return cast(T, await database_sync_to_async(work, thread_sensitive=False)(*args, **kwargs))
