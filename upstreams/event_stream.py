"""Server-sent events, parsed piece by piece and within bounds (WHATWG HTML 9.2).

One event may hold 4 MiB (security.md #196). The usual event of an MCP stream, one
``data:`` line, is recognised without looking at its lines one by one.
"""

from typing import Final, NamedTuple

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event: ``data`` lines joined by LF, ``b""`` if there are none.

    ``id`` and ``retry`` (milliseconds) are None where the event does not name them.
    """

    data: bytes
    event: bytes = b"message"
    id: bytes | None = None
    retry: int | None = None


class EventTooLarge(ValueError):
    """An event is longer than the limit; the stream must be given up."""


class EventStream:
    """The parser of one stream; it holds what is not yet a whole event."""

    __slots__ = ("_after_cr", "_limit", "_pending", "_started")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._after_cr = False
        self._started = False

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that ``data`` completes, in order.

        An event with neither data nor id nor retry time (a comment) is left out.

        Raises:
            EventTooLarge: an event is longer than the limit.
        """
        if b"\r" in data or self._after_cr:
            data = self._with_line_feeds(data)
        pending = self._pending
        if self._started and not pending and data.find(b"\n\n") == len(data) - 2 > 0:
            if len(data) > self._limit:
                raise EventTooLarge
            event = _event_of(data[:-2])
            return [] if event is None else [event]
        searched = max(len(pending) - 1, 0)
        pending += data
        if not self._started and not self._begin():
            return []
        return self._split(searched)

    def _begin(self) -> bool:
        """Drop a byte order mark; returns whether enough has come to tell."""
        pending = self._pending
        if len(pending) < len(_BOM) and _BOM.startswith(pending):
            return False
        if pending.startswith(_BOM):
            del pending[: len(_BOM)]
        self._started = True
        return True

    def _split(self, searched: int) -> list[ServerEvent]:
        pending, events, start = self._pending, [], 0
        end = pending.find(b"\n\n", searched)
        while end >= 0:
            if end - start > self._limit:
                raise EventTooLarge
            event = _event_of(bytes(pending[start:end]))
            if event is not None:
                events.append(event)
            start = end + 2
            end = pending.find(b"\n\n", start)
        del pending[:start]
        if len(pending) > self._limit:
            raise EventTooLarge
        return events

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Turn CRLF and CR into LF; a pair may be cut in two by the end of a piece."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event_of(block: bytes) -> ServerEvent | None:
    if b"\n" not in block and block.startswith(b"data:"):
        return ServerEvent(block[6:] if block.startswith(b"data: ") else block[5:])
    data: list[bytes] = []
    kind, event_id, retry = b"message", None, None
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value
        elif name == b"id" and b"\0" not in value:
            event_id = value
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            retry = int(value)
    if not data and event_id is None and retry is None:
        return None
    return ServerEvent(data[0] if len(data) == 1 else b"\n".join(data), kind, event_id, retry)
