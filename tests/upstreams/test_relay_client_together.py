"""The relay client under many users, on both event loops, and against silent peers."""

import asyncio
import json
import resource
import time

import pytest
import uvloop

from tests.fakes.asgi_server import authority
from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.raw_upstream import RawUpstream, answer, chunk
from tests.upstreams.relaying import NO_CREDENTIAL, bearer, facts_for, text_of, tool_call, until
from upstreams import connection_pool, mcp_client, relay_client
from upstreams.canonical_call import SilentSink
from upstreams.errors import UpstreamUnreachable


@pytest.fixture(autouse=True)
async def closed_afterwards():
    mcp_client.forget()
    yield
    await mcp_client.close_all()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_both_event_loops_carry_small_large_and_streamed_answers(settings, run, tls):
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)

    def script(request: bytes) -> list[bytes]:
        size = int(request.partition(b"\r\n\r\n")[2])
        if size % 1000:
            return answer(b"x" * size)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return [head, *(chunk(b"x" * 1000) for _ in range(size // 1000)), b"0\r\n\r\n"]

    async def fetch(url: str, size: int) -> None:
        facts = facts_for(url)
        body = b"%d" % size
        async with relay_client.post(facts, NO_CREDENTIAL, (), body, timeout=10) as got:
            assert await got.read() == b"x" * size

    async def everything(url: str) -> int:
        for size in (1, 999, 2000, 70_001, 500_000, 3_000_001):
            await fetch(url, size)
        await asyncio.gather(*(fetch(url, 20_001 + 999 * number) for number in range(30)))
        opened = len(connection_pool.pools().connections)
        await relay_client.close_all()
        return opened

    with RawUpstream(script, tls=tls) as upstream:
        assert run(everything(upstream.url)) <= 30


async def test_every_user_is_seen_with_their_own_token_only():
    people = [(f"person-{n}", f"token-{n}") for n in range(20)]
    with FakeUpstream(era="modern").serve() as upstream:
        facts = facts_for(upstream.url, era="modern")

        async def one(number: int) -> None:
            person, token = people[number % 20]
            request = tool_call("headers", principal=person)
            credential = bearer(token, credential_id=f"grant-{person}")
            outcome = await mcp_client.call(facts, credential, request, SilentSink())
            assert json.loads(text_of(outcome))["authorization"] == f"Bearer {token}"

        limit = asyncio.Semaphore(50)

        async def limited(number: int) -> None:
            async with limit:
                await one(number)

        await asyncio.gather(*(limited(number) for number in range(1000)))
        assert len(connection_pool.pools().connections) <= 50


async def test_a_peer_that_accepts_and_never_speaks_tls_is_given_up(monkeypatch):
    monkeypatch.setattr(connection_pool, "CONNECT_SECONDS", 0.3)
    with RawUpstream(answer(b"{}")) as upstream:
        facts = facts_for(upstream.url.replace("http:", "https:"))
        started = time.monotonic()
        with pytest.raises(UpstreamUnreachable):
            async with relay_client.post(facts, NO_CREDENTIAL, (), b"", timeout=3_600):
                pass
        assert time.monotonic() - started < 20


async def test_a_resolver_that_hangs_is_given_up_and_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(connection_pool, "CONNECT_SECONDS", 0.3)

    async def resolve(*_args, **_more):
        await asyncio.sleep(30)

    monkeypatch.setattr("upstreams.egress_guard.resolve", resolve)
    with pytest.raises(UpstreamUnreachable):
        async with relay_client.post(
            facts_for("http://slow.example/mcp", private_network="127.0.0.0/8"),
            NO_CREDENTIAL,
            (),
            b"",
            timeout=5,
        ):
            pass


async def test_a_caller_who_leaves_while_connecting_leaves_nothing_behind(monkeypatch):
    with RawUpstream(answer(b"{}"), tls=False) as upstream:
        facts = facts_for(upstream.url.replace("http:", "https:"))

        async def attempt() -> None:
            async with relay_client.post(facts, NO_CREDENTIAL, (), b"", timeout=5):
                pass

        task = asyncio.create_task(attempt())
        assert await upstream.seen(lambda u: u.connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await upstream.seen(lambda u: u.closed == 1)
        assert not connection_pool.pools().connections


async def test_two_hundred_streams_at_once_end_without_leftovers():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FakeUpstream().serve() as upstream:
        facts = facts_for(upstream.url, era="modern")
        request = tool_call("slow", {"steps": 5, "pause": 0.05}, progress_token=b"1")
        got = await asyncio.gather(
            *(mcp_client.call(facts, NO_CREDENTIAL, request, SilentSink()) for _ in range(200))
        )
        assert {text_of(outcome) for outcome in got} == {"done"}
    await until(lambda: not connection_pool.pools().connections)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000
