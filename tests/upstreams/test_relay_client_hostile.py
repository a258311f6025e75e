"""The relay client against servers that do what no proper server does (security.md 4J)."""

import asyncio
import gzip
import socket
import tracemalloc

import pytest

from tests.fakes.raw_upstream import CLOSE, FLOOD, RESET, RawUpstream, answer, chunk, stream
from tests.patience import PATIENCE
from tests.upstreams.relaying import NO_CREDENTIAL, facts_for, until
from upstreams import relay_client
from upstreams.errors import UpstreamAnswerInvalid
from upstreams.relay_connection import DONE, READ_BYTES, RelayConnection

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
async def closed_afterwards():
    yield
    await relay_client.close_all()


async def fetch(upstream, body=b"{}", timeout=5.0, limit=10_000_000):
    facts = facts_for(upstream.url)
    async with relay_client.post(facts, NO_CREDENTIAL, (), body, timeout=timeout) as got:
        return await got.read(limit)


SECOND = answer(b'{"stolen":1}')[0]


@pytest.mark.parametrize(
    "first",
    [
        [answer(b'{"a":1}')[0] + SECOND],
        [answer(b'{"a":1}')[0], 0.02, SECOND],
        [answer(b'{"a":1}')[0] + b"surplus"],
        [CHUNKED + chunk(b'{"a":1}') + b"0\r\n\r\n" + SECOND],
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\n"
            + b'{"a":1}'
            + SECOND
        ],
    ],
    ids=["at once", "a moment later", "garbage", "behind chunks", "after close"],
)
async def test_what_follows_a_complete_answer_never_becomes_another_answer(first):
    with RawUpstream(first, answer(b'{"b":2}')) as upstream:
        assert await fetch(upstream) == b'{"a":1}'
        assert await upstream.seen(lambda u: u.closed == 1)
        assert await fetch(upstream) == b'{"b":2}'
        assert upstream.connections == 2


class HeldByTls:
    """A transport as TLS gives it: what it holds is delivered one turn after reading resumes."""

    def __init__(self, held: bytes, end: socket.socket) -> None:
        self.held, self.end, self.protocol, self.closing = held, end, None, False

    def get_extra_info(self, name):
        return {"socket": self.end, "ssl_object": self}.get(name)

    def resume_reading(self):
        asyncio.get_running_loop().call_soon(self.deliver, self.held)

    def deliver(self, data):
        if data:
            self.protocol.get_buffer(-1)[: len(data)] = data
            self.protocol.buffer_updated(len(data))

    def pause_reading(self):
        self.deliver(b"")

    def write(self, data):
        for piece in (ANSWER[:READ_BYTES], ANSWER[READ_BYTES:]):
            asyncio.get_running_loop().call_soon(self.deliver, piece)

    def abort(self):
        self.closing = True

    def is_closing(self):
        return self.closing

    def get_write_buffer_size(self):
        return 0


# A stream of known length: reading it is paused, as that of a document is not.
ANSWER = answer(b"x" * READ_BYTES, content_type="text/event-stream")[0]


class Kept(list):
    def put(self, connection, now, seconds):
        self.append(connection)


@pytest.mark.parametrize("held", [b"", SECOND])
async def test_bytes_that_tls_holds_behind_a_paused_answer_never_reach_another_exchange(held):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop, kept, transport = asyncio.get_running_loop(), Kept(), HeldByTls(held, ours)
        transport.protocol = RelayConnection(loop, memoryview(bytearray(READ_BYTES)), kept)
        transport.protocol.connection_made(transport)
        ends = loop.time() + 10
        await transport.protocol.send(b"GET", b"", first_byte_by=ends, deadline=ends)
        await until(lambda: transport.protocol.phase == DONE)
        assert transport.protocol.whole_body() == b"x" * READ_BYTES
        transport.protocol.finish(drain=False, now=loop.time())
        assert kept == []
        await until(lambda: bool(kept) or transport.closing)
        assert bool(kept) is not bool(held)


async def test_bytes_on_an_idle_connection_close_it():
    with RawUpstream([*answer(b"1"), 0.05, SECOND, 5.0], answer(b"2")) as upstream:
        assert await fetch(upstream) == b"1"
        assert await upstream.seen(lambda u: u.closed == 0 and u.connections == 1)
        assert await upstream.seen(lambda u: u.closed == 1, 0.3) is False
        assert await fetch(upstream) == b"2"
        assert upstream.connections == 2


