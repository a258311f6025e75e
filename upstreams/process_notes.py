"""What the processes of the gateway write down for each other, as this room needs it."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Protocol

log = logging.getLogger(__name__)


@contextlib.contextmanager
def going_on(consequence: str) -> Iterator[None]:
    """Go on where the notes can't be reached: no call fails because of that. The log says so."""
    try:
        yield
    except Exception as failure:
        log.warning("%s: %s", consequence, type(failure).__name__)


class Notes(Protocol):
    """Facts that all processes share; ``virtualmcp.routing.shared_notes`` says more."""

    @property
    def PROCESS(self) -> str:  # noqa: N802 - a constant of a module
        """Names this process."""

    async def set_once(self, key: str, value: bytes, seconds: float, /) -> bool:
        """Write a fact that nobody has written yet; False if somebody has."""

    async def get(self, key: str, /) -> bytes | None:
        """Return a fact."""

    async def swap(self, key: str, expected: bytes, value: bytes, seconds: float, /) -> bool:
        """Replace ``expected`` by ``value``; False if something else, or nothing, is there."""

    async def discard(self, key: str, expected: bytes, /) -> bool:
        """Forget ``expected``; False if something else, or nothing, is there."""

    async def discard_all(self, expected: dict[str, bytes], /) -> set[str]:
        """Forget those that are as expected; returns the keys of all that stood."""

    async def extend(self, keys: list[str], seconds: float, /) -> set[str]:
        """Have facts stand for so long from now; returns those that still stand."""

    async def take_lease(self, key: str, holder: str, seconds: float, /) -> bool:
        """Become or stay the holder; False while somebody else is."""

    async def extend_leases(self, keys: list[str], holder: str, seconds: float, /) -> set[str]:
        """Extend leases of one holder; returns those that are still its own."""

    async def holders(self, prefix: str, /) -> set[str]:
        """Return who holds leases whose key begins so."""

    async def leases(self, prefix: str, /) -> set[str]:
        """Return the keys of leases that somebody holds and whose key begins so."""

    async def held(self, keys: list[str], /) -> set[str]:
        """Return those keys that somebody holds a lease on."""

    async def end_lease(self, key: str, holder: str, /) -> None:
        """Give a lease back."""

    async def end_leases(self, keys: list[str], holder: str, /) -> None:
        """Give leases of one holder back."""
