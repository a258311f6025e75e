"""Who called what, when and how it ended: queued on the way, written in batches beside it.

A call appends one entry to a bounded queue and goes on. A thread of its own writes the queue to
the database every second; what does not fit, because the database is too slow or away, is dropped
and counted. Arguments and results are never recorded.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from django.db import close_old_connections, connection, transaction

from virtualmcp.models import CallRecord
from virtualmcp.route_table import Route, VirtualMcpFacts

logger = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 1.0
MOST_QUEUED = 20_000
BATCH = 2_000
# A statement for each row would give up the interpreter (the GIL) for each, and have to wait for
# the thread of the calls every time; SQLite before 3.32 takes 999 values in one.
ROWS_A_STATEMENT = 50
_TOOL, _PROMPT = "tools/call", "prompts/get"


class Entry(msgspec.Struct, eq=False):
    """One ended call. ``seconds`` is how long it took; ``at`` is in seconds since 1970."""

    server: VirtualMcpFacts
    method: str
    name: str
    user_id: int
    client_id: str
    outcome: str
    at: float
    seconds: float

    @property
    def upstream(self) -> str:
        """Key of the upstream that was asked, "" where it was several or none."""
        if self.server.transparent:
            return self.server.choices[0].upstream.key
        route = self._route()
        return route.upstream.key if route is not None else ""

    @property
    def called(self) -> str:
        """What was called, under its public name of then also where a client knew a former one."""
        server, tool = self.server, self.method == _TOOL
        former = server.former_tools if tool else server.former_prompts
        route = former.get(self.name) if former and (tool or self.method == _PROMPT) else None
        if route is None:
            return self.name
        names = server.tool_names if tool else server.prompt_names
        return names.get((route.upstream.id, route.name), self.name)

    def _route(self) -> Route | None:
        if self.method == _TOOL:
            routes, former = self.server.tools, self.server.former_tools
        elif self.method == _PROMPT:
            routes, former = self.server.prompts, self.server.former_prompts
        else:
            return None
        return routes.get(self.name) or former.get(self.name)


Observer = Callable[[Sequence[Entry], int], None]


class CallLog:
    """The queue and its writer; one per process."""

    def __init__(self, most_queued: int = MOST_QUEUED) -> None:
        self._queue: deque[Entry] = deque()
        self._most_queued = most_queued
        self._dropped = 0
        self._reported = 0
        self._observers: list[Observer] = []
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._writing = threading.Lock()

    @property
    def dropped(self) -> int:
        """How many entries were lost since the process began."""
        return self._dropped

    def observe(self, observer: Observer) -> None:
        """Have every batch, and how many entries were lost since the last, given to ``observer``.

        It is called on the writer's thread, also when the database can't be written.
        """
        if observer not in self._observers:
            self._observers.append(observer)

    def record(self, entry: Entry) -> None:
        """Queue an entry; never waits and never fails."""
        if len(self._queue) >= self._most_queued:
            self._dropped += 1
            return
        self._queue.append(entry)

    def start(self) -> None:
        """Start the writer unless it runs; called by the server, not by commands and tests."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="call-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued and end the writer."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None
        self.flush()

    def flush(self) -> int:
        """Write everything that is queued now; returns how many entries were written."""
        written = 0
        with self._writing:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                self._tell(batch)
                if self._write(batch):
                    written += len(batch)
            if self._dropped != self._reported:
                self._tell([])
        return written

    def _run(self) -> None:
        while not self._stopping.wait(WRITE_EVERY_SECONDS):
            if self._queue or self._dropped != self._reported:
                try:
                    self.flush()
                except Exception:
                    logger.exception("the call log could not be written; trying again")

    def _write(self, batch: Sequence[Entry]) -> bool:
        close_old_connections()
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                vendor = connection.vendor
                for start in range(0, len(batch), ROWS_A_STATEMENT):
                    part = batch[start : start + ROWS_A_STATEMENT]
                    values = [value for entry in part for value in _row(vendor, entry)]
                    statement = _insert(vendor, len(part))
                    if vendor == "sqlite":
                        # Past Django's cursor, which would look for each %s in the statement anew.
                        connection.connection.execute(statement, values)
                    else:
                        cursor.execute(statement, values)
        except Exception as failure:
            # The database being away must not stop calls, nor fill the memory.
            self._dropped += len(batch)
            logger.warning("%d call records were lost: %s", len(batch), type(failure).__name__)
            return False
        finally:
            close_old_connections()
        return True

    def _tell(self, batch: Sequence[Entry]) -> None:
        lost, self._reported = self._dropped - self._reported, self._dropped
        for observer in self._observers:
            try:
                observer(batch, lost)
            except Exception:
                logger.exception("an observer of the call log failed")


# Columns of CallRecord, in the order of ``_row``.
_COLUMNS = (
    "at",
    "virtual_mcp",
    "upstream",
    "method",
    "name",
    "user_id",
    "client_id",
    "outcome",
    "duration_ms",
)


@lru_cache(maxsize=2 * ROWS_A_STATEMENT)
def _insert(vendor: str, rows: int) -> str:
    """Compose the statement once: building model instances and their SQL for each batch costs
    more than the calls that are logged, and the calls' own thread waits for it (the GIL)."""
    quote = connection.ops.quote_name
    columns = ", ".join(map(quote, _COLUMNS))
    place = "?" if vendor == "sqlite" else "%s"
    places = ", ".join([f"({', '.join([place] * len(_COLUMNS))})"] * rows)
    return f"INSERT INTO {quote(CallRecord._meta.db_table)} ({columns}) VALUES {places}"  # noqa: S608


@lru_cache(maxsize=8)
def _second(vendor: str, second: int) -> Any:
    """Return the beginning of a second in the database's form; most calls share theirs."""
    return connection.ops.adapt_datetimefield_value(datetime.fromtimestamp(second, UTC))


def _moment(vendor: str, at: float) -> Any:
    second = int(at)
    begun = _second(vendor, second)
    if isinstance(begun, str):
        # As SQLite's backend writes it: without a fraction where there is none.
        return f"{begun}.{int((at - second) * 1_000_000):06d}"
    return begun + timedelta(seconds=at - second)


def _row(vendor: str, entry: Entry) -> tuple[Any, ...]:
    return (
        _moment(vendor, entry.at),
        entry.server.slug,
        entry.upstream[:31],
        entry.method[:64],
        entry.called[:256],
        entry.user_id,
        entry.client_id[:500],
        entry.outcome[:24],
        entry.seconds * 1_000,
    )


call_log = CallLog()


def record(
    server: VirtualMcpFacts,
    method: str,
    name: str,
    user_id: int,
    client_id: str,
    outcome: str,
    seconds: float,
) -> None:
    """Queue one ended call in this process's log."""
    call_log.record(
        Entry(server, method, name, user_id, client_id, outcome, time.time() - seconds, seconds)
    )
