"""An MCP upstream that costs as little as Python allows, so that the gateway is what is measured.

    python bench/fast_upstream.py --port 21001 [--prefix a_]

Speaks the stateless revision, and as much of the stateful ones (without sessions) as gateways that
know nothing else need: ``server/discover``, ``tools/list`` (20 tools, 8 of them with
``_meta.ui``; ``--list FILE`` serves other bytes), ``tools/call`` (``echo``: 110 bytes back;
``big``: 64 KiB; ``steps``: an event stream of 5 progress notifications 20 ms apart, each with the
moment it was written; ``flood``: one of 64 MiB, as fast as it is taken; ``written``: how much of
that went out), ``resources/read`` (64 KiB, whatever is asked for).
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httptools
import msgspec
import uvloop


class Envelope(msgspec.Struct):
    """What the upstream reads of a request."""

    method: str
    id: msgspec.Raw = msgspec.Raw(b"null")
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Params(msgspec.Struct):
    """What the upstream reads of ``params``."""

    name: str = ""
    uri: str = ""
    meta: dict[str, msgspec.Raw] = msgspec.field(name="_meta", default_factory=dict)


DECODE = msgspec.json.Decoder(Envelope).decode
DECODE_PARAMS = msgspec.json.Decoder(Params).decode
TEXT = b'{"resultType":"complete","content":[{"type":"text","text":"%s"}]}'
ECHO = TEXT % b"hello, and a few more words to fill the line"
BIG = TEXT % (b"x" * 65536)
RESOURCE = (
    b'{"resultType":"complete","ttlMs":0,"cacheScope":"private",'
    b'"contents":[{"uri":"%s","mimeType":"text/plain","text":"%s"}]}'
)
NO_RESOURCES = b'{"resultType":"complete","resources":[],"ttlMs":3600000,"cacheScope":"public"}'
DISCOVER = json.dumps(
    {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}, "resources": {}},
        "serverInfo": {"name": "fast", "version": "1"},
        "ttlMs": 3_600_000,
        "cacheScope": "public",
    }
).encode()
PROGRESS = (
    b'{"jsonrpc":"2.0","method":"notifications/progress","params":'
    b'{"progressToken":%s,"progress":%d,"message":"%d%s"}}'
)
WRITTEN = b'{"jsonrpc":"2.0","id":%s,"result":{"resultType":"complete","content":[],"written":%d}}'
INITIALIZE = (
    b'{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"fast","version":"1"}}'
)


def tool_list(prefix: str) -> bytes:
    """Return a ``tools/list`` result of 20 tools, about 12 kB."""
    tools = []
    for number in range(20):
        name = prefix + ("echo", "big", "steps")[number] if number < 3 else f"{prefix}tool_{number}"
        properties = {
            f"field_{index}": {"type": "string", "description": "A field that the tool needs. " * 2}
            for index in range(4)
        }
        tool = {
            "name": name,
            "title": f"Tool number {number}",
            "description": "What this tool does, in a sentence as long as such sentences are.",
            "inputSchema": {"type": "object", "properties": properties},
            "annotations": {"readOnlyHint": True, "openWorldHint": False},
        }
        if number % 5 in (1, 3):
            tool["_meta"] = {"ui": {"resourceUri": f"ui://fast/widget-{number}.html"}}
        tools.append(tool)
    body = {"resultType": "complete", "tools": tools, "ttlMs": 3_600_000, "cacheScope": "public"}
    return json.dumps(body, separators=(",", ":")).encode()


class FastUpstream(asyncio.Protocol):
    """One connection."""

    flooded = 0

    def __init__(self, prefix: str, tools: bytes) -> None:
        self.prefix = prefix
        self.tools = tools
        self.sent = 0
        self.writable = asyncio.Event()
        self.writable.set()
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.stream: asyncio.Task[None] | None = None

    def connection_lost(self, error: Exception | None) -> None:
        # A stream that waits for its reader would be dropped amid its waiting, with a complaint.
        if self.stream is not None:
            self.stream.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def on_message_complete(self) -> None:
        if self.parser.get_method() != b"POST":
            self.transport.write(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n")
            return
        request = DECODE(self.body)
        if request.method == "tools/call":
            params = DECODE_PARAMS(request.params)
            name = params.name.removeprefix(self.prefix)
            if name in ("steps", "flood"):
                token = bytes(params.meta.get("progressToken", msgspec.Raw(b"0")))
                events = self.steps(token) if name == "steps" else self.flood(token)
                self.stream = asyncio.ensure_future(self.events(bytes(request.id), events))
                return
            if name == "written":
                self.answer(WRITTEN % (bytes(request.id), FastUpstream.flooded))
                return
            result = BIG if name == "big" else ECHO
        elif request.method == "tools/list":
            result = self.tools
        elif request.method == "resources/read":
            uri = DECODE_PARAMS(request.params).uri
            result = RESOURCE % (uri.encode(), b"x" * 65536)
        elif request.method == "resources/list":
            result = NO_RESOURCES
        elif request.method == "resources/templates/list":
            result = NO_RESOURCES.replace(b"resources", b"resourceTemplates")
        elif request.method == "server/discover":
            result = DISCOVER
        elif request.method == "initialize":
            result = INITIALIZE
        elif request.method.startswith("notifications/"):
            self.transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            return
        else:
            error = b'{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"unknown"}}'
            self.answer(error % bytes(request.id))
            return
        self.answer(b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (bytes(request.id), result))

    def answer(self, body: bytes) -> None:
        """Write one JSON answer and keep the connection."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)

    async def events(self, request_id: bytes, events: AsyncIterator[bytes]) -> None:
        """Write progress notifications as events, then the result."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        self.transport.write(head + b"transfer-encoding: chunked\r\n\r\n")
        async for note in events:
            if self.transport.is_closing():
                return
            self.event(note)
        self.event(b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (request_id, ECHO))
        self.transport.write(b"0\r\n\r\n")

    async def steps(self, token: bytes) -> AsyncIterator[bytes]:
        """Yield 5 notifications 20 ms apart, stamped with this machine's monotonic clock."""
        for step in range(5):
            yield PROGRESS % (token, step + 1, time.monotonic_ns(), b"")
            await asyncio.sleep(0.02)

    async def flood(self, token: bytes) -> AsyncIterator[bytes]:
        """Yield 64 MiB as fast as the connection takes it."""
        FastUpstream.flooded = 0
        filling = b"x" * 16_000
        for step in range(4096):
            await self.writable.wait()
            yield PROGRESS % (token, step + 1, 0, filling)
            FastUpstream.flooded = self.sent - self.transport.get_write_buffer_size()

    def event(self, data: bytes) -> None:
        """Write one server-sent event as one chunk."""
        block = b"event: message\ndata: " + data + b"\n\n"
        chunk = b"%x\r\n%s\r\n" % (len(block), block)
        self.sent += len(chunk)
        self.transport.write(chunk)


async def main() -> None:
    """Serve until killed."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--prefix", default="")
    arguments.add_argument("--list", type=Path, help="file with the result of tools/list")
    options = arguments.parse_args()
    loop = asyncio.get_running_loop()
    tools = options.list.read_bytes() if options.list else tool_list(options.prefix)
    server = await loop.create_server(
        lambda: FastUpstream(options.prefix, tools), "127.0.0.1", options.port
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
