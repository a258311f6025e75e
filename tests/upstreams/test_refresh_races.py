"""The refresh race and its crashes, in many rounds (security.md #147, R35, R36).

    REFRESH_RACE_ROUNDS=1000 REFRESH_KILL_ROUNDS=200 \
        .venv/bin/python -m pytest -m races -s tests/upstreams/test_refresh_races.py

With ``DATABASE_URL`` of a PostgreSQL server they run there, else on SQLite.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.fakes.authorization_server import FakeAuthorizationServer
from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.upstreams.connecting import (
    account_of,
    browser_of,
    connect,
    expire,
    person,
    upstream_at,
)
from upstreams import sealed_secrets
from upstreams.models import UpstreamAccount

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.races, pytest.mark.timeout(5400)]

WORKER = Path(__file__).with_name("refresh_worker.py")
RACES = int(os.environ.get("REFRESH_RACE_ROUNDS", "20"))
KILLS = int(os.environ.get("REFRESH_KILL_ROUNDS", "20"))
# The server renews this long after the request came, and answers this much later.
THINKING, ANSWERING = 0.02, 0.02
# Three of four processes are killed at any moment from their request to so long after its
# answer, one at any moment of its first half second.
AFTERWARDS, BEFOREHAND = 0.04, 0.5


class Worker:
    """One process; see ``refresh_worker.py``."""

    def __init__(self, user_id: int, upstream_id: int, lease: float, journal: Path) -> None:
        command = [sys.executable, str(WORKER), str(user_id), str(upstream_id), str(lease)]
        found = connection.settings_dict
        address = f"sqlite:///{found['NAME']}"
        if connection.vendor == "postgresql":
            place = f"{found['HOST'] or '127.0.0.1'}:{found['PORT'] or 5432}"
            secret = f":{found['PASSWORD']}" if found["PASSWORD"] else ""
            address = f"postgres://{found['USER']}{secret}@{place}/{found['NAME']}"
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "DATABASE_URL": address, "GATEWAY_REFRESH_JOURNAL": str(journal)},
        )
        assert self.answer() == "ready"

    def tell(self, command: dict[str, int]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, command: dict[str, int]) -> Any:
        self.tell(command)
        return self.answer()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


@contextmanager
def two_processes(server: FakeAuthorizationServer, journal: Path, lease: float) -> Iterator[Any]:
    """Yield a person who is connected, the upstream, and two processes of the gateway."""
    with ProtectedUpstream(server, mcp=FakeUpstream(era="modern")).serve() as protected:
        alice, upstream = person(), upstream_at(protected.url, era="modern")
        assert connect(browser_of(alice), upstream).status_code == 303
        workers = [Worker(alice.pk, upstream.pk, lease, journal) for _ in range(2)]
        try:
            yield alice, upstream, workers
        finally:
            for worker in workers:
                worker.stop()


def test_147_fifty_calls_over_two_processes_make_one_refresh_each_round(tmp_path: Path) -> None:
    refreshes: Counter[int] = Counter()
    ends: Counter[str] = Counter()
    begun = time.monotonic()
    with (
        FakeAuthorizationServer().serve() as server,
        two_processes(server, tmp_path, 10.0) as (alice, upstream, workers),
    ):
        for _ in range(RACES):
            expire()
            before = server.refreshes
            for worker in workers:
                worker.tell({"calls": 25})
            for worker in workers:
                ends.update(worker.answer())
            refreshes[server.refreshes - before] += 1
        assert not server.dead_families
        assert account_of(alice, upstream).status == UpstreamAccount.Status.CONNECTED
    print(
        f"\n{connection.vendor}: {RACES} rounds of 50 calls in {time.monotonic() - begun:.0f} s; "
        f"refreshes per round {dict(refreshes)}, calls {dict(ends)}"
    )
    assert refreshes == {1: RACES}
    assert ends == {"done": 50 * RACES}


def test_r36_a_kill_during_a_refresh_loses_only_what_had_not_arrived(tmp_path: Path) -> None:
    """Kills a process at any moment of its renewal; another one takes over.

    What may be lost is exactly what the server had renewed and the killed process had not
    read: then the person connects again, which the test does for them.
    """
    chance = random.Random(20260101)
    found: Counter[str] = Counter()
    with (
        FakeAuthorizationServer(delay=THINKING, answer_delay=ANSWERING).serve() as server,
        two_processes(server, tmp_path, 0.5) as (alice, upstream, workers),
    ):
        for number in range(KILLS):
            expire(refresh_not_before=None)
            version = account_of(alice, upstream).version
            before, begun = len(server.spent), server.refreshes_begun
            child = workers[0].ask({"begin": 1})
            if number % 4:
                _wait_for_the_request(server, begun)
                time.sleep(chance.uniform(0, THINKING + ANSWERING + AFTERWARDS))
            else:
                time.sleep(chance.uniform(0, BEFOREHAND))
            os.kill(child, signal.SIGKILL)
            first = workers[0].ask({"end": 1})
            _wait_for_the_server(server, begun)
            renewed = len(server.spent) > before
            kept = account_of(alice, upstream).version > version
            # A kill between commit and removal leaves a file of a version that is no more; one
            # between the file's making and its only write, a file with nothing in it.
            left = tmp_path.glob(f"*-{version}.renewal")
            journalled = any(file.stat().st_size for file in left)
            second = workers[1].ask({"calls": 1})[0]
            phase = _phase(first, renewed=renewed, journalled=journalled, kept=kept)
            found[f"{phase}: {'connected' if second == 'done' else 'must reconnect'}"] += 1
            lost = renewed and not journalled and not kept
            assert (second == "done") is not lost, (phase, second)
            if lost:
                assert "stopped in the middle" in second
                assert connect(browser_of(alice), upstream).status_code == 303
        stored = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
        assert stored.refresh_token in server.refresh_tokens
    lines = "\n".join(f"  {count:4} {what}" for what, count in sorted(found.items()))
    print(f"\n{connection.vendor}: {KILLS} kills during a refresh\n{lines}")


def _wait_for_the_request(server: FakeAuthorizationServer, begun: int) -> None:
    deadline = time.monotonic() + 20
    while server.refreshes_begun == begun:
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def _wait_for_the_server(server: FakeAuthorizationServer, begun: int) -> None:
    """Wait until the server has done what the killed process may have asked of it."""
    time.sleep(0.02)  # a request that the kernel still holds arrives, if there is one
    deadline = time.monotonic() + 20
    while server.refreshes_begun > begun and server.refreshes < server.refreshes_begun:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _phase(first: str, *, renewed: bool, journalled: bool, kept: bool) -> str:
    if first != "killed" or kept:
        return "4 killed after the new token was in the database"
    if journalled:
        return "3 killed between journal and database"
    if renewed:
        return "2 killed between the request and its answer"
    return "1 killed before the request"
