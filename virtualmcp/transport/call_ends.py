"""Why a call's answer may end before it is complete."""

from enum import Enum
from typing import Final


class End(Enum):
    """Why a call ended before its answer was complete."""

    GONE = "client_gone"
    CANCELLED = "cancelled"
    STALLED = "client_stalled"
    UNAUTHORIZED = "access_ended"
    TAKEN_OVER = "taken_over"
    HANDED_OVER = "handed_over"


# Another process goes on with the call.
ELSEWHERE: Final = frozenset({End.TAKEN_OVER, End.HANDED_OVER})
# Ends of which nothing is said: nobody reads, or somebody else speaks.
UNSAID: Final = frozenset({End.GONE, End.STALLED}) | ELSEWHERE
