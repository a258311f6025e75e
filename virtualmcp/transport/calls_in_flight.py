"""The calls of stateful sessions that run in this process, so that they can be cancelled.

A key is the session and the request id within it: nobody can reach another session's call, and
equal ids of two sessions are two calls (security.md #132, #188).
"""

from typing import Protocol

_Key = tuple[str, bytes]


class Cancellable(Protocol):
    """A running call."""

    def cancel(self) -> None:
        """End the call; nothing more is sent for it."""


class CallsInFlight:
    """Which call runs under which id; used on the event loop only."""

    def __init__(self) -> None:
        self._calls: dict[_Key, Cancellable] = {}

    def add(self, session_digest: str, id: bytes, call: Cancellable) -> None:
        """Enter a call that begins; a second one with the same id hides the first."""
        self._calls[(session_digest, id)] = call

    def remove(self, session_digest: str, id: bytes, call: Cancellable) -> None:
        """Take a call out that ended."""
        if self._calls.get((session_digest, id)) is call:
            del self._calls[(session_digest, id)]

    def cancel(self, session_digest: str, id: bytes) -> bool:
        """Cancel a call of this session; False if none runs here under that id."""
        call = self._calls.get((session_digest, id))
        if call is None:
            return False
        call.cancel()
        return True

    def cancel_session(self, session_digest: str) -> int:
        """Cancel every call of a session that ended; returns how many there were."""
        found = [call for (digest, _), call in self._calls.items() if digest == session_digest]
        for call in found:
            call.cancel()
        return len(found)

    def __len__(self) -> int:
        return len(self._calls)
