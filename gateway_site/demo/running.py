"""What the demo's servers share: the command line, small answers, private files."""

import argparse
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from gateway_site.demo.mcp_wire import MOST_BODY, Receive, Scope, Send

Application = Any


@dataclass(frozen=True, slots=True)
class Options:
    """Port on 127.0.0.1, and the folder for what must outlive the process."""

    port: int
    data: Path

    @property
    def origin(self) -> str:
        """The server's own address."""
        return f"http://127.0.0.1:{self.port}"


def run(description: str, make: Callable[[Options], Application]) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, default=Path())
    given = parser.parse_args()
    given.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    uvicorn.run(
        make(Options(given.port, given.data)),
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )


def private_text(file: Path, make: Callable[[], str]) -> str:
    """Return the file's text; the first caller writes it, readable for the owner only."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text(encoding="utf-8").strip()
    text = make()
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    return text


def parcels_key(data: Path) -> str:
    """Return the API key of the parcel service."""
    return private_text(data / "parcels.key", lambda: "pk_" + secrets.token_urlsafe(24))


async def answer(
    send: Send, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
) -> None:
    """Send a whole HTTP answer."""
    sent = {"content-type": content_type, "cache-control": "no-store", **(headers or {})}
    start = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def text_answer(
    send: Send, status: int, text: str, headers: dict[str, str] | None = None
) -> None:
    """Send a line of text."""
    await answer(send, status, text.encode(), "text/plain; charset=utf-8", headers)


async def json_answer(send: Send, status: int, document: Any) -> None:
    """Send a JSON document."""
    await answer(send, status, json.dumps(document).encode(), "application/json")


async def read_body(receive: Receive) -> bytes:
    """Read the body, as far as one is acceptable at all."""
    body = b""
    while len(body) <= MOST_BODY:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            break
    return body[:MOST_BODY]


async def read_form(receive: Receive) -> dict[str, str]:
    """Read an urlencoded form; of a repeated field the first counts."""
    return first_of(await read_body(receive))


def read_query(scope: Scope) -> dict[str, str]:
    """Return the query's parameters."""
    return first_of(scope["query_string"])


def first_of(encoded: bytes) -> dict[str, str]:
    """Decode name=value pairs, keeping the first of each name."""
    values: dict[str, str] = {}
    for name, value in parse_qsl(encoded.decode("utf-8", "replace"), keep_blank_values=True):
        values.setdefault(name, value)
    return values


def header(scope: Scope, name: str) -> str:
    """Return a request header, "" if it is absent."""
    wanted = name.encode()
    return next((v.decode("latin-1") for k, v in scope["headers"] if k == wanted), "")
