"""Clients that answer questions, of both eras, on any node of a gateway."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.virtualmcp.wire_client import META, WireClient, modern_meta

EVERYTHING: dict[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}},
    "roots": {},
}
REPLIES: dict[str, Any] = {
    "elicitation/create": {"action": "accept", "content": {"answer": "Ada"}},
    "sampling/createMessage": {
        "role": "assistant",
        "content": {"type": "text", "text": "said"},
        "model": "m",
    },
    "roots/list": {"roots": [{"uri": "file:///work", "name": "work"}]},
}


def question(method: str, **params: Any) -> dict[str, Any]:
    """Return a question as the fake upstream's ``interview`` takes it."""
    return {"method": method, "params": params}


def form(message: str, **more: Any) -> dict[str, Any]:
    """Return a question for one text."""
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    return question("elicitation/create", message=message, requestedSchema=schema, **more)


SAMPLE = question(
    "sampling/createMessage",
    messages=[{"role": "user", "content": {"type": "text", "text": "hi"}}],
    maxTokens=5,
)
ROOTS = question("roots/list")


@dataclass
class Answering:
    """A client that keeps what it was asked and answers from ``replies``.

    ``elsewhere`` are the nodes to which answers and retries go, in turn; none means the same one.
    """

    client: WireClient
    era: str
    elsewhere: list[httpx.Client] = field(default_factory=list)
    replies: dict[str, Any] = field(default_factory=lambda: dict(REPLIES))
    asked: list[dict[str, Any]] = field(default_factory=list)
    notices: list[dict[str, Any]] = field(default_factory=list)
    capabilities: dict[str, Any] = field(default_factory=lambda: dict(EVERYTHING))

    def call(self, name: str, arguments: dict[str, Any] | None = None, **meta: Any) -> Any:
        """Call a tool to its end; returns the last message."""
        params = {"name": name, "arguments": arguments or {}}
        if self.era == "legacy":
            return self._stateful({**params, "_meta": meta} if meta else params)
        return self._stateless(params, meta)

    # Stateful --------------------------------------------------------------------------------
    @contextlib.contextmanager
    def stream(self, params: dict[str, Any], id: Any = "call") -> Iterator[Iterator[Any]]:
        """Begin a call; yields its messages as they come."""
        message = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
        headers = self.client.headers(**self.client.session_headers())
        with self.client.http.stream(
            "POST", self.client.path, content=json.dumps(message).encode(), headers=headers
        ) as response:
            yield events_of(response)

    def respond(self, asked: dict[str, Any], **outcome: Any) -> httpx.Response:
        """Answer a question, at the next node."""
        outcome = outcome or {"result": self.replies[asked["method"]]}
        return self.post({"jsonrpc": "2.0", "id": asked["id"], **outcome})

    def post(self, message: dict[str, Any]) -> httpx.Response:
        """Send a message of the session to the next node."""
        headers = self.client.headers(**self.client.session_headers())
        return self._next_node().post(
            self.client.path, content=json.dumps(message).encode(), headers=headers
        )

    def _stateful(self, params: dict[str, Any]) -> Any:
        with self.stream(params) as arriving:
            for message in arriving:
                if "method" not in message:
                    return message
                if "id" in message:
                    self.asked.append(message)
                    assert self.respond(message).status_code == 202
                else:
                    self.notices.append(message)
        raise AssertionError("the stream ended without an answer")

    # Stateless -------------------------------------------------------------------------------
    def send(self, params: dict[str, Any], http: httpx.Client | None = None, **meta: Any) -> Any:
        """Send one request; returns its last message."""
        about = modern_meta(**{META + "clientCapabilities": self.capabilities}, **meta)
        was, self.client.http = self.client.http, http or self._next_node()
        try:
            response = self.client.modern("tools/call", params, meta=about)
        finally:
            self.client.http = was
        if not response.headers["content-type"].startswith("text/event-stream"):
            return response.json()
        *notices, last = [json.loads(line[6:]) for line in data_lines(response.text.splitlines())]
        self.notices += notices
        return last

    def retry_of(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """Return the params of the retry that answers everything."""
        answers = {}
        for key, one in result.get("inputRequests", {}).items():
            self.asked.append(one)
            answers[key] = self.replies[one["method"]]
        return {**params, "inputResponses": answers, "requestState": result["requestState"]}

    def _stateless(self, params: dict[str, Any], meta: dict[str, Any]) -> Any:
        sent = params
        for _ in range(10):
            message = self.send(sent, **meta)
            if message.get("result", {}).get("resultType") != "input_required":
                return message
            sent = self.retry_of(params, message["result"])
        raise AssertionError("asked for ever")

    def _next_node(self) -> httpx.Client:
        if not self.elsewhere:
            return self.client.http
        self.elsewhere.append(self.elsewhere.pop(0))
        return self.elsewhere[0]


def data_lines(lines: Any) -> Iterator[str]:
    """Yield the lines with data of an event stream."""
    # A stream of the newest stateful revision begins with an event without data.
    return (line for line in lines if line.startswith("data: ") and len(line) > 6)


def events_of(response: httpx.Response) -> Iterator[Any]:
    """Yield the messages of an answer in either form."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        yield json.loads(response.read())
        return
    for line in data_lines(response.iter_lines()):
        yield json.loads(line[6:])


Make = Callable[..., Answering]
