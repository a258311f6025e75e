"""An upstream that keeps failing is left alone, tried once, and let back in."""

import asyncio

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.raw_upstream import RawUpstream
from tests.upstreams.relaying import facts_for, text_of, tool_call, until
from upstreams import call_gate, circuit_breaker, mcp_client
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.circuit_breaker import FAILURES, CircuitBreaker
from upstreams.credentials import NO_CREDENTIAL
from upstreams.errors import CircuitOpen, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from upstreams.signals import changed, circuit_changed


async def call(facts, request=None):
    return await mcp_client.call(
        facts, NO_CREDENTIAL, request or tool_call("echo", {"text": "hi"}), SilentSink()
    )


def listing(timeout: float = 10.0) -> CanonicalCall:
    return CanonicalCall("tools/list", params=b"{}", timeout=timeout, principal="p")


async def fails(facts, times: int = FAILURES, request=None) -> list[UpstreamError]:
    found = []
    for _ in range(times):
        with pytest.raises(UpstreamError) as failure:
            await call(facts, request)
        found.append(failure.value)
    return found


@pytest.fixture(autouse=True)
def fresh_gates():
    call_gate._gates.clear()
    mcp_client.forget()
    yield
    call_gate._gates.clear()
    mcp_client.forget()


@pytest.fixture
def heard():
    said: list[tuple] = []

    def hear(sender, upstream_id, opened, **kwargs) -> None:
        said.append((upstream_id, opened))

    def hear_hint(sender, kind, key, **kwargs) -> None:
        if kind == "health":
            said.append(key)

    # The room's own receiver writes to the database, which is not there in these tests.
    receivers, circuit_changed.receivers = circuit_changed.receivers, []
    circuit_changed.connect(hear)
    changed.connect(hear_hint)
    yield said
    changed.disconnect(hear_hint)
    circuit_changed.receivers = receivers


async def test_after_three_failures_nothing_is_sent_and_callers_are_told_when(heard) -> None:
    facts = facts_for("http://127.0.0.1:9/mcp", era="modern")
    assert {type(one) for one in await fails(facts)} == {UpstreamUnreachable}
    [refused] = await fails(facts, 1)
    assert isinstance(refused, CircuitOpen)
    assert "several times" in refused.message and 5 < (refused.retry_after or 0) <= 12
    assert heard == ["1:open", (1, True)]


async def test_the_trial_lets_everybody_back_in_when_it_succeeds(heard) -> None:
    with FakeUpstream().serve() as upstream:
        facts = facts_for(upstream.url, era="modern")
        gate = call_gate.gate_for(facts)
        for _ in range(FAILURES):
            gate.failed("tools/list", UpstreamUnreachable("down"))
        assert gate.breaker.state == "open"
        with pytest.raises(CircuitOpen):
            await call(facts)
        assert upstream.requests == []
        gate.breaker.try_soon()
        assert gate.breaker.state == "half_open"
        assert text_of(await call(facts)) == "hi"
        assert gate.breaker.state == "closed" and not gate.breaker.troubled
        assert heard[-2:] == ["1:closed", (1, False)]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_an_opening_that_succeeds_as_the_trial_lets_everybody_back_in(heard, era) -> None:
    with FakeUpstream(era=era).serve() as upstream:
        facts = facts_for(upstream.url, era=era)
        gate = call_gate.gate_for(facts)
        for _ in range(FAILURES):
            gate.failed("tools/list", UpstreamUnreachable("down"))
        gate.breaker.try_soon()
        await mcp_client.opening(facts, NO_CREDENTIAL, ClientFacts(), principal="person-1")
        assert gate.breaker.state == "closed" and not gate.breaker.troubled
        assert text_of(await call(facts)) == "hi"


async def test_an_opening_that_an_open_session_knows_gives_the_trial_back(heard) -> None:
    with FakeUpstream(era="legacy").serve() as upstream:
        facts = facts_for(upstream.url, era="legacy")
        await call(facts)
        gate = call_gate.gate_for(facts)
        for _ in range(FAILURES):
            gate.failed("tools/list", UpstreamUnreachable("down"))
        gate.breaker.try_soon()
        await mcp_client.opening(facts, NO_CREDENTIAL, ClientFacts(), principal="person-1")
        assert len(upstream.initialized) == 1 and gate.breaker.state == "half_open"
        assert text_of(await call(facts)) == "hi"
        assert gate.breaker.state == "closed"