@pytest.mark.parametrize(
    "script",
    [
        [*answer(b'{"a":', length=100), CLOSE],
        [*answer(b'{"a":', length=100), RESET],
        [CHUNKED + chunk(b'{"a":'), CLOSE],
        [CHUNKED + chunk(b'{"a":'), RESET],
        [CHUNKED + b"7\r\n{", CLOSE],
        [b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE],
        [CLOSE],
        [RESET],
    ],
)
async def test_an_answer_cut_short_is_an_error_and_its_connection_is_gone(script):
    with RawUpstream(script, answer(b"{}")) as upstream:
        with pytest.raises(UpstreamAnswerInvalid):
            await fetch(upstream)
        assert await fetch(upstream) == b"{}"
        assert upstream.connections == 2


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html><body>hello</body></html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nabc",
        b"HTTP/1.1 103 Early\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01",
    ],
)
async def test_what_is_not_http_is_an_error_in_words(head):
    with RawUpstream([head, PATIENCE]) as upstream:
        with pytest.raises(UpstreamAnswerInvalid) as caught:
            await fetch(upstream, timeout=PATIENCE)
        assert caught.value.message.startswith("Fake ")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 150_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 10_000,
        b"HTTP/1.1 200 " + b"O" * 200_000,
        CHUNKED + b"0\r\n" + b"X-Trailer: 1\r\n" * 10_000,
    ],
)
async def test_headers_beyond_the_limits_are_refused(head):
    with RawUpstream([head, PATIENCE]) as upstream, pytest.raises(UpstreamAnswerInvalid):
        await fetch(upstream, timeout=PATIENCE)


async def test_a_hundred_headers_of_32_kb_pass():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"X-Many: %s\r\n" % (b"a" * 300) * 98
    with RawUpstream([head + b"X: y\r\n\r\n{}"]) as upstream:
        assert await fetch(upstream) == b"{}"


async def test_an_endless_header_does_not_fill_the_memory():
    with RawUpstream([b"HTTP/1.1 200 OK\r\nX: ", FLOOD]) as upstream:
        with pytest.raises(UpstreamAnswerInvalid):
            await fetch(upstream)
        assert upstream.flooded < 20_000_000


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "gzip, gzip", "x"])
async def test_an_encoded_answer_is_refused_without_being_read(coding):
    bomb = gzip.compress(b"0" * 50_000_000)
    with RawUpstream(answer(bomb, Content_Encoding=coding)) as upstream:
        tracemalloc.start()
        try:
            with pytest.raises(UpstreamAnswerInvalid):
                await fetch(upstream)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()


async def test_an_encoding_called_identity_is_none():
    with RawUpstream(answer(b"{}", Content_Encoding="identity")) as upstream:
        assert await fetch(upstream) == b"{}"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Tmp", "308 Perm"])
async def test_a_redirect_is_not_followed_and_the_credential_not_sent_again(status):
    elsewhere = RawUpstream(answer(b"{}"))
    with (
        elsewhere as target,
        RawUpstream(answer(b"", status=status, Location=target.url)) as upstream,
    ):
        with pytest.raises(UpstreamAnswerInvalid, match="redirect"):
            await fetch(upstream)
        assert len(upstream.requests) == 1
        assert target.connections == 0


@pytest.mark.parametrize(
    "script",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n", FLOOD],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", FLOOD],
        [CHUNKED + b"5f5e100\r\n", FLOOD],
    ],
    ids=["until close", "length", "chunk"],
)
async def test_a_flood_is_cut_at_the_limit(script):
    with RawUpstream(script) as upstream:
        with pytest.raises(UpstreamAnswerInvalid, match="too large"):
            await fetch(upstream, limit=1_000_000)
        assert await upstream.seen(lambda u: u.closed == 1)
        assert upstream.flooded < 20_000_000


async def test_a_connection_whose_end_is_announced_is_not_used_again():
    closing = answer(b"{}", Connection="close")
    with RawUpstream([*closing, 0.2, CLOSE], answer(b"{}")) as upstream:
        assert await fetch(upstream, body=b"x" * 4_000_000) == b"{}"
        assert await fetch(upstream) == b"{}"
        assert upstream.connections == 2


async def test_a_stream_that_goes_on_after_its_final_event_is_closed():
    endless = [*stream(b"data: 1\n\n", end=False), b"fffffff\r\n", FLOOD]
    with RawUpstream(endless, answer(b"{}")) as upstream:
        facts = facts_for(upstream.url)
        async with relay_client.post(facts, NO_CREDENTIAL, (), b"{}", timeout=5) as got:
            await got.chunk()
            got.finish()
        assert await upstream.seen(lambda u: u.closed == 1)
        assert upstream.flooded < 20_000_000
        assert await fetch(upstream) == b"{}"
