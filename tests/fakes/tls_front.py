"""Ends TLS in front of a server that speaks plain HTTP, as a load balancer does."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator

from tests.fakes.asgi_server import authority
from tests.patience import PATIENCE

CHUNK = 64 * 1024


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass  # one end is gone; the other learns it by the close
    finally:
        sink.close()


@contextlib.contextmanager
def tls_front(port: int, behind: int) -> Iterator[None]:
    """Take TLS connections at ``port`` for what listens at ``behind``, until the block ends.

    Both are ports of 127.0.0.1; the certificate is one of ``asgi_server.authority``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority().certificate_file, authority().key_file)
    ready, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner, outer = await asyncio.open_connection("127.0.0.1", behind)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pour(reader, outer), _pour(inner, writer))

    async def run() -> None:
        async with await asyncio.start_server(take, "127.0.0.1", port, ssl=context):
            ready.set()
            await over.wait()
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        if not ready.wait(PATIENCE):
            raise RuntimeError("the TLS front did not start")
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(PATIENCE)
        loop.close()
