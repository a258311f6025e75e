"""Renews the leases that this process holds, all in one statement, while it holds any."""

import asyncio
import logging
from collections.abc import Callable

from django.db import Error as DatabaseFailure

from upstreams.running_loop import PerLoop
from virtualmcp.routing import parked_mail, shared_notes

logger = logging.getLogger(__name__)


class LeaseKeeper:
    """The leases of one event loop."""

    def __init__(self) -> None:
        # With what is to be done when one is lost.
        self._keys: dict[str, Callable[[], None] | None] = {}
        self._task: asyncio.Task[None] | None = None

    def keep(self, key: str, lost: Callable[[], None] | None = None) -> None:
        """Renew this lease, which was just taken, until it is dropped; ``lost`` is called when
        another process has it."""
        self._keys[key] = lost
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._renew())

    def drop(self, key: str) -> None:
        """Renew it no more; it ends by itself."""
        self._keys.pop(key, None)

    def keeps(self, key: str) -> bool:
        """Tell whether this lease is renewed: it was neither dropped nor lost."""
        return key in self._keys

    async def _renew(self) -> None:
        while self._keys:
            await asyncio.sleep(parked_mail.RENEW_SECONDS)
            keys = list(self._keys)
            try:
                kept = await shared_notes.extend_leases(
                    keys, shared_notes.PROCESS, parked_mail.LEASE_SECONDS
                )
            except DatabaseFailure:
                logger.exception("leases could not be renewed")
                continue
            for key in set(keys) - kept:
                if key in self._keys:
                    logger.warning("a lease was lost to another process")
                    lost = self._keys.pop(key)
                    if lost is not None:
                        lost()


_keepers = PerLoop(LeaseKeeper)


def keeper() -> LeaseKeeper:
    """Return the running loop's keeper."""
    return _keepers.here()
