"""Every upstream is asked regularly how it does, by one process, and administrators see it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.utils import timezone

from gateway_site import metrics
from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.raw_upstream import RawUpstream, answer
from tests.patience import PATIENCE
from tests.upstreams.connecting import browser_of, person, until, upstream_at
from upstreams import call_gate, health_probe, health_watch
from upstreams.circuit_breaker import FAILURES, CircuitBreaker
from upstreams.database_calls import in_thread
from upstreams.health_words import health_line
from upstreams.models import CredentialKind, Upstream, UpstreamAccount, UpstreamHealth
from upstreams.upstream_facts import UpstreamFacts

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh_gates():
    call_gate._gates.clear()
    yield
    call_gate._gates.clear()


def open_upstream(url: str, key: str = "fake") -> Upstream:
    return upstream_at(url, key=key, credential_kind=CredentialKind.NONE)


def check(upstream: Upstream) -> UpstreamHealth:
    async_to_sync(health_watch.check)(upstream)
    return UpstreamHealth.objects.get(upstream=upstream)


def test_a_working_upstream_has_its_latency_and_tools_noted() -> None:
    with FakeUpstream().serve() as fake:
        upstream = open_upstream(fake.url)
        health = check(upstream)
    assert health.status == "working" and health.tools == len(fake.tools)
    assert health.latency_ms is not None and health.last_success_at is not None
    line = health_line(Upstream.objects.get())
    assert line.words == "works" and f"{len(fake.tools)} tools" in line.detail


def test_a_failing_one_keeps_its_last_success_and_says_the_real_error() -> None:
    with FakeUpstream().serve() as fake:
        upstream = open_upstream(fake.url)
        good = check(upstream)
    bad = check(upstream)
    assert bad.status == "failing" and bad.last_success_at == good.last_success_at
    assert bad.failing_since is not None and "could not be reached" in bad.last_error
    again = check(upstream)
    assert again.failing_since == bad.failing_since
    assert "fails" in health_line(Upstream.objects.get()).words


def test_where_everybody_has_an_account_nobodys_is_used(connected, protected) -> None:
    _, upstream = connected
    UpstreamAccount.objects.update(last_used_at=None)
    health = check(upstream)
    assert health.status == "working" and health.tools is None
    assert UpstreamAccount.objects.get().last_used_at is None
    assert all("authorization" not in request.headers for request in protected.mcp.requests)


@pytest.mark.parametrize("kind", ["user_key", "user_oauth", "enterprise"])
def test_an_upstream_that_nobody_has_connected_yet_works_if_it_answers(protected, kind) -> None:
    assert check(upstream_at(protected.url, credential_kind=kind)).status == "working"


def test_a_shared_account_that_was_never_connected_is_no_failure(protected) -> None:
    upstream = upstream_at(protected.url, credential_kind=CredentialKind.SHARED_OAUTH)
    health = check(upstream)
    assert health.status == "working" and health.tools is None
    report = async_to_sync(health_probe.probe)(upstream)
    assert report.ok and "Connect the shared account" in report.steps[-1].text
    assert UpstreamHealth.objects.get().status == "working"


def test_a_shared_account_that_ended_is_a_failure(protected) -> None:
    upstream = upstream_at(protected.url, credential_kind=CredentialKind.SHARED_OAUTH)
    UpstreamAccount.objects.create(upstream=upstream, status=UpstreamAccount.Status.NEEDS_RECONNECT)
    health = check(upstream)
    assert health.status == "failing" and "administrator" in health.last_error


@pytest.mark.parametrize("held_back_by", ["limit", "breaker"])
async def test_what_the_gateway_itself_held_back_is_no_finding(held_back_by, monkeypatch) -> None:
    monkeypatch.setattr(call_gate, "QUEUE_SECONDS", 0.05)
    monkeypatch.setattr(CircuitBreaker, "try_soon", lambda self: None)
    with FakeUpstream().serve() as fake:
        upstream = await in_thread(open_upstream, fake.url)
        assert await health_watch.check(upstream) is not None
        before = await in_thread(lambda: UpstreamHealth.objects.values().get())
        gate = call_gate.gate_for(UpstreamFacts.of(upstream))
        if held_back_by == "limit":
            gate.in_flight = gate.facts.max_in_flight
        else:
            for _ in range(FAILURES):
                gate.breaker.failed()
        assert await health_watch.check(upstream) is None
        assert not (await health_probe.probe(upstream)).ok
        assert await in_thread(lambda: UpstreamHealth.objects.values().get()) == before


def test_a_server_fault_without_an_account_is_a_failure() -> None:
    with RawUpstream(answer(b"", status="502 Bad Gateway")) as raw:
        health = check(upstream_at(raw.url))
    assert health.status == "failing" and "HTTP 502" in health.last_error


def test_a_probe_is_done_by_one_process_only() -> None:
    for number in range(5):
        open_upstream("https://x.example/mcp", key=f"u{number}")
    start, claimed = threading.Barrier(4), []

    def claim() -> None:
        start.wait(PATIENCE)
        claimed.extend(one.key for one in health_watch.claim_due(60))
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(claim) for _ in range(4)]:
            done.result(2 * PATIENCE)
    assert sorted(claimed) == [f"u{number}" for number in range(5)]
    assert health_watch.claim_due(60) == []
    moments = set(UpstreamHealth.objects.values_list("next_probe_at", flat=True))
    assert len(moments) == 5
    spread = timezone.now() + timedelta(seconds=75 + PATIENCE)
    assert all(timezone.now() < moment < spread for moment in moments)


def test_a_switched_off_upstream_is_left_alone() -> None:
    upstream = open_upstream("https://x.example/mcp")
    Upstream.objects.update(enabled=False)
    assert health_watch.claim_due(60) == []
    assert health_line(Upstream.objects.get(pk=upstream.pk)).words == "switched off"


async def test_the_watch_notices_a_fall_and_a_recovery(settings) -> None:
    settings.UPSTREAM_PROBE_SECONDS = 0.3

    async def is_(status: str) -> bool:
        found = await in_thread(lambda: list(UpstreamHealth.objects.values("status", "tools")))
        return [one["status"] for one in found] == [status]

    fake = FakeUpstream()
    with fake.serve():
        url = fake.url
        await in_thread(open_upstream, url)
        watch = asyncio.create_task(health_watch.watch_health())
        try:
            await until(lambda: is_("working"))
            await in_thread(Upstream.objects.update, url="http://127.0.0.1:9/mcp")
            await until(lambda: is_("failing"))
            await in_thread(Upstream.objects.update, url=url)
            await until(lambda: is_("working"))
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


async def test_zero_seconds_switch_the_watch_off(settings) -> None:
    settings.UPSTREAM_PROBE_SECONDS = 0
    async with asyncio.timeout(PATIENCE):
        await health_watch.watch_health()


def test_administrators_see_it_on_the_board_on_the_page_and_in_the_metrics() -> None:
    upstream = open_upstream("http://127.0.0.1:9/mcp")
    check(upstream)
    admin = browser_of(person("root", is_staff=True, is_superuser=True))
    for address in ("/admin/", "/admin/upstreams/upstream/"):
        shown = admin.get(address).content.decode()
        assert "fails" in shown.lower() and "could not be reached" in shown
    page = admin.get(f"/admin/upstreams/upstream/{upstream.pk}/change/").content.decode()
    assert "Last error" in page
    said = metrics.generate_latest(metrics.registry).decode()
    assert 'gateway_upstream_up{upstream="fake"} 0.0' in said
    assert 'gateway_upstream_probe_seconds{upstream="fake"}' in said