async def test_only_one_trial_goes_out_at_a_time() -> None:
    breaker = CircuitBreaker()
    for _ in range(FAILURES):
        breaker.failed()
    assert breaker.wait() > 5
    breaker.try_soon()
    assert breaker.wait() == 0.0
    assert breaker.wait() > 0 and breaker.wait() > 0


async def test_each_failed_trial_doubles_the_pause_up_to_two_minutes() -> None:
    breaker, pauses = CircuitBreaker(), []
    for _ in range(FAILURES):
        breaker.failed()
    for _ in range(6):
        breaker.try_soon()
        assert breaker.wait() == 0.0
        breaker.failed()
        pauses.append(breaker.wait())
    assert 15 < pauses[0] < 25 and pauses[-1] <= 145
    assert pauses[0] < pauses[2] < pauses[-1]


async def test_a_failure_in_between_successes_opens_nothing() -> None:
    breaker = CircuitBreaker()
    for _ in range(10):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.state == "closed" and not breaker.troubled


@pytest.mark.parametrize("status", [b"500 Oops", b"502 Bad Gateway"])
async def test_server_faults_open_it_and_a_refused_credential_does_not(heard, status) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
    with RawUpstream(lambda request: [answer]) as upstream:
        facts = facts_for(upstream.url, era="modern")
        await fails(facts)
        assert isinstance((await fails(facts, 1))[0], CircuitOpen)
    call_gate._gates.clear()
    refusal = b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"
    with RawUpstream(lambda request: [refusal]) as upstream:
        facts = facts_for(upstream.url, era="modern")
        assert CircuitOpen not in {type(one) for one in await fails(facts, FAILURES + 2)}


async def test_a_slow_tool_opens_nothing_and_a_hanging_list_does(heard) -> None:
    with RawUpstream(lambda request: [30.0]) as upstream:
        facts = facts_for(upstream.url, era="modern")
        slow = tool_call("slow", timeout=0.2)
        assert {type(one) for one in await fails(facts, FAILURES + 1, slow)} == {UpstreamTimeout}
        await fails(facts, FAILURES, listing(0.2))
        assert isinstance((await fails(facts, 1, listing(0.2)))[0], CircuitOpen)


async def test_another_process_hint_shortens_the_way_and_its_recovery_ends_the_pause() -> None:
    facts = facts_for("http://127.0.0.1:9/mcp", era="modern")
    gate = call_gate.gate_for(facts)
    call_gate.hear_health("1:open")
    call_gate.hear_health("2:open")
    call_gate.hear_health("")
    assert gate.breaker.state == "closed" and gate.breaker.failures == FAILURES - 1
    assert gate.breaker.failed() and gate.breaker.state == "open"
    call_gate.hear_health("1:closed")
    assert gate.breaker.state == "half_open"


async def test_a_trial_whose_caller_left_does_not_block_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(circuit_breaker, "TRIAL_SECONDS", 0.05)
    breaker = CircuitBreaker()
    for _ in range(FAILURES):
        breaker.failed()
    breaker.try_soon()
    assert breaker.wait() == 0.0
    await until(lambda: breaker.wait() == 0.0)


async def test_the_limit_of_calls_is_the_upstreams_own() -> None:
    with FakeUpstream().serve() as upstream:
        facts = facts_for(upstream.url, era="modern", max_in_flight=2)
        gate = call_gate.gate_for(facts)
        assert [gate.try_enter() for _ in range(3)] == [True, True, False]
        gate.leave()
        gate.leave()
        wider = facts_for(upstream.url, era="modern", max_in_flight=3)
        assert call_gate.gate_for(wider) is gate
        assert [gate.try_enter() for _ in range(4)] == [True, True, True, False]
        await asyncio.sleep(0)


async def test_the_largest_answer_is_the_upstreams_own() -> None:
    with FakeUpstream().serve() as upstream:
        text = "x" * 200_000
        facts = facts_for(upstream.url, era="modern", max_answer_bytes=100_000)
        with pytest.raises(UpstreamError, match="too large"):
            await call(facts, tool_call("echo", {"text": text}))
        roomy = facts_for(upstream.url, era="modern", max_answer_bytes=1_000_000)
        assert text_of(await call(roomy, tool_call("echo", {"text": text}))) == text
