"""What the tests of the data path share: facts of an upstream, a credential, a recording sink."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.raw_upstream import RawUpstream, Step, answer, stream
from tests.patience import PATIENCE
from upstreams.canonical_call import CanonicalCall, Outcome, QuestionNotPossible
from upstreams.credentials import Credential
from upstreams.upstream_facts import UpstreamFacts

NO_CREDENTIAL = Credential(id="none", headers=(), query=b"", expires_at=None)


def bearer(token: str, credential_id: str = "grant-1") -> Credential:
    """Return a credential with a bearer token."""
    headers = ((b"Authorization", b"Bearer " + token.encode()),)
    return Credential(id=credential_id, headers=headers, query=b"", expires_at=None)


def facts_for(url: str, **changes: Any) -> UpstreamFacts:
    """Return the facts of an upstream at ``url``."""
    known: dict[str, Any] = {
        "id": 1,
        "key": "fake",
        "title": "Fake",
        "url": url,
        "enabled": True,
        "era": "auto",
        "detected_era": "",
        "detected_revision": "",
        "credential_kind": "none",
        "credential_placement": "header",
        "credential_name": "",
        "credential_prefix": "",
        "private_network": "",
        "call_timeout": 10.0,
        "list_timeout": 5.0,
    }
    return UpstreamFacts(**(known | changes))


def tool_call(name: str, arguments: dict[str, Any] | None = None, **more: Any) -> CanonicalCall:
    """Return a tools/call as the rooms above hand it over."""
    params = json.dumps({"name": name, "arguments": arguments or {}}).encode()
    more.setdefault("principal", "person-1")
    more.setdefault("params", params)
    return CanonicalCall(method="tools/call", name=name, **more)


def text_of(outcome: Outcome) -> str:
    """Return the text of a tool's result."""
    assert not outcome.error, outcome.error
    return str(json.loads(outcome.result)["content"][0]["text"])


async def until(what: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Wait until ``what`` holds on this loop; fails after ``timeout`` seconds."""
    async with asyncio.timeout(timeout):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class RecordingSink:
    """Keeps what was passed on; answers questions with ``answers`` in turn."""

    answers: list[Outcome] = field(default_factory=list)
    notified: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    arrived: list[bytes] = field(default_factory=list)

    async def notify(self, method: str, params: bytes) -> None:
        """Record a notification."""
        self.notified.append((method, json.loads(params or b"{}")))

    async def ask(self, method: str, params: bytes, origin: object = None) -> Outcome:
        """Record a question and give the next answer."""
        self.asked.append((method, json.loads(params)))
        if not self.answers:
            raise QuestionNotPossible(method)
        return self.answers.pop(0)

    async def answered(self, question_id: bytes) -> None:
        """Record that the upstream has an answer."""
        self.arrived.append(question_id)

    async def resumable(self, origin: object) -> None:
        """Of no interest."""


def replying(make: Callable[[str], bytes]) -> Callable[[bytes], list[Step]]:
    """Return a script that answers with what ``make(id)`` returns as body."""
    return lambda request: answer(make(json.loads(request.partition(b"\r\n\r\n")[2])["id"]))


def streaming(*messages: bytes) -> Callable[[bytes], list[Step]]:
    """Return a script of events; ``%s`` in a message stands for the request's id."""

    def script(request: bytes) -> list[Step]:
        request_id = json.loads(request.partition(b"\r\n\r\n")[2])["id"].encode()
        return stream(*(b"data: " + m.replace(b"%s", request_id) + b"\n\n" for m in messages))

    return script


RESULT = b'{"jsonrpc":"2.0","id":"%s","result":{"ok":1}}'


def resumable(
    pieces: Sequence[bytes | float], *, final: bool, resumes: int = 1, retry: int = 20
) -> RawUpstream:
    """Serve a session whose call streams ``pieces``; its result comes after ``resumes`` GETs, for
    the first of which it asks for a pause of ``retry`` milliseconds."""
    opened = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x"}}
    state: dict[str, Any] = {"id": "", "gets": 0}

    def script(request: bytes) -> Sequence[Step]:
        if request.startswith(b"GET"):
            state["gets"] += 1
            if state["gets"] < resumes:
                return stream(b"id: e2\nretry: 10\ndata:\n\n")
            return stream(result_of(state["id"]))
        message = json.loads(request.partition(b"\r\n\r\n")[2])
        if message.get("method") == "initialize":
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": opened}).encode()
            return answer(body, Mcp_Session_Id="s1")
        if message.get("method") != "tools/call":
            return answer(b"", status="202 Accepted")
        state["id"] = message["id"]
        events = [p if isinstance(p, float) else b"data: " + p + b"\n\n" for p in pieces]
        if final:
            return stream(*events, result_of(message["id"]))
        return stream(b"id: e1\nretry: %d\ndata:\n\n" % retry, *events)

    return RawUpstream(script)


def result_of(request_id: str) -> bytes:
    """Return the last event of a resumable stream."""
    result = {"content": [{"type": "text", "text": "resumed"}]}
    message = {"jsonrpc": "2.0", "id": request_id, "result": result}
    return b"id: e9\ndata: " + json.dumps(message).encode() + b"\n\n"
