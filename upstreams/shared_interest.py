"""Everybody's part in one listening stream: what they want together, and who is told what.

Used on one event loop only; the stream itself is ``change_streams``.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from upstreams import change_interest, json_rpc
from upstreams.change_interest import LIST_METHODS, UPDATED, Interest

# Changes of what is wanted that come together lead to one new request.
SETTLE_SECONDS: Final = 0.05
# Notices of one stream per second; beyond, it is read more slowly.
MOST_PER_SECOND: Final = 200

Heard = Callable[[str, bytes], None]


class Subscription:
    """One listener's part.

    ``heard`` is called on the event loop with the method and raw params of each notice of
    ``interest``; it must not block. ``owner`` names the client, as ``CanonicalCall.owner`` does.
    """

    __slots__ = ("_leave", "_shared", "credential_id", "heard", "interest", "owner", "user_id")

    def __init__(
        self,
        shared: "SharedInterest",
        user_id: int,
        credential_id: str,
        interest: Interest,
        heard: Heard,
        leave: "Callable[[Subscription], None]",
        owner: str = "",
    ) -> None:
        self._shared = shared
        self._leave = leave
        self.user_id = user_id
        self.credential_id = credential_id
        self.interest = interest
        self.heard = heard
        self.owner = owner

    @property
    def honoured(self) -> Interest:
        """What of this the upstream has agreed to so far."""
        return self.interest & self._shared.honoured

    async def settled(self, seconds: float) -> Interest:
        """Wait until the upstream has said what it agrees to, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._shared.until_answered(self)
        return self.honoured

    def change(self, interest: Interest) -> None:
        """Want something else from now on."""
        if interest != self.interest:
            self.interest = interest
            self._shared.wish()

    def close(self) -> None:
        """Hear no more."""
        self._leave(self)


class SharedInterest:
    """The parts of one stream, and what the upstream has agreed to.

    ``missed``: something may have happened while nobody listened; it is made up for by one
    notice of each kind as soon as the stream stands again. ``lists_changed`` is called before
    anybody hears of a changed list.

    ``others``: what other processes want of this stream, where it is the one for all of them.
    ``told`` is then called with what was asked for and agreed to; ``gaps`` counts the times that
    were made up for.
    """

    def __init__(self, lists_changed: Callable[[], None]) -> None:
        self._lists_changed = lists_changed
        self.parts: set[Subscription] = set()
        self.honoured = Interest()
        self.missed = False
        self.others: dict[str, Interest] = {}
        self.told: Callable[[Interest, Interest], None] | None = None
        self.gaps = 0
        self._answered = Interest()
        self._news = asyncio.Event()
        self._wishes = asyncio.Event()

    def wish(self) -> None:
        """Somebody wants something else."""
        self._wishes.set()

    def wanted(self) -> Interest:
        """Return what everybody wants together; later wishes are heard by ``ended_or_wished``."""
        self._wishes.clear()
        own = (part.interest for part in self.parts)
        return change_interest.union((*own, *self.others.values()))

    @property
    def all_answered(self) -> bool:
        """Whether the upstream has answered for all that the listeners here want."""
        return all(part.interest <= self._answered for part in self.parts)

    async def until_answered(self, part: Subscription) -> None:
        """Wait until the upstream has answered for all that a listener wants."""
        while not part.interest <= self._answered:
            await self._news.wait()

    def settle(self, asked: Interest, honoured: Interest) -> None:
        """Let listeners know what was asked for and what was agreed to."""
        self._answered, self.honoured = asked, honoured
        news, self._news = self._news, asyncio.Event()
        news.set()
        if self.missed and honoured:
            self.missed = False
            self.gaps += 1
            self._make_up(honoured)
        if self.told is not None:
            self.told(asked, honoured)

    def miss(self) -> None:
        """Something may have happened unheard although the stream stands."""
        self.missed = True
        self.wish()

    def lost(self) -> None:
        """The stream has ended."""
        self.missed = self.missed or bool(self.honoured)
        self.settle(self.wanted(), Interest())

    def deliver(self, method: str, params: bytes) -> None:
        """Give a notice to everybody who wants it."""
        uri = change_interest.uri_in(params) if method == UPDATED else ""
        if method in LIST_METHODS:
            self._lists_changed()
        for part in list(self.parts):
            if part.interest.covers(method, uri):
                part.heard(method, params)

    def _make_up(self, honoured: Interest) -> None:
        for method, name in LIST_METHODS.items():
            if name in honoured.lists:
                self.deliver(method, b"{}")
        for uri in honoured.uris:
            self.deliver(UPDATED, json_rpc.object_of({"uri": uri}))

    def make_up_resources(self) -> None:
        """Tell each listener of every resource it wants to hear of."""
        for part in list(self.parts):
            for uri in part.interest.uris:
                part.heard(UPDATED, json_rpc.object_of({"uri": uri}))

    async def wished(self) -> None:
        """Wait until somebody wants something else."""
        await self._wishes.wait()

    async def wished_within(self, seconds: float) -> bool:
        """Wait for so long; True as soon as somebody wants something else."""
        try:
            async with asyncio.timeout(seconds):
                await self._wishes.wait()
        except TimeoutError:
            return False
        return True

    async def ended_or_wished(self, stream: "asyncio.Task[None] | None") -> bool:
        """Wait until the stream has ended (True) or somebody wants something else.

        Raises:
            UpstreamError: the stream broke off.
        """
        wished = asyncio.ensure_future(self._wishes.wait())
        waiting = {wished} if stream is None else {wished, stream}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wished.cancel()
        if stream is not None and stream.done():
            if not stream.cancelled():
                stream.result()
            return True
        await asyncio.sleep(SETTLE_SECONDS)
        return False


class Pace:
    """Holds a stream's reader back when the upstream says more than anybody can use."""

    __slots__ = ("_count", "_second")

    def __init__(self) -> None:
        self._count, self._second = 0, 0

    async def keep(self, events: int) -> None:
        """Take note of so many events; waits when there were too many this second."""
        second = int(asyncio.get_running_loop().time())
        if second != self._second:
            self._count, self._second = 0, second
        self._count += events
        if self._count > MOST_PER_SECOND:
            await asyncio.sleep(1.0)


def stop(task: "asyncio.Task[None] | None") -> None:
    """Cancel a task whose outcome nobody looks at any more."""
    if task is not None:
        task.cancel()
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
