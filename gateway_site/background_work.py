"""Work that runs beside the requests of one server process: the change feed and the call log."""

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable

from gateway_site.change_feed import follow_changes

logger = logging.getLogger(__name__)

Job = Callable[[], Awaitable[None]]


class BackgroundWork:
    """Tasks of the running event loop, started once per loop and stopped together.

    A job that fails is logged and started again after a second: losing the change feed
    would leave revoked tokens alive in this process.
    """

    def __init__(self, jobs: tuple[Job, ...] = (follow_changes,)) -> None:
        self._jobs = jobs
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closers: list[Job] = []

    def ensure_started(self) -> None:
        """Start the jobs on the running loop unless they run there already; cheap when they do."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop() is loop:
            return
        self._loop = weakref.ref(loop)
        self._tasks = [loop.create_task(self._keep_running(job)) for job in self._jobs]

    def on_stop(self, closer: Job) -> None:
        """Have ``closer`` awaited when the server ends."""
        self._closers.append(closer)

    async def stop(self) -> None:
        """Cancel the jobs, then let every closer write or close what it holds."""
        tasks, self._tasks, self._loop = self._tasks, [], None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for closer in self._closers:
            try:
                await closer()
            except Exception:
                logger.exception("%s failed while the server stopped", closer)

    @staticmethod
    async def _keep_running(job: Job) -> None:
        while True:
            try:
                await job()
                return
            except Exception:
                logger.exception("%s failed; starting it again", getattr(job, "__name__", job))
                await asyncio.sleep(1)
