"""The relay client against a server that behaves: reuse, limits, TLS, headers, loops."""

import asyncio
import ssl

import pytest

from tests.fakes.asgi_server import authority
from tests.fakes.raw_upstream import CLOSE, FLOOD, RESET, RawUpstream, answer, chunk, stream
from tests.patience import PATIENCE
from tests.upstreams.relaying import NO_CREDENTIAL, bearer, facts_for, until
from upstreams import connection_pool, relay_client
from upstreams.credentials import Credential
from upstreams.errors import (
    EgressRefused,
    UpstreamAnswerInvalid,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from upstreams.relay_connection import IDLE

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
async def closed_afterwards():
    yield
    await relay_client.close_all()


async def fetch(upstream, *, credential=NO_CREDENTIAL, headers=(), body=b"{}", **more):
    more.setdefault("timeout", 5)
    facts = facts_for(upstream.url)
    async with relay_client.post(facts, credential, headers, body, **more) as got:
        return got.status, await got.read(), got.headers


async def test_a_thousand_calls_in_a_row_use_one_connection():
    with RawUpstream(answer(b'{"ok":1}')) as upstream:
        for _ in range(1000):
            assert (await fetch(upstream))[:2] == (200, b'{"ok":1}')
        assert upstream.connections == 1
        assert len(upstream.requests) == 1000


async def test_the_request_is_plain_http_with_the_credential_and_no_encodings():
    with RawUpstream(answer(b"{}")) as upstream:
        headers = ((b"Mcp-Method", b"tools/call"),)
        await fetch(upstream, credential=bearer("secret"), headers=headers, body=b'{"a":1}')
        assert upstream.requests[0] == (
            b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: mcp-gateway\r\n"
            b"Accept-Encoding: identity\r\nMcp-Method: tools/call\r\n"
            b"Authorization: Bearer secret\r\nContent-Length: 7\r\n\r\n"
            b'{"a":1}' % upstream.port
        )


async def test_a_key_in_the_query_goes_behind_the_configured_query():
    key = Credential(id="fixed:1", headers=(), query=b"key=abc", expires_at=None)
    with RawUpstream(answer(b"{}")) as upstream:
        for url in (upstream.url, upstream.url + "?x=1"):
            async with relay_client.post(facts_for(url), key, (), b"{}", timeout=5) as got:
                await got.read()
        assert upstream.requests[0].startswith(b"POST /mcp?key=abc HTTP/1.1\r\n")
        assert upstream.requests[1].startswith(b"POST /mcp?x=1&key=abc HTTP/1.1\r\n")


@pytest.mark.parametrize("value", [b"a\r\nX: y", b"a\nb", b"a\rb", b"a\0b", "é".encode(), b"\x7f"])
async def test_a_header_value_that_could_inject_is_an_error_and_nothing_is_sent(value):
    with RawUpstream(answer(b"{}")) as upstream:
        with pytest.raises(UpstreamAnswerInvalid) as caught:
            await fetch(upstream, headers=((b"X-A", value),))
        assert value.decode("latin-1") not in caught.value.message + caught.value.detail
        with pytest.raises(UpstreamAnswerInvalid):
            await fetch(upstream, headers=((b"X-A: y\r\nX-B", b"z"),))
        assert upstream.connections == 0


async def test_only_the_headers_that_matter_are_kept():
    script = answer(b"{}", Set_Cookie="a=b", X_Other="1", Mcp_Session_Id="s", Location="/x")
    with RawUpstream(script) as upstream:
        headers = (await fetch(upstream))[2]
        assert headers == {
            b"content-length": b"2",
            b"content-type": b"application/json",
            b"mcp-session-id": b"s",
        }
        await fetch(upstream)
        assert b"cookie" not in upstream.requests[1].lower()


async def test_several_challenges_are_kept_as_one_list():
    head = (
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Bearer\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    with RawUpstream([head]) as upstream:
        status, _, headers = await fetch(upstream)
        assert (status, headers[b"www-authenticate"]) == (401, b"Basic, Bearer")


@pytest.mark.parametrize(
    "script",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n", b'{"a":', 0.01, b"1}", CLOSE],
        [b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n", b'{"a":1}', CLOSE],
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"7\r\n",
            b'{"a":1}\r\n0\r\n\r\n',
        ],
        [b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{"a":1}\r\n0\r\nX: y\r\n\r\n'],
        [
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
            *answer(b'{"a":1}'),
        ],
        [bytes([octet]) for octet in answer(b'{"a":1}')[0]],
    ],
    ids=["until close", "1.0", "chunked", "trailers", "informational", "byte by byte"],
)
async def test_every_framing_of_a_body_is_understood(script):
    with RawUpstream(script) as upstream:
        for _ in range(2):
            assert (await fetch(upstream))[:2] == (200, b'{"a":1}')


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "202 Accepted"])
async def test_an_answer_without_a_body_leaves_the_connection_usable(status):
    script = answer(b"", status=status) if status[0:3] == "202" else None
    script = script or [f"HTTP/1.1 {status}\r\n\r\n".encode()]
    with RawUpstream(script) as upstream:
        for _ in range(2):
            if status.startswith("304"):
                with pytest.raises(UpstreamAnswerInvalid):
                    await fetch(upstream)
            else:
                assert (await fetch(upstream))[:2] == (int(status[:3]), b"")
        assert upstream.connections == (2 if status.startswith("304") else 1)


