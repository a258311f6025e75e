"""An upstream that writes whatever bytes a test wants, to try what no proper server does.

    with RawUpstream(answer(body=b"{}"), answer(status="302 Found", location="/x")) as upstream:
        ...   # the first request gets the first script, the last script serves all that follow

A script is a list of steps: ``bytes`` are written, numbers are pauses in seconds, ``CLOSE``
ends the connection properly, ``RESET`` breaks it, ``FLOOD`` writes for ever (until the peer
leaves; ``flooded`` counts the bytes). ``written`` counts what of the steps the kernel has taken.
After a script the next request on the same connection gets the next script. A script that is a
function gets the request's bytes.

It records ``connections`` (how many), ``requests`` (raw bytes, head and body) and ``closed``
(connections that have ended); ``wait(what)`` blocks until ``what(self)`` is true.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.fakes.asgi_server import authority
from tests.patience import LOOK_SECONDS, PATIENCE

CLOSE, RESET, FLOOD = "close", "reset", "flood"
Step = bytes | float | str
Script = Sequence[Step] | Callable[[bytes], Sequence[Step]]


def answer(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    content_type: str = "application/json",
    length: int | None = None,
    **headers: str,
) -> list[Step]:
    """Return the script of an answer with a length; ``length`` may be a lie."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ["\r\n".join([*lines, "", ""]).encode("latin-1") + body]


def stream(*pieces: Step, end: bool = True) -> list[Step]:
    """Return the script of a chunked event stream; pauses may stand between its pieces."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    steps = [chunk(piece) if isinstance(piece, bytes) else piece for piece in pieces]
    last = [b"0\r\n\r\n"] if end else []
    return [head + b"Transfer-Encoding: chunked\r\n\r\n", *steps, *last]


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class RawUpstream:
    """The server, used as a context manager."""

    def __init__(self, *scripts: Script, tls: bool = False) -> None:
        self._scripts = list(scripts)
        self._tls = tls
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.connections = 0
        self.closed = 0
        self.flooded = self.written = 0
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Address of the endpoint."""
        host = "localhost" if self._tls else "127.0.0.1"
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/mcp"

    def __enter__(self) -> "RawUpstream":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        if not self._ready.wait(PATIENCE):
            raise RuntimeError("the raw upstream did not start")
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    def wait(self, what: Callable[["RawUpstream"], bool], timeout: float = PATIENCE) -> bool:
        """Wait until ``what`` holds; returns whether it does."""
        deadline = time.monotonic() + timeout
        with self._changed:
            # Not every change of what is looked at wakes the waiting.
            while not what(self) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, LOOK_SECONDS))
            return what(self)

    async def seen(self, what: Callable[["RawUpstream"], bool], timeout: float = PATIENCE) -> bool:
        """The same for asynchronous tests."""
        return await asyncio.to_thread(self.wait, what, timeout)

    def _count(self, name: str, by: int = 1) -> None:
        with self._changed:
            setattr(self, name, getattr(self, name) + by)
            self._changed.notify_all()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            files = authority()
            context.load_cert_chain(files.certificate_file, files.key_file)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count("connections")
        if not self._tls:
            writer.transport.set_write_buffer_limits(0)
        ends = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError)
        with contextlib.suppress(*ends):
            while True:
                request = await self._request(reader)
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                    script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
                steps = script(request) if callable(script) else script
                if not await self._play(steps, writer):
                    break
        writer.close()
        if not self._tls:
            # Closing happens in the loop's next round; it is to be counted once it has happened.
            with contextlib.suppress(*ends):
                await writer.wait_closed()
        self._count("closed")

    @staticmethod
    async def _request(reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head.lower())
        return head + (await reader.readexactly(int(found.group(1))) if found else b"")

    async def _play(self, steps: Sequence[Step], writer: asyncio.StreamWriter) -> bool:
        """Take the steps; returns whether the connection goes on."""
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                self._count("written", len(step))
            elif step == CLOSE:
                return False
            elif step == RESET:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            elif step == FLOOD:
                while True:
                    writer.write(b"x" * 16384)
                    await writer.drain()
                    self._count("flooded", 16384)
            else:
                await asyncio.sleep(float(step))
        return True
