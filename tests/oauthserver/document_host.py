"""A web server that publishes client documents, and misbehaves on request."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.asgi_server import serve


@dataclass
class Page:
    """One answer; ``chunks`` may go on for ever."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    endless: bool = False
    with_length: bool = True


@dataclass
class DocumentHost:
    """Answers by path and counts what was asked; ``base`` is set while it runs."""

    base: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    seen_headers: dict[str, str] = field(default_factory=dict)

    def publish(self, path: str, document: Any, **headers: str) -> str:
        """Publish JSON (or bytes) and return its URL."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = Page(body, headers={"content-type": "application/json", **given})
        return self.base + path

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        self.seen_headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        page = self.pages.get(scope["path"], Page(b"{}", 404))
        headers = [(k.encode(), v.encode()) for k, v in page.headers.items()]
        if page.with_length and not page.endless:
            headers.append((b"content-length", str(len(page.body)).encode()))
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        if page.endless:
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b" " * 1024, "more_body": True})
        await send({"type": "http.response.body", "body": page.body})


@contextmanager
def document_host() -> Iterator[DocumentHost]:
    """Run a host over https."""
    host = DocumentHost()
    with serve(host, tls=True) as base:
        host.base = base
        yield host
