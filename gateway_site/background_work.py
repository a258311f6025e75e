"""Work that runs beside the requests of one server process: change feed, call log, housekeeping."""

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable

from gateway_site.change_feed import follow_changes
from gateway_site.housekeeping import keep_house
from gateway_site.identity_recheck import keep_asking
from upstreams import change_streams, mcp_client, session_sharing, token_refresh, token_upkeep
from upstreams.health_watch import watch_health
from virtualmcp.call_log import call_log
from virtualmcp.routing import parked_calls, shared_listening, shared_notes
from virtualmcp.transport import draining

logger = logging.getLogger(__name__)

# A renewed sign-in that is on its way into the database is waited for.
FINISH_SECONDS = 5

Job = Callable[[], Awaitable[None]]
JOBS: tuple[Job, ...] = (
    follow_changes,
    keep_house,
    keep_asking,
    token_upkeep.keep_tokens_alive,
    watch_health,
)


class BackgroundWork:
    """The call log's writer and the tasks of the running loop, started and stopped together.

    A job that fails is logged and started again after a second: losing the change feed
    would leave revoked tokens alive in this process.
    """

    def __init__(self, jobs: tuple[Job, ...] = JOBS) -> None:
        # Whether ``ensure_started`` has been called and not ``stop``; for callers in a hurry.
        self.started = False
        self._jobs = jobs
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def ensure_started(self) -> None:
        """Start the jobs on the running loop unless they run there already; cheap when they do."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop() is loop:
            return
        self._loop = weakref.ref(loop)
        self.started = True
        call_log.start()
        # The change feed, which the processes need for it, runs now.
        change_streams.share_with(shared_listening.SharedStream)
        session_sharing.share_by(shared_notes)
        self._tasks = [loop.create_task(self._keep_running(job)) for job in self._jobs]

    async def stop(self) -> None:
        """End the jobs, the sessions and connections to upstreams, and write the call log."""
        # Mail and notices of other processes are heard meanwhile.
        await parked_calls.wait_for_all(draining.seconds_left())
        self.started = False
        tasks, self._tasks, self._loop = self._tasks, [], None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await token_refresh.finish_running(FINISH_SECONDS)
        change_streams.share_with(None)
        change_streams.close_all()
        await shared_listening.close()
        try:
            await parked_calls.close_all()
            await asyncio.wait_for(mcp_client.close_all(), timeout=5)
        except Exception:
            logger.exception("connections to upstreams were not closed properly")
        session_sharing.share_by(None)
        await asyncio.to_thread(call_log.stop)

    @staticmethod
    async def _keep_running(job: Job) -> None:
        while True:
            try:
                await job()
                return
            except Exception:
                logger.exception("%s failed; starting it again", getattr(job, "__name__", job))
                await asyncio.sleep(1)
