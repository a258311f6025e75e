"""Fetching upstreams' icons, and keeping them in this process (b20, protocol.md 5.4, 5.16).

https only, without credentials and redirects, guarded against addresses inside the network, within
bounds of size and time. What comes back is taken for what its first bytes say it is; anything but
a picture is refused.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from channels.db import database_sync_to_async

from upstreams import http_client
from upstreams.egress_guard import EgressRules, rules_for, upstream_rules
from upstreams.errors import UpstreamError
from upstreams.models import Upstream

logger = logging.getLogger(__name__)

LARGEST: Final = 256 * 1024
MOST_BYTES: Final = 16 * 1024 * 1024
MOST_KEPT: Final = 2_000
GOOD_SECONDS: Final = 24 * 3600.0
BAD_SECONDS: Final = 300.0
# Fetches at once, so that a long list does not become a burst against somebody.
MOST_AT_ONCE: Final = 8
SVG: Final = "image/svg+xml"
_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
)


@dataclass(slots=True, frozen=True)
class Icon:
    """A picture and its media type; no content where there is none to be had."""

    content: bytes
    media_type: str
    until: float

    @property
    def found(self) -> bool:
        """Whether there is a picture."""
        return bool(self.content)


class _Shelf:
    """Bounded memory, the least recently used go first; used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], Icon] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[int, str]) -> Icon | None:
        with self._lock:
            icon = self._kept.get(key)
            if icon is None or icon.until <= time.monotonic():
                return None
            self._kept.move_to_end(key)
            return icon

    def keep(self, key: tuple[int, str], icon: Icon) -> None:
        with self._lock:
            before = self._kept.pop(key, None)
            self._bytes += len(icon.content) - (len(before.content) if before is not None else 0)
            self._kept[key] = icon
            while len(self._kept) > MOST_KEPT or self._bytes > MOST_BYTES:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= len(gone.content)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._bytes = 0


_shelf = _Shelf()
_flights: dict[tuple[int, str], "asyncio.Task[Icon]"] = {}


def forget() -> None:
    """Drop every icon, as when an upstream has changed; from any thread."""
    _shelf.clear()
    _flights.clear()


async def icon(upstream_id: int, source: str) -> Icon | None:
    """Return an icon of an upstream; without a picture if there is none, and ``None`` while too
    many others are being fetched."""
    key = (upstream_id, source)
    kept = _shelf.get(key)
    if kept is not None:
        return kept
    loop = asyncio.get_running_loop()
    flight = _flights.get(key)
    if flight is None or flight.done() or flight.get_loop() is not loop:
        if sum(not running.done() for running in list(_flights.values())) >= MOST_AT_ONCE:
            return None
        flight = _flights[key] = loop.create_task(_fetched(upstream_id, source))
        flight.add_done_callback(lambda done: _landed(key, done))
    return await asyncio.shield(flight)


def _landed(key: tuple[int, str], flight: "asyncio.Task[Icon]") -> None:
    if _flights.get(key) is flight:
        del _flights[key]
        if not flight.cancelled() and flight.exception() is None:
            _shelf.keep(key, flight.result())


async def _fetched(upstream_id: int, source: str) -> Icon:
    nothing = Icon(b"", "", time.monotonic() + BAD_SECONDS)
    rules = await database_sync_to_async(_rules, thread_sensitive=False)(upstream_id, source)
    if rules is None:
        return nothing
    try:
        answer = await http_client.fetch(
            "GET", source, rules=rules, headers={"accept": "image/*"}, max_bytes=LARGEST
        )
    except UpstreamError as failure:
        logger.info("an icon of upstream %d can't be had: %s", upstream_id, failure)
        return nothing
    media_type = media_type_of(answer.body) if answer.status == 200 else ""
    if not media_type:
        logger.info("an icon of upstream %d is no picture", upstream_id)
        return nothing
    return Icon(answer.body, media_type, time.monotonic() + GOOD_SECONDS)


def _rules(upstream_id: int, source: str) -> EgressRules | None:
    """Return what may be reached for an icon: the internet, and the upstream's own origin where an
    administrator allowed that; ``None`` if there is no such upstream."""
    upstream = Upstream.objects.filter(pk=upstream_id, enabled=True).first()
    if upstream is None:
        return None
    if urlsplit(source)[:2] == urlsplit(upstream.url)[:2]:
        return upstream_rules(upstream)
    return rules_for("", allow_loopback=False)


def media_type_of(content: bytes) -> str:
    """Return the media type of a picture by its first bytes, ``""`` for anything else."""
    for sign, media_type in _PICTURES:
        if content.startswith(sign):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    start = content[:1_024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    drawn = start.startswith(b"<svg") or (
        start.startswith((b"<?xml", b"<!--")) and b"<svg" in start
    )
    return SVG if drawn else ""
