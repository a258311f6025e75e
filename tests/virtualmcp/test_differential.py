"""A transparent Virtual MCP answers as its upstream does, but for what is documented."""

import json
from typing import Any

import httpx
import pytest

from tests.fakes.asgi_server import serve
from tests.fakes.mcp_catalogue import tool
from tests.fakes.mcp_upstream import FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp.differential_corpus import DIFFERENCES, ERAS, LEGACY, META, Case, corpus
from tests.virtualmcp.express_client import CountingLane
from upstreams.revisions import Era
from virtualmcp import rate_limits
from virtualmcp.routing import method_table
from virtualmcp.transport import express_lane, resource_subscriptions

CASES = corpus()
# What is mirrored in headers is checked each time; what is written oddly is read by the parser.
OFF_THE_LANE = {
    ("modern", "call regional"),
    ("legacy", "call regional"),
    ("modern", "mirrored argument"),
    *((era, "white space all round") for era in ERAS),
}
ON_THE_LANE = ("tools/call", "resources/read")


@pytest.fixture
def lane(monkeypatch):
    """The express lane, patient enough for a busy machine."""
    monkeypatch.setattr(express_lane, "WAIT_SECONDS", 10.0)
    return CountingLane()


@pytest.fixture
def gateway(endpoint, transactional_db, lane):
    with serve(endpoint, http=lane.connection_class()) as base:
        yield base


@pytest.fixture
def both(ada, make_virtual_mcp, make_token, http):
    """Return a function that sends a case both ways: two answers, two requests upstream saw."""
    token = make_token(ada, "plain-modern"), make_token(ada, "plain-legacy")
    fakes = {era: FakeUpstream(era=era) for era in ERAS}
    with fakes["modern"].serve(), fakes["legacy"].serve(), httpx.Client(timeout=PATIENCE) as direct:
        ways: dict[str, Any] = {}
        for era, bearer in zip(ERAS, token, strict=True):
            fake = fakes[era]
            fake.tools.append(tool("mirror", "Say what came", {}))
            make_virtual_mcp(f"plain-{era}", {era: fake.url})
            headers = {"authorization": f"Bearer {bearer}"}
            ways[era] = (
                fake,
                Way(direct, fake.url, {}, era),
                Way(http, f"/v1/mcp/plain-{era}", headers, era),
            )

        def send(case: Case):
            fake, straight, through = ways[case.era]
            answers, seen = [], []
            for way in (straight, through):
                before = len(fake.requests)
                answers.append(way.send(case))
                asked = [r for r in fake.requests[before:] if isinstance(r.message, dict)]
                sent = [r for r in asked if r.message.get("method") == case.method]
                seen.append(sent[-1] if sent else None)
            return answers, seen

        yield send


class Way:
    """One way to the upstream, with a session where the era has them."""

    def __init__(self, client: httpx.Client, url: str, headers: dict[str, str], era: str) -> None:
        self.client, self.url, self.headers = client, url, headers
        self.session = ""
        if era == "legacy":
            self.session = self.open()

    def open(self) -> str:
        """Initialize."""
        info = '"capabilities":{},"clientInfo":{"name":"w","version":"1"}'
        params = f'{{"protocolVersion":"{LEGACY}",{info}}}'
        headers = {"mcp-session-id": None, "mcp-protocol-version": None}
        answer = self.post(Case("open", "legacy", "initialize", params, headers=headers))
        return answer.headers["mcp-session-id"]

    def post(self, case: Case) -> httpx.Response:
        """Send a case's message."""
        headers = {**case.all_headers(self.session), **self.headers}
        with self.client.stream(
            "POST", self.url, content=case.message(), headers=headers
        ) as answer:
            if case.method == "subscriptions/listen":
                # It has no end: the acknowledgement is what is compared.
                lines = answer.iter_lines()
                first = next(line for line in lines if line.startswith("data:"))
                answer._content = first.encode()
            else:
                answer.read()
            return answer

    def send(self, case: Case) -> tuple[int, list[Any]]:
        """Return the status and the messages of the answer."""
        answer = self.post(case)
        texts = [answer.text] if answer.content else []
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            texts = [line[5:] for line in answer.text.split("\n") if line.startswith("data:")]
        # Numbers keep their spelling: 1 is not 1.0, and no digit may be lost.
        read = [json.loads(t, parse_float=lambda s: ("decimal", s)) for t in texts if t.strip()]
        return answer.status_code, [_plain(message) for message in read]


