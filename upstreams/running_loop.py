"""The running event loop, without the system call that asking for it costs before Python 3.12."""

import asyncio
import threading

_here = threading.local()


def running_loop() -> asyncio.AbstractEventLoop:
    """Return what ``asyncio.get_running_loop`` returns; a thread runs one loop at a time.

    Raises:
        RuntimeError: no loop runs in this thread.
    """
    loop: asyncio.AbstractEventLoop | None = getattr(_here, "loop", None)
    if loop is None or not loop.is_running():
        loop = _here.loop = asyncio.get_running_loop()
    return loop
