"""A renewed sign-in outlives crashes, outages and slow servers (security.md R36, R37)."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.db import DatabaseError
from django.utils import timezone

from tests.fakes.authorization_server import Fault
from tests.upstreams.connecting import (
    account_of,
    bearer,
    browser_of,
    connect,
    expire,
    facts_of,
    person,
    run,
    until,
)
from upstreams import (
    accounts,
    credential_building,
    credentials,
    refresh_lease,
    refresh_outcome,
    sealed_secrets,
    token_refresh,
    token_upkeep,
)
from upstreams.credentials import credential_for
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import CredentialKind, Upstream, UpstreamAccount, UpstreamClient

pytestmark = pytest.mark.django_db(transaction=True)


class Crash(RuntimeError):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def journal(settings, tmp_path: Path) -> Path:
    settings.GATEWAY_REFRESH_JOURNAL = str(tmp_path / "journal")
    return tmp_path / "journal"


def crash_before_the_commit(alice, upstream, monkeypatch) -> None:
    """Renew, and end between the server's answer and the database's commit."""
    with monkeypatch.context() as patched:

        def crash(*_):
            raise Crash

        patched.setattr(refresh_outcome, "keep", crash)
        with pytest.raises(Crash):
            run(credential_for(alice.pk, facts_of(upstream)))
    UpstreamAccount.objects.update(refresh_lease_until=timezone.now() - timedelta(seconds=1))


def test_r36_what_a_crash_left_in_the_journal_is_used_by_the_next_call(
    server, connected, monkeypatch, journal
) -> None:
    alice, upstream = connected
    expire()
    crash_before_the_commit(alice, upstream, monkeypatch)
    (left,) = journal.iterdir()
    assert left.stat().st_mode & 0o077 == 0
    assert not any(token in left.read_text() for token in server.tokens)
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert server.refreshes == 1
    stored = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
    assert stored.refresh_token in server.refresh_tokens
    assert not list(journal.iterdir())


def test_r36_a_start_writes_what_a_crash_left(server, connected, monkeypatch, journal) -> None:
    alice, upstream = connected
    expire()
    crash_before_the_commit(alice, upstream, monkeypatch)
    assert token_refresh.settle_journal() == 1
    assert token_refresh.settle_journal() == 0
    stored = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
    assert stored.refresh_token in server.refresh_tokens
    assert not list(journal.iterdir())
    expire()
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens


def test_a_journalled_sign_in_of_an_earlier_connection_is_thrown_away(
    server, connected, monkeypatch, journal
) -> None:
    alice, upstream = connected
    expire()
    crash_before_the_commit(alice, upstream, monkeypatch)
    connect(browser_of(alice), upstream)
    before = account_of(alice, upstream).sealed_secret
    assert token_refresh.settle_journal() == 0
    assert account_of(alice, upstream).sealed_secret == before
    assert not list(journal.iterdir())


def test_a_journal_cut_off_in_the_middle_is_not_believed(connected, monkeypatch, journal) -> None:
    alice, upstream = connected
    expire()
    crash_before_the_commit(alice, upstream, monkeypatch)
    (left,) = journal.iterdir()
    os.truncate(left, 40)
    assert token_refresh.settle_journal() == 0
    with pytest.raises(NeedsConnection) as error:
        run(credential_for(alice.pk, facts_of(upstream)))
    # The strict server has seen the old token twice; the person is told how that came.
    assert "stopped in the middle" in error.value.message
    assert "stopped in the middle" in accounts.status_for(alice, upstream).reason


def test_without_a_journal_folder_the_database_alone_has_to_do(
    server, connected, settings, tmp_path
) -> None:
    alice, upstream = connected
    (tmp_path / "a file").write_text("")
    settings.GATEWAY_REFRESH_JOURNAL = str(tmp_path / "a file")
    expire()
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert "upstreams.W004" in [message.id for message in run_checks()]


def test_a_database_that_is_away_for_a_while_loses_no_answer(
    server, connected, monkeypatch
) -> None:
    alice, upstream = connected
    expire()
    real, failures = refresh_outcome.keep, [DatabaseError("away")] * 3

    def sometimes(*members):
        if failures:
            raise failures.pop()
        return real(*members)

    monkeypatch.setattr(refresh_outcome, "keep", sometimes)
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert server.refreshes == 1


def test_a_server_slower_than_the_lease_is_still_asked_once(server, connected, monkeypatch) -> None:
    alice, upstream = connected
    monkeypatch.setattr(refresh_lease, "LEASE", timedelta(seconds=0.6))
    monkeypatch.setattr(refresh_lease, "HEARTBEAT_SECONDS", 0.15)
    server.delay = 1.5
    expire()
    facts, start = facts_of(upstream), threading.Barrier(4)

    def one_node(_: int) -> str:
        start.wait(20)
        return bearer(run(credential_for(alice.pk, facts)))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one_node, range(4)))) == 1
    assert server.refreshes == 1


def test_a_call_waits_while_a_flapping_server_comes_back(server, connected, monkeypatch) -> None:
    monkeypatch.setattr(refresh_outcome, "LONGEST_BACK_OFF", 0.1)
    alice, upstream = connected
    expire()
    server.token_faults = [Fault(503), Fault(500), Fault(200, b"<html>", "text/html")]
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert server.refreshes == 4


def test_a_server_that_names_a_time_is_not_asked_before_it(server, connected, monkeypatch) -> None:
    monkeypatch.setattr(token_refresh, "PATIENCE_SECONDS", 0)
    alice, upstream = connected
    expire()
    server.token_faults = [Fault(429, headers=(("retry-after", "120"),))]
    with pytest.raises(SetupFailed):
        run(credential_for(alice.pk, facts_of(upstream)))
    wait = account_of(alice, upstream).refresh_not_before - timezone.now()
    assert timedelta(seconds=100) < wait <= timedelta(seconds=120)


def test_the_old_token_serves_while_the_server_is_down(server, connected) -> None:
    alice, upstream = connected
    UpstreamAccount.objects.update(
        expires_at=timezone.now() + timedelta(seconds=20),
        connected_at=timezone.now() - timedelta(hours=1),
    )
    old = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url).access_token
    server.token_faults = [Fault(503)] * 50

    async def use() -> None:
        facts = await credentials.in_thread(facts_of, upstream)
        for _ in range(3):
            credentials.forget()
            assert bearer(await credential_for(alice.pk, facts)) == old

    run(use())
    assert accounts.status_for(alice, upstream).state == "connected"


def test_accounts_are_not_all_renewed_at_the_same_moment(connected) -> None:
    alice, upstream = connected
    account = account_of(alice, upstream)
    found = set()
    for version in range(1, 50):
        account.version = version
        found.add(round(credential_building.renew_ahead(account), 3))
    assert min(found) >= 60
    assert max(found) <= 120
    assert len(found) > 40


def test_a_registration_that_was_forgotten_upstream_ends_nobody_elses_sign_in(
    server, connected
) -> None:
    alice, upstream = connected
    bob = person("bob")
    connect(browser_of(bob), upstream)
    old_id = UpstreamClient.objects.get().client_id
    server.clients.clear()
    UpstreamAccount.objects.filter(user=alice).update(
        expires_at=timezone.now() - timedelta(seconds=5)
    )
    credentials.forget()
    with pytest.raises(NeedsConnection):
        run(credential_for(alice.pk, facts_of(upstream)))
    # What Bob has works until it ends.
    assert bearer(run(credential_for(bob.pk, facts_of(upstream)))) in server.tokens
    assert connect(browser_of(alice), upstream).status_code == 303
    new_id = UpstreamClient.objects.get(retired_at__isnull=True).client_id
    assert new_id != old_id
    assert account_of(alice, upstream).client.client_id == new_id
    assert account_of(bob, upstream).client.client_id == old_id


def test_a_sign_in_that_nobody_uses_is_renewed_before_it_dies(server, connected, settings) -> None:
    alice, upstream = connected
    assert run(token_upkeep.renew_idle()) == 0
    UpstreamAccount.objects.update(
        expires_at=timezone.now() - timedelta(days=9),
        connected_at=timezone.now() - timedelta(days=10),
    )
    settings.GATEWAY_KEEP_ALIVE_DAYS = 0
    assert run(token_upkeep.renew_idle()) == 0
    settings.GATEWAY_KEEP_ALIVE_DAYS = 7
    assert run(token_upkeep.renew_idle()) == 1
    assert run(token_upkeep.renew_idle()) == 0
    assert server.refreshes == 1
    assert accounts.status_for(alice, upstream).state == "connected"


def test_what_cannot_be_renewed_now_keeps_no_other_sign_in_from_it(
    server, connected, monkeypatch
) -> None:
    monkeypatch.setattr(token_upkeep, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(token_refresh, "PATIENCE_SECONDS", 0)
    alice, upstream = connected
    bob = person("bob")
    connect(browser_of(bob), upstream)
    idle = timezone.now() - timedelta(days=30)
    UpstreamAccount.objects.update(expires_at=idle, connected_at=idle)
    UpstreamAccount.objects.filter(user=alice).update(connected_at=idle - timedelta(days=1))
    server.token_faults = [Fault(503)]
    assert run(token_upkeep.renew_idle()) == 0
    UpstreamAccount.objects.update(refresh_not_before=None)
    assert run(token_upkeep.renew_idle()) == 1
    assert account_of(bob, upstream).refreshed_at is not None
    assert account_of(alice, upstream).refreshed_at is None


def test_what_a_companys_sign_in_brought_is_no_idle_sign_in(server, connected) -> None:
    alice, upstream = connected
    idle = timezone.now() - timedelta(days=30)
    account = account_of(alice, upstream)
    UpstreamAccount.objects.update(
        expires_at=idle,
        connected_at=idle,
        sealed_secret=sealed_secrets.seal_tokens(
            sealed_secrets.StoredTokens("at-1"),
            user_id=alice.pk,
            upstream_id=upstream.pk,
            bound_url=account.bound_url,
        ),
    )
    Upstream.objects.update(credential_kind=CredentialKind.ENTERPRISE)
    assert run(token_upkeep.renew_idle()) == 0
    assert account_of(alice, upstream).status == UpstreamAccount.Status.CONNECTED


def test_a_shutdown_waits_for_a_renewal_that_is_under_way(server, connected) -> None:
    alice, upstream = connected
    server.delay = 0.3
    expire()

    async def serve_and_stop() -> None:
        facts = await credentials.in_thread(facts_of, upstream)
        call = asyncio.create_task(credential_for(alice.pk, facts))

        async def asked() -> bool:
            return server.refreshes_begun > 0

        await until(asked)
        call.cancel()
        await token_refresh.finish_running(10)

    run(serve_and_stop())
    stored = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
    assert stored.refresh_token in server.refresh_tokens
