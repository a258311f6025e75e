"""An MCP upstream that costs as little as Python allows, so that the gateway is what is measured.

    python bench/fast_upstream.py --port 21001 [--prefix a_]

Speaks the stateless revision, and as much of the stateful ones (without sessions) as gateways that
know nothing else need: ``server/discover``, ``tools/list`` (20 tools, 8 of them with
``_meta.ui``), ``tools/call`` (``echo``: 110 bytes back; ``big``: 64 KiB; ``steps``: an event
stream of 20 progress notifications 20 ms apart).
"""

import argparse
import asyncio
import json

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
    meta: dict[str, msgspec.Raw] = msgspec.field(name="_meta", default_factory=dict)


DECODE = msgspec.json.Decoder(Envelope).decode
DECODE_PARAMS = msgspec.json.Decoder(Params).decode
TEXT = b'{"resultType":"complete","content":[{"type":"text","text":"%s"}]}'
ECHO = TEXT % b"hello, and a few more words to fill the line"
BIG = TEXT % (b"x" * 65536)
DISCOVER = json.dumps(
    {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "fast", "version": "1"},
        "ttlMs": 3_600_000,
        "cacheScope": "public",
    }
).encode()
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

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.tools = tool_list(prefix)
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        request = DECODE(self.body)
        if request.method == "tools/call":
            params = DECODE_PARAMS(request.params)
            name = params.name.removeprefix(self.prefix)
            if name == "steps":
                token = bytes(params.meta.get("progressToken", msgspec.Raw(b"0")))
                self.stream = asyncio.ensure_future(self.steps(bytes(request.id), token))
                return
            result = BIG if name == "big" else ECHO
        elif request.method == "tools/list":
            result = self.tools
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

    async def steps(self, request_id: bytes, token: bytes) -> None:
        """Write 20 progress events 20 ms apart, then the result."""
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        )
        self.transport.write(head + b"\r\n")
        for step in range(20):
            note = (
                b'{"jsonrpc":"2.0","method":"notifications/progress",'
                b'"params":{"progressToken":%s,"progress":%d,"total":20}}' % (token, step + 1)
            )
            self.event(note)
            await asyncio.sleep(0.02)
        self.event(b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (request_id, ECHO))
        self.transport.write(b"0\r\n\r\n")

    def event(self, data: bytes) -> None:
        """Write one server-sent event as one chunk."""
        block = b"event: message\ndata: " + data + b"\n\n"
        self.transport.write(b"%x\r\n%s\r\n" % (len(block), block))


async def main() -> None:
    """Serve until killed."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--prefix", default="")
    options = arguments.parse_args()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: FastUpstream(options.prefix), "127.0.0.1", options.port
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
