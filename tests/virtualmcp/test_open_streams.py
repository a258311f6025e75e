"""What looks after all open streams of a process."""

import asyncio

from tests.patience import PATIENCE
from virtualmcp.transport import open_streams


class Stream:
    """A stream whose first check lasts until it is let go on."""

    user_id = 7
    token_digest = session_digest = ""
    written_at = writing_since = checked_at = 0.0
    changed = False

    def __init__(self):
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.twice = asyncio.Event()

    def drain(self):
        """Nothing to end."""

    async def recheck(self, *, changed):
        if self.begun.is_set():
            self.twice.set()
        self.begun.set()
        await self.go_on.wait()


def test_what_changes_during_a_check_is_looked_at_right_after_it(monkeypatch):
    monkeypatch.setattr(open_streams, "TICK_SECONDS", 3600.0)

    async def changed_twice():
        stream = Stream()
        open_streams.enter(stream)
        try:
            async with asyncio.timeout(PATIENCE):
                open_streams.hear("access", "7")
                await stream.begun.wait()
                open_streams.hear("access", "7")
                # The second one is heard, and finds the first check under way.
                for _ in range(50):
                    await asyncio.sleep(0)
                assert stream.changed
                stream.go_on.set()
                await stream.twice.wait()
        finally:
            open_streams.leave(stream)

    asyncio.run(changed_twice())
