"""A client's open stream, read in a thread while the test goes on."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.patience import PATIENCE
from tests.virtualmcp.wire_client import WireClient, modern_headers, modern_meta


class StreamReader:
    """One stream; use as a context manager.

    Attributes:
        status, headers: of the answer.
        events: (id, message) of every event with data; ids are "" where there are none.
        comments: how many comment lines came.
        primed: (id, retry) of events without data.
        ended: the server has ended the stream.
    """

    def __init__(self, http: httpx.Client, request: httpx.Request) -> None:
        self._http, self._request = http, request
        self._news = threading.Condition()
        self._opened = threading.Event()
        self._response: httpx.Response | None = None
        self.status = 0
        self.headers = httpx.Headers()
        self.body = b""
        self.events: list[tuple[str, Any]] = []
        self.primed: list[tuple[str, str]] = []
        self.retries: list[str] = []
        self.comments = 0
        self.ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "StreamReader":
        self._thread.start()
        assert self._opened.wait(PATIENCE), "no answer"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._response is not None:
            with contextlib.suppress(Exception):
                stream: Any = self._response.extensions["network_stream"]
                stream.get_extra_info("socket").shutdown(2)
        self._thread.join(PATIENCE)

    @property
    def messages(self) -> list[Any]:
        """The messages that came."""
        return [message for _, message in self.events]

    @property
    def methods(self) -> list[str]:
        """The methods of the notices that came."""
        return [message["method"] for message in self.messages if "method" in message]

    def wait(self, what: Callable[["StreamReader"], bool], timeout: float = PATIENCE) -> bool:
        """Wait until ``what`` holds; returns whether it does."""
        with self._news:
            return self._news.wait_for(lambda: what(self), timeout)

    def heard(self, method: str, times: int = 1) -> bool:
        """Wait until a notice came so often."""
        return self.wait(lambda reader: reader.methods.count(method) >= times)

    def _read(self) -> None:
        try:
            response = self._response = self._http.send(self._request, stream=True)
            self.status, self.headers = response.status_code, response.headers
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                self.body = response.read()
                return
            self._opened.set()
            self._events(response)
        except httpx.TransportError:
            return
        finally:
            self._opened.set()
            with self._news:
                self.ended = True
                self._news.notify_all()

    def _events(self, response: httpx.Response) -> None:
        lines: list[str] = []
        for line in response.iter_lines():
            if line.startswith(":"):
                with self._news:
                    self.comments += 1
                    self._news.notify_all()
            elif line:
                lines.append(line)
            elif lines:
                self._event(lines)
                lines = []

    def _event(self, lines: list[str]) -> None:
        fields = dict(
            line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines
        )
        with self._news:
            if fields.get("data"):
                self.events.append((fields.get("id", ""), json.loads(fields["data"])))
            elif "id" in fields:
                self.primed.append((fields["id"], fields.get("retry", "")))
            if "retry" in fields:
                self.retries.append(fields["retry"])
            self._news.notify_all()


def until(what: Callable[[], bool], timeout: float = PATIENCE) -> bool:
    """Wait until ``what`` holds; returns whether it does."""
    deadline = time.monotonic() + timeout
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return what()


def listen(
    client: WireClient,
    notifications: Any,
    *,
    id: Any = "listen-1",
    meta: Any = None,
    **headers: str,
) -> StreamReader:
    """Open subscriptions/listen of a stateless client."""
    params = {"notifications": notifications, "_meta": meta or modern_meta()}
    return modern_stream(client, "subscriptions/listen", params, id=id, **headers)


def modern_stream(
    client: WireClient, method: str, params: Any, *, id: Any, **headers: str
) -> StreamReader:
    """Make a request of a stateless client whose answer is read while the test goes on; ``params``
    hold its ``_meta``."""
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    mirrored = modern_headers(method, params)
    names = {name.replace("-", "_"): value for name, value in mirrored.items()}
    sent = client.headers(**{**names, **headers})
    return _reader(
        client, client.http.build_request("POST", client.path, json=message, headers=sent)
    )


def get_stream(client: WireClient, **headers: str) -> StreamReader:
    """Open the GET stream of a stateful client's session."""
    sent = client.headers(accept="text/event-stream", **client.session_headers(), **headers)
    sent.pop("content-type", None)
    return _reader(client, client.http.build_request("GET", client.path, headers=sent))


def post_stream(client: WireClient, method: str, params: Any, *, id: Any) -> StreamReader:
    """Make a request of a stateful client whose answer is read while the test goes on."""
    message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    sent = client.headers(**client.session_headers())
    return _reader(
        client, client.http.build_request("POST", client.path, json=message, headers=sent)
    )


def _reader(client: WireClient, request: httpx.Request) -> StreamReader:
    request.extensions["timeout"] = httpx.Timeout(60).as_dict()
    # A client of its own: closing one stream must not disturb another.
    http = httpx.Client(base_url=client.http.base_url, trust_env=False)
    return StreamReader(http, request)
