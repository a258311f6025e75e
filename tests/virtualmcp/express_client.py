"""A client that writes its requests byte by byte, and a lane that counts what it took."""

import http.client
import json
import socket
from types import SimpleNamespace
from typing import Any

from django.conf import settings

from gateway_site.express_connection import ExpressConnection
from tests.virtualmcp.wire_client import BOTH, modern_headers, modern_meta
from virtualmcp.transport import express_lane


class CountingLane(SimpleNamespace):
    """The lane, and how many calls it began, answered and handed on."""

    def __init__(self) -> None:
        super().__init__(
            read=express_lane.read,
            ANSWER_HEADERS=express_lane.ANSWER_HEADERS,
            began=0,
            handed_on=0,
            connections=[],
        )

    def begin(self, head: Any, body: bytes, client: Any) -> Any:
        """Count."""
        found = express_lane.begin(head, body, client)
        if found is not None:
            self.began += 1
        return found

    def connection_class(self) -> type[ExpressConnection]:
        """Return the class of connections that offer their requests to this lane."""
        counting = self

        class Connection(ExpressConnection):
            lane = counting

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                counting.connections.append(self)

            def carry_on(self) -> None:
                if self.running is not None:
                    counting.handed_on += 1
                super().carry_on()

        return Connection


def call_request(
    slug: str,
    token: str,
    name: str = "echo",
    arguments: dict[str, Any] | None = None,
    *,
    session: str = "",
    meta: dict[str, Any] | None = None,
    id: int = 1,
    **more: str,
) -> tuple[bytes, bytes]:
    """Return head and body of a ``tools/call``, of a session's revision where there is one."""
    params = {"name": name, "arguments": arguments or {"text": "hi"}}
    return _request(slug, token, "tools/call", params, session, meta, id, more)


def read_request(
    slug: str,
    token: str,
    uri: str,
    *,
    session: str = "",
    meta: dict[str, Any] | None = None,
    id: int = 1,
    **more: str,
) -> tuple[bytes, bytes]:
    """Return the same of a ``resources/read``."""
    return _request(slug, token, "resources/read", {"uri": uri}, session, meta, id, more)


def _request(
    slug: str,
    token: str,
    method: str,
    params: dict[str, Any],
    session: str,
    meta: dict[str, Any] | None,
    id: int,
    more: dict[str, str],
) -> tuple[bytes, bytes]:
    if session:
        headers = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    else:
        headers = modern_headers(method, params)
        params = {**params, "_meta": modern_meta(**(meta or {}))}
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    body = json.dumps(message).encode()
    headers = {
        "host": settings.PUBLIC_HOST,
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": BOTH,
        **headers,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    lines = [f"POST /v1/mcp/{slug} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    return head, body


class RawClient:
    """One connection, used as a context manager."""

    def __init__(self, base: str) -> None:
        host, _, port = base.removeprefix("http://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Write the parts in one go."""
        self.socket.sendall(b"".join(parts))

    def answer(self) -> http.client.HTTPResponse:
        """Read one answer whole; ``body`` is what was in it."""
        lent = SimpleNamespace(makefile=lambda mode: SimpleNamespace(**self._lent()))
        found = http.client.HTTPResponse(lent, method="POST")  # type: ignore[arg-type]
        found.begin()
        found.body = found.read()  # type: ignore[attr-defined]
        return found

    def _lent(self) -> dict[str, Any]:
        """One buffer for all answers: what was read of the next one is not lost."""
        names = ("read", "readline", "readinto", "read1", "peek", "readable")
        nothing = {"close": lambda: None, "flush": lambda: None, "closed": False}
        return {**{name: getattr(self._file, name) for name in names}, **nothing}

    def ask(self, *parts: bytes) -> tuple[int, bytes]:
        """Send a request and return status and body of its answer."""
        self.send(*parts)
        found = self.answer()
        return found.status, found.body  # type: ignore[attr-defined]
