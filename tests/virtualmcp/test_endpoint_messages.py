"""What may come on the stream of a call, and what may not, in every cell (a21, a42)."""

import pytest

from tests.fakes import mcp_catalogue
from tests.virtualmcp.wire_client import META, messages, modern_meta

ERAS = ("modern", "legacy")
ABLE = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
EVENTS = "text/event-stream"


def called(client, era, name, arguments=None, **meta):
    """Call a tool, taking events only; returns every message of the answer."""
    params = {"name": name, "arguments": arguments or {}}
    if era == "legacy":
        return messages(client.legacy("tools/call", {**params, "_meta": meta}, accept=EVENTS))
    stated = modern_meta(**{META + "clientCapabilities": ABLE, **meta})
    return messages(client.modern("tools/call", params, meta=stated, accept=EVENTS))


def test_a_stateless_client_is_asked_by_a_result_and_never_by_a_request(board, upstream):
    answer = called(board, "modern", "ask", {"question": "Who?"}, progressToken=1)
    assert [one for one in answer if "method" in one and "id" in one] == []
    assert answer[-1]["result"]["resultType"] == "input_required"
    (asked,) = answer[-1]["result"]["inputRequests"].values()
    assert asked["method"] == "elicitation/create"
    assert asked["params"]["message"] == "Who?"
    # Nor is anything but requests and notices posted to an upstream meanwhile (b6).
    posts = [seen.message for seen in upstream.requests if seen.http == "POST"]
    assert [message for message in posts if "method" not in message] == []


@pytest.mark.parametrize("era", ERAS)
def test_progress_only_rises_and_only_under_a_living_token(board, era, monkeypatch):
    async def uneven(call):
        token = call.progress_token
        for step in (1, 3, 2, 3, "four", None, 4.5, 4):
            await call.emit("notifications/progress", {"progressToken": token, "progress": step})
        for other in ("mine", 7, None):
            await call.emit("notifications/progress", {"progressToken": other, "progress": 99})
        return mcp_catalogue.said("done")

    monkeypatch.setitem(mcp_catalogue.TOOLS, "slow", uneven)
    *notices, answer = called(board, era, "slow", progressToken="mine")
    assert [one["params"]["progress"] for one in notices] == [1, 3, 4.5]
    assert {one["params"]["progressToken"] for one in notices} == {"mine"}
    assert answer["result"]["content"][0]["text"] == "done"
    # Who gave no token hears of no progress.
    assert [one.get("method") for one in called(board, era, "slow")] == [None]
