"""Whether this process is about to end, for what would otherwise stay open: streams, and calls that
another process can go on with.

The server begins it (at SIGTERM) before it waits for running calls. Who keeps a stream open
without an end of its own registers how to end it as its revision says.
"""

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_enders: dict[object, Callable[[], None]] = {}
_begun = False
_until = 0.0


def begun() -> bool:
    """Whether no new stream should be opened here any more."""
    return _begun


def register(end: Callable[[], None]) -> Callable[[], None]:
    """Have ``end`` called, on the event loop, when the process begins to drain.

    It must not block: it tells a stream to finish. It is called at once if draining has begun.
    Returns what takes the registration back; call it when the stream has ended otherwise.
    """
    key = object()
    _enders[key] = end
    if _begun:
        _call(end)

    def unregister() -> None:
        _enders.pop(key, None)

    return unregister


def seconds_left() -> float:
    """Return how long what runs may still take; 0 where draining has not begun."""
    return max(0.0, _until - time.monotonic()) if _begun else 0.0


def begin(seconds: float = 0.0) -> int:
    """Tell every open stream to finish; returns how many there were. What can't may take so many
    seconds more. Call it on the loop."""
    global _begun, _until
    _begun, _until = True, time.monotonic() + seconds
    enders = list(_enders.values())
    for end in enders:
        _call(end)
    return len(enders)


def reset() -> None:
    """Forget that draining has begun, for tests that serve again in the same process."""
    global _begun
    _begun = False
    _enders.clear()


def _call(end: Callable[[], None]) -> None:
    try:
        end()
    except Exception:
        logger.exception("a stream could not be told to end")
