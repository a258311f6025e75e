"""One connection by itself: what it hands to the application, and whom it answers when."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway_site import client_connections
from gateway_site.client_connections import ClientConnection, ConnectionLimits

pytestmark = pytest.mark.timeout(120)
POST = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
GET = b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n"
CLOSING = b"GET /c HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class App:
    """Reads whole bodies and answers with the path; ``/slow`` waits for ``release``."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.asked = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.asked.set()
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
        if scope["path"] == "/slow":
            await self.release.wait()
        body = scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Serving:
    """The server's side of a socket on loopback."""

    def __init__(self, app: App, port: int, open_ones: set[Any]) -> None:
        self.app, self.port, self.open_ones = app, port, open_ones

    async def exchange(self, *parts: bytes | Callable[[], Awaitable[None]]) -> bytes:
        """Send the parts, awaiting those that are functions; return all until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await part()
        try:
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()

    def sweep(self) -> None:
        """Let the sweep come by an hour later."""
        for connection in list(self.open_ones):
            connection.sweep(connection.loop.time() + 3600)


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    app, state = App(), ServerState()
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    config.loaded_app = app
    limits = ConnectionLimits()
    kind = type("Connection", (ClientConnection,), {"limits": limits})
    server = await asyncio.get_running_loop().create_server(
        lambda: kind(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield Serving(app, server.sockets[0].getsockname()[1], state.connections)


def statuses(got: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a protocol's own fields announce nothing
            await asyncio.sleep(0.01)


async def test_trailers_are_refused_and_never_become_headers() -> None:
    async with serving() as served:
        got = await served.exchange(
            POST, b"1\r\na\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", CLOSING
        )
        assert statuses(got) == [400]
        assert b"not_http" in got
        names = [name for scope in served.app.scopes for name, _ in scope["headers"]]
        assert names == [b"host", b"transfer-encoding"]


async def test_what_frames_a_body_is_bounded_and_many_small_chunks_are_not() -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(POST + b"1;")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and sent < 64:
                writer.write(b"x" * 16_384)
                await writer.drain()
                sent += 1
                # The server's turn on this loop.
                await asyncio.sleep(0)
        await until(lambda: not served.open_ones)
        writer.close()
        assert sent < 64
        small = b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n"
        got = await served.exchange(POST, small, CLOSING)
        assert statuses(got) == [200, 200]


async def test_only_short_addresses_are_kept() -> None:
    async with serving() as served:
        client_connections._known_path_of.cache_clear()
        for number in range(3):
            long = b"/%d" % number + b"l" * 256
            got = await served.exchange(CLOSING.replace(b"/c", long))
            assert got.endswith(b"\r\n\r\n" + long)
        assert client_connections._known_path_of.cache_info().currsize == 0
        assert (await served.exchange(CLOSING)).endswith(b"\r\n\r\n/c")
        assert client_connections._known_path_of.cache_info().currsize == 1


SLOW = GET.replace(b"/b", b"/slow")
LATE_BODY = b"POST /late HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n"


@pytest.mark.parametrize("behind", [LATE_BODY, LATE_BODY + b"\r\nab"])
async def test_who_waits_behind_an_answer_is_not_called_slow(behind: bytes) -> None:
    async with serving() as served:
        app = served.app

        async def swept() -> None:
            await until(lambda: bool(served.open_ones) and app.asked.is_set())
            await until(lambda: next(iter(served.open_ones)).phase != client_connections.ANSWER)
            served.sweep()
            app.release.set()

        rest = b"cd" if behind.endswith(b"ab") else b"\r\nabcd"
        got = await served.exchange(SLOW, behind, swept, rest, CLOSING)
        answers = got.split(b"HTTP/1.1 ")[1:]
        assert statuses(got) == [200] * 3
        assert [one.rpartition(b"\r\n\r\n")[2] for one in answers] == [b"/slow", b"/late", b"/c"]


@pytest.mark.parametrize("nonsense", [b"NONSENSE\r\n\r\n", b"\x00\x01", GET + b"NONSENSE\r\n\r\n"])
async def test_nonsense_behind_a_request_leaves_its_answer_whole(nonsense: bytes) -> None:
    async with serving() as served:

        async def refused() -> None:
            await until(lambda: any(one.ending for one in served.open_ones))
            served.app.release.set()

        got = await served.exchange(SLOW, nonsense, refused)
        assert statuses(got) == [200]
        assert got.endswith(b"\r\n\r\n/slow")
