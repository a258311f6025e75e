"""What a stateful server keeps of its streams, so that a client may come back to them.

Event ids count over all streams of a server; a stream is found by any of its ids.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class StreamLog:
    """The events of one stream and whether it has ended."""

    events: list[tuple[int, bytes]] = field(default_factory=list)
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def add(self, number: int, data: bytes) -> bytes:
        """Keep an event; returns it with its id."""
        numbered = b"id: %d\n" % number + data
        self.events.append((number, numbered))
        self._tell()
        return numbered

    def end(self) -> None:
        """Say that nothing follows."""
        self.ended = True
        self._tell()

    async def after(self, number: int) -> AsyncIterator[bytes]:
        """Yield what came after an event, and what is still to come."""
        sent = 0
        while True:
            news = self.news
            for at, data in self.events[sent:]:
                sent += 1
                if at > number:
                    yield data
            if self.ended and sent == len(self.events):
                return
            await news.wait()


class StreamLogs:
    """All streams of a server."""

    def __init__(self) -> None:
        self._logs: list[StreamLog] = []
        self._last = 0

    def begin(self) -> StreamLog:
        """Begin a stream."""
        self._logs.append(StreamLog())
        return self._logs[-1]

    def number(self) -> int:
        """Return the next event id."""
        self._last += 1
        return self._last

    def find(self, number: int) -> StreamLog | None:
        """Return the stream an event belongs to."""
        return next((log for log in self._logs if number in dict(log.events)), None)