async def test_an_idle_connection_the_upstream_closed_is_noticed_before_it_is_used():
    with RawUpstream([*answer(b"{}"), CLOSE]) as upstream:
        for count in range(1, 6):
            await fetch(upstream)
            assert await upstream.seen(lambda u, count=count: u.closed == count)
        assert len(upstream.requests) == 5


async def test_an_end_the_loop_has_not_heard_of_yet_is_noticed_too():
    with RawUpstream([*answer(b"{}"), CLOSE]) as upstream:
        await fetch(upstream)
        upstream.wait(lambda u: u.closed == 1)  # holds up this loop on purpose
        await fetch(upstream)
        assert upstream.connections == 2


async def test_a_call_is_never_sent_twice_when_its_connection_breaks():
    with RawUpstream(answer(b"{}"), [RESET], answer(b"{}")) as upstream:
        await fetch(upstream)
        with pytest.raises(UpstreamAnswerInvalid):
            await fetch(upstream)
        assert len(upstream.requests) == 2


async def test_a_request_without_effects_is_sent_again_once_over_a_fresh_connection():
    with RawUpstream(answer(b"{}"), [CLOSE], answer(b'{"again":1}')) as upstream:
        await fetch(upstream)
        assert (await fetch(upstream, resend=True))[1] == b'{"again":1}'
        assert (upstream.connections, len(upstream.requests)) == (2, 3)


async def test_a_fresh_connection_that_breaks_is_no_reason_to_send_again():
    with RawUpstream([CLOSE]) as upstream:
        with pytest.raises(UpstreamAnswerInvalid):
            await fetch(upstream, resend=True)
        assert len(upstream.requests) == 1


async def test_keep_alive_time_of_the_upstream_is_respected(monkeypatch):
    with RawUpstream(answer(b"{}", Keep_Alive="timeout=1")) as upstream:
        await fetch(upstream)
        connection = next(iter(connection_pool.pools().connections))
        now = asyncio.get_running_loop().time()
        assert connection.idle_until - now <= 0.5


async def test_concurrent_calls_get_their_own_answers():
    def echo(request: bytes) -> list[bytes]:
        return answer(request.partition(b"\r\n\r\n")[2])

    with RawUpstream(echo) as upstream:
        bodies = [b"%d" % number for number in range(100)]
        got = await asyncio.gather(*(fetch(upstream, body=body) for body in bodies))
        assert [body for _, body, _ in got] == bodies


