"""A forwarder that puts an ``Authorization`` header on every request of the official suite, and
sends each to the next of several nodes.

The suite has no way to send a token. Everything else passes as it came, Host included: only
the forwarder's own name is exchanged for the gateway's, so that the scenario which sends a
foreign Host or Origin still meets the gateway's rules.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade"}


class HeaderForwarder:
    """ASGI application that relays to ``target`` (an origin) with ``authorization`` added.

    With ``nodes`` (origins), requests go there in turn, without any stickiness, and still name
    ``target``; ``served`` are those that answered.
    """

    def __init__(self, target: str, authorization: str, nodes: Sequence[str] = ()) -> None:
        self._target = target.rstrip("/")
        self._nodes = itertools.cycle(nodes or (self._target,))
        self.served: Counter[str] = Counter()
        self._authorization = authorization.encode()
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        relaying = asyncio.create_task(self._relay(scope, body, send))
        leaving = asyncio.create_task(self._left(receive))
        await asyncio.wait({relaying, leaving}, return_when=asyncio.FIRST_COMPLETED)
        for task in (relaying, leaving):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @staticmethod
    async def _left(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    def _headers(self, scope: Any) -> list[tuple[bytes, bytes]]:
        own = f"{scope['server'][0]}:{scope['server'][1]}".encode()
        other = urlsplit(self._target).netloc.encode()
        headers = []
        for name, value in scope["headers"]:
            if name in _HOP_BY_HOP or name == b"content-length":
                continue
            mapped = name in (b"host", b"origin") and value.split(b"//")[-1] == own
            # White space around a value is no part of it, and httpx refuses to send it.
            headers.append((name, value.replace(own, other) if mapped else value.strip()))
        return [*headers, (b"authorization", self._authorization)]

    async def _relay(self, scope: Any, body: bytes, send: Any) -> None:
        loop = asyncio.get_running_loop()
        client = self._clients.setdefault(loop, httpx.AsyncClient(timeout=90, trust_env=False))
        query = scope["query_string"].decode()
        node = next(self._nodes)
        self.served[node] += 1
        request = client.build_request(
            scope["method"],
            node + scope["path"] + (f"?{query}" if query else ""),
            headers=self._headers(scope),
            content=body,
        )
        answer = await client.send(request, stream=True)
        try:
            headers = [
                (n.lower(), v) for n, v in answer.headers.raw if n.lower() not in _HOP_BY_HOP
            ]
            await send(
                {"type": "http.response.start", "status": answer.status_code, "headers": headers}
            )
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()
