"""A load balancer that sends every request to the next node, without any stickiness."""

import asyncio
import contextlib
from typing import Any

import httpx

_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade"}


class RoundRobin:
    """ASGI application in front of ``nodes`` (origins); one that is down is passed over."""

    def __init__(self, nodes: list[str]) -> None:
        self._nodes = list(nodes)
        self.served: list[str] = []

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
            with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
                await task

    @staticmethod
    async def _left(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _relay(self, scope: Any, body: bytes, send: Any) -> None:
        headers = [
            (n, v) for n, v in scope["headers"] if n not in _HOP_BY_HOP and n != b"content-length"
        ]
        async with httpx.AsyncClient(timeout=90, trust_env=False) as client:
            answer = await self._answer(client, scope, headers, body)
            kept = [(n.lower(), v) for n, v in answer.headers.raw if n.lower() not in _HOP_BY_HOP]
            start = {"type": "http.response.start", "status": answer.status_code, "headers": kept}
            await send(start)
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            await answer.aclose()

    async def _answer(
        self, client: httpx.AsyncClient, scope: Any, headers: Any, body: bytes
    ) -> httpx.Response:
        for _ in self._nodes:
            node = self._nodes.pop(0)
            self._nodes.append(node)
            url = node + scope["path"]
            request = client.build_request(scope["method"], url, headers=headers, content=body)
            with contextlib.suppress(httpx.ConnectError):
                answer = await client.send(request, stream=True)
                self.served.append(node)
                return answer
        raise httpx.ConnectError("no node is up")
