"""Which progress and log messages a client is passed on (protocol.md 2.3.4)."""

from typing import Final

import msgspec

from virtualmcp.transport.wire_validation import LOG_LEVELS

_SEVERITY: Final = {level: rank for rank, level in enumerate(LOG_LEVELS)}
NO_PROGRESS: Final = float("-inf")


class _Progress(msgspec.Struct, gc=False):
    progress: int | float


class _LogMessage(msgspec.Struct, gc=False):
    level: str


_progress = msgspec.json.Decoder(_Progress)
_log_message = msgspec.json.Decoder(_LogMessage)


def progress_of(params: bytes) -> float:
    """Return how far a notice says that a call is; ``NO_PROGRESS`` where it says nothing."""
    try:
        return _progress.decode(params).progress
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return NO_PROGRESS


def loud_enough(params: bytes, level: str) -> bool:
    """Tell whether a log message is as severe as a level, ``""`` being none at all."""
    try:
        severity = _SEVERITY.get(_log_message.decode(params).level, -1)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return bool(level) and severity >= _SEVERITY[level]