def _plain(message: Any) -> Any:
    """Take out what is the gateway's own in every answer: its signature and its caching hints."""
    result = message.get("result") if isinstance(message, dict) else None
    if isinstance(result, dict):
        meta = result.get("_meta")
        if isinstance(meta, dict):
            meta.pop(f"{META}serverInfo", None)
            if not meta:
                del result["_meta"]
        if "ttlMs" in result:
            result["ttlMs"] = "some"
    params = message.get("params") if isinstance(message, dict) else None
    if isinstance(params, dict) and "progress" in params:
        params["progress"] = str(params["progress"])
    return message


def _found(case: Case, answers: list[tuple[int, list[Any]]], reached: bool) -> set[str]:
    """Return by which documented differences two answers come apart; "more" for any other.

    ``reached`` tells whether the request came to the upstream through the gateway.
    """
    (status, straight), (status_through, through) = answers
    found = set()
    if straight == through:
        return (
            {"status"}
            if status != status_through and status_through == 200
            else (set() if status == status_through else {"own"})
        )
    if not straight or not through:
        return {"more"}
    was, now = straight[-1], through[-1]
    if b'\\ud83d"' in case.message() and now["error"]["code"] == -32700:
        return {"half"}
    if "jsonrpc" not in now and status == status_through == 404:
        return {"words"}
    if "result" in was and "result" in now:
        opening = "supportedVersions" in was["result"] or "protocolVersion" in was["result"]
        return {"identity"} if opening else {"more"}
    if was.get("result", {}).get("resultType") == "input_required":
        return {"undeclared"} if now["error"]["code"] == -32021 else {"more"}
    if "result" in was and "error" in now and not reached:
        return {"own"}
    if "error" not in was or "error" not in now or was.get("id") != now.get("id"):
        return {"more"}
    if was["error"]["code"] != now["error"]["code"]:
        found.add("code")
        original = now["error"].get("data")
        original = original if isinstance(original, dict) else {}
        kept = original.get("code") == was["error"]["code"] and original.get("data") == was[
            "error"
        ].get("data")
        mapped = (was["error"]["code"], now["error"]["code"]) == (-32002, -32602)
        if not (kept if now["error"]["code"] == -32603 else mapped):
            found.add("more")
    elif was["error"] != now["error"]:
        found.add("words")
    if status != status_through:
        found.add("status" if status_through == 200 else "own")
    return found


def _params(seen: Any) -> Any:
    """Return the params an upstream saw, without the progress token, which is ours."""
    params = json.loads(seen.body, parse_float=lambda s: ("decimal", s)).get("params")
    if isinstance(params, dict) and isinstance(params.get("_meta"), dict):
        params["_meta"].pop("progressToken", None)
        if not params["_meta"]:
            del params["_meta"]
    return params


def test_there_are_enough_cases_and_each_has_a_name_of_its_own():
    assert len(CASES) >= 200
    assert len({(case.era, case.name) for case in CASES}) == len(CASES)
    assert {case.era for case in CASES} == set(ERAS)
    assert {name for case in CASES for name in case.differs} == set(DIFFERENCES)


def test_every_method_of_each_era_is_asked():
    asked = {era: {case.method for case in CASES if case.era == era} for era in ERAS}
    for method in method_table._METHODS:
        assert method in asked["modern"]
        assert method in asked["legacy"] or not method_table.known(method, Era.LEGACY)
    assert asked["modern"] >= {"server/discover", "subscriptions/listen"}
    assert asked["legacy"] >= {
        "initialize",
        "ping",
        "logging/setLevel",
        *resource_subscriptions.METHODS,
    }


def test_answers_and_what_the_upstream_sees_are_equal_but_for_what_is_documented(
    both, lane, monkeypatch
):
    monkeypatch.setattr(rate_limits, "enter", lambda user_id: True)
    wrong, off = [], set()
    for case in CASES:
        answers, seen = both(case)
        if case.method in ON_THE_LANE:
            # The connection knows the head now, and where the call leads is known at the latest
            # after what a call makes the gateway read.
            began, first = lane.began, answers[1]
            for _ in range(2):
                answers, seen = both(case)
                if answers[1] != first:
                    wrong.append((case.era, case.name, "on the lane", first, answers[1]))
                if lane.began > began or seen[1] is None:
                    break
            else:
                off.add((case.era, case.name))
        found = _found(case, answers, seen[1] is not None)
        if found != set(case.differs):
            wrong.append((case.era, case.name, sorted(found), case.differs, answers))
        if all(seen) and _params(seen[0]) != _params(seen[1]):
            wrong.append((case.era, case.name, "params", _params(seen[0]), _params(seen[1])))
    shown = "\n".join(str(one)[:600] for one in wrong)
    assert not wrong, f"{len(wrong)} of {len(CASES)} come apart:\n{shown}"
    assert off == OFF_THE_LANE