async def test_a_body_as_long_as_the_limit_is_read_and_one_byte_more_is_refused():
    with RawUpstream(answer(b"x" * 100), answer(b"x" * 101), stream(b"x" * 101)) as upstream:
        facts = facts_for(upstream.url)
        async with relay_client.post(facts, NO_CREDENTIAL, (), b"", timeout=5) as got:
            assert len(await got.read(100)) == 100
        for _ in range(2):
            async with relay_client.post(facts, NO_CREDENTIAL, (), b"", timeout=5) as got:
                with pytest.raises(UpstreamAnswerInvalid):
                    await got.read(100)


async def test_a_reader_that_stalls_holds_the_upstream_back():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    with RawUpstream([head, FLOOD]) as upstream:
        async with relay_client.post(
            facts_for(upstream.url), NO_CREDENTIAL, (), b"", timeout=30
        ) as got:
            first = await got.chunk()
            connection = next(iter(connection_pool.pools().connections))
            assert first
            assert await upstream.seen(lambda u: u.flooded > 1_000_000)
            flooded = upstream.flooded
            held = sum(len(part) for part in connection._parts)
            assert held <= 128 * 1024
            assert not await upstream.seen(lambda u: u.flooded > flooded + 8_000_000, 0.3)
            size = 0
            while size < 20_000_000:
                size += len(await got.chunk())
        assert await upstream.seen(lambda u: u.closed == 1)


async def test_leaving_early_closes_the_connection_at_once():
    with RawUpstream(stream(b"data: 1\n\n", 30.0)) as upstream:
        async with relay_client.post(
            facts_for(upstream.url), NO_CREDENTIAL, (), b"", timeout=30
        ) as got:
            assert await got.chunk() == b"data: 1\n\n"
        await until(lambda: not connection_pool.pools().connections)


async def test_a_cancelled_request_closes_its_connection():
    with RawUpstream([30.0]) as upstream:
        task = asyncio.create_task(fetch(upstream))
        assert await upstream.seen(lambda u: len(u.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not connection_pool.pools().connections)


async def test_a_finished_stream_gives_its_connection_back_when_its_end_follows():
    with RawUpstream(stream(b"data: 1\n\n", 0.05)) as upstream:
        for _ in range(3):
            async with relay_client.post(
                facts_for(upstream.url), NO_CREDENTIAL, (), b"", timeout=5
            ) as got:
                await got.chunk()
                got.finish()
            await until(lambda: [c.phase for c in connection_pool.pools().connections] == [IDLE])
        assert upstream.connections == 1


async def test_a_finished_stream_whose_end_never_comes_is_closed():
    with RawUpstream(stream(b"data: 1\n\n", 30.0)) as upstream:
        async with relay_client.post(
            facts_for(upstream.url), NO_CREDENTIAL, (), b"", timeout=5
        ) as got:
            await got.chunk()
            got.finish()
        await until(lambda: not connection_pool.pools().connections)


async def test_tls_is_verified_by_name_with_the_extra_authority(settings):
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)
    with RawUpstream(answer(b"{}"), tls=True) as upstream:
        for _ in range(3):
            assert (await fetch(upstream))[0] == 200
        assert upstream.connections == 1


async def test_a_certificate_nobody_vouches_for_is_refused_in_words(settings):
    settings.GATEWAY_EXTRA_CA_BUNDLE = ""
    with RawUpstream(answer(b"{}"), tls=True) as upstream:
        with pytest.raises(UpstreamUnreachable, match="certificate is not valid") as caught:
            await fetch(upstream)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert upstream.requests == []


