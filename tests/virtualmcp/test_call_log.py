"""The call log: nothing on the way of a call but an append, and nothing lost unseen."""

import threading
import time

import pytest
from django.db import OperationalError, connection

from tests.patience import PATIENCE
from virtualmcp import call_log
from virtualmcp.call_log import CallLog, Entry
from virtualmcp.models import CallRecord
from virtualmcp.route_table import load, read_facts

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def entry(make_virtual_mcp):
    make_virtual_mcp("board", {"linear": "http://127.0.0.1:9/mcp"})
    facts = read_facts("board")
    return Entry(facts, "tools/call", "search", 7, "client-1", "ok", time.time(), 0.25)


def test_a_record_says_who_called_what_and_how_it_ended(entry):
    log = CallLog()
    log.record(entry)
    assert log.flush() == 1
    row = CallRecord.objects.get()
    assert (row.virtual_mcp, row.upstream, row.method, row.name) == (
        "board",
        "linear",
        "tools/call",
        "search",
    )
    assert (row.user_id, row.client_id, row.outcome, row.duration_ms) == (7, "client-1", "ok", 250)


def test_recording_waits_for_nothing(entry, django_assert_num_queries):
    log = CallLog()
    with django_assert_num_queries(0):
        for _ in range(100):
            log.record(entry)
    assert log.flush() == 100


def test_what_does_not_fit_is_dropped_and_counted(entry):
    log = CallLog(most_queued=3)
    told = []
    log.observe(lambda batch, lost: told.append((len(batch), lost)))
    for _ in range(5):
        log.record(entry)
    log.flush()
    log.flush()
    assert log.dropped == 2
    assert told == [(3, 2)]
    assert CallRecord.objects.count() == 3


def test_a_database_that_is_away_costs_records_not_calls(entry):
    def away(*args, **kwargs):
        raise OperationalError("no database")

    log = CallLog()
    told = []
    log.observe(lambda batch, lost: told.append((len(batch), lost)))
    log.record(entry)
    with connection.execute_wrapper(away):
        assert log.flush() == 0
    assert log.dropped == 1
    assert told == [(1, 0), (0, 1)]


def test_an_observer_that_fails_stops_nothing(entry):
    def failing(batch, lost):
        raise RuntimeError

    log = CallLog()
    log.observe(failing)
    log.record(entry)
    assert log.flush() == 1


def test_the_writer_writes_by_itself_and_stops_with_everything_written(entry, monkeypatch):
    monkeypatch.setattr(call_log, "WRITE_EVERY_SECONDS", 0.01)
    log = CallLog()
    written = threading.Event()
    log.observe(lambda batch, lost: written.set())
    log.start()
    log.start()
    log.record(entry)
    assert written.wait(PATIENCE)
    log.record(entry)
    log.stop()
    assert CallRecord.objects.count() == 2


async def test_a_call_to_several_upstreams_is_recorded_without_one(make_virtual_mcp):
    from asgiref.sync import sync_to_async

    await sync_to_async(make_virtual_mcp)(
        "both", {"a": "http://127.0.0.1:9/a", "b": "http://127.0.0.1:9/b"}
    )
    facts = await load("both")
    assert Entry(facts, "tools/list", "", 1, "c", "ok", 0.0, 0.0).upstream == ""
    assert Entry(facts, "tools/call", "unknown", 1, "c", "ok", 0.0, 0.0).upstream == ""