async def test_a_certificate_for_another_name_is_refused(settings, monkeypatch):
    settings.GATEWAY_EXTRA_CA_BUNDLE = str(authority().ca_file)

    async def resolve(*_args, **_more):
        return ["127.0.0.1"]

    monkeypatch.setattr("upstreams.egress_guard.resolve", resolve)
    with RawUpstream(answer(b"{}"), tls=True) as upstream:
        facts = facts_for(f"https://other.example:{upstream.port}/mcp")
        with pytest.raises(UpstreamUnreachable, match="certificate is not valid"):
            async with relay_client.post(facts, NO_CREDENTIAL, (), b"", timeout=5):
                pass


async def test_nobody_listening_is_unreachable_and_the_address_stays_in_the_detail():
    with pytest.raises(UpstreamUnreachable) as caught:
        async with relay_client.post(
            facts_for("http://127.0.0.1:1/mcp"), NO_CREDENTIAL, (), b"", timeout=5
        ):
            pass
    assert "127.0.0.1" not in caught.value.message
    assert "127.0.0.1:1" in caught.value.detail


async def test_an_address_the_guard_refuses_is_not_connected_to(settings):
    with RawUpstream(answer(b"{}")) as upstream:
        settings.GATEWAY_ALLOW_LOOPBACK_UPSTREAMS = False
        with pytest.raises(EgressRefused):
            await fetch(upstream)
        assert upstream.connections == 0


async def test_a_name_that_moves_to_a_forbidden_address_loses_its_connections(monkeypatch):
    with RawUpstream(answer(b"{}")) as upstream:
        await fetch(upstream)
        pools = connection_pool.pools()
        pool = next(iter(pools._pools.values()))

        async def resolve(*_args, **_more):
            raise EgressRefused("moved")

        monkeypatch.setattr("upstreams.egress_guard.resolve", resolve)
        monkeypatch.setattr(connection_pool, "RECHECK_SECONDS", -1.0)
        async with asyncio.timeout(PATIENCE):
            while pools.connections:
                connection = pool.take(asyncio.get_running_loop().time())
                if connection is not None:
                    pool.put(connection, asyncio.get_running_loop().time(), 0)
                await asyncio.sleep(0.01)
        with pytest.raises(EgressRefused):
            await fetch(upstream)


async def test_the_second_address_is_used_when_the_first_does_not_answer(monkeypatch):
    async def resolve(*_args, **_more):
        return ["127.0.0.2", "127.0.0.1"]

    monkeypatch.setattr("upstreams.egress_guard.resolve", resolve)
    with RawUpstream(answer(b"{}")) as upstream:
        assert (await fetch(upstream))[0] == 200


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with RawUpstream(answer(b"{}")) as upstream:
        assert (await fetch(upstream))[0] == 200


def test_every_event_loop_has_its_own_connections():
    with RawUpstream(answer(b"{}")) as upstream:
        for _ in range(3):
            assert asyncio.run(fetch(upstream))[0] == 200
        assert upstream.connections == 3


async def test_closing_everything_ends_running_exchanges_with_an_error():
    with RawUpstream([30.0]) as upstream:
        task = asyncio.create_task(fetch(upstream))
        assert await upstream.seen(lambda u: len(u.requests) == 1)
        await relay_client.close_all()
        with pytest.raises(UpstreamAnswerInvalid):
            await task


async def test_time_limits_for_the_first_byte_and_for_the_whole():
    with RawUpstream([30.0]) as upstream:
        started = asyncio.get_running_loop().time()
        with pytest.raises(UpstreamTimeout):
            await fetch(upstream, timeout=0.3)
        assert asyncio.get_running_loop().time() - started < 20
    drip = [chunk(b"x"), 0.05] * 200
    with RawUpstream([CHUNKED, *drip]) as upstream, pytest.raises(UpstreamTimeout):
        await fetch(upstream, timeout=0.3)
    slow_head = [b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n", 0.05] * 200]
    with RawUpstream(slow_head) as upstream, pytest.raises(UpstreamTimeout):
        await fetch(upstream, timeout=0.3)
