"""Calls to stateful upstreams: sessions, questions, cancellation, resumption."""

import asyncio
import json
import time

import pytest

from tests.fakes.mcp_catalogue import EXACT
from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.fakes.raw_upstream import RawUpstream, answer, stream
from tests.patience import PATIENCE, once_below
from tests.upstreams.relaying import (
    NO_CREDENTIAL,
    RecordingSink,
    bearer,
    facts_for,
    resumable,
    text_of,
    tool_call,
)
from upstreams import legacy_exchange, legacy_sessions, mcp_client
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.errors import (
    CredentialRefused,
    UpstreamAnswerInvalid,
    UpstreamIncompatible,
    UpstreamTimeout,
)


@pytest.fixture(autouse=True)
async def forgotten_afterwards():
    mcp_client.forget()
    yield
    await mcp_client.close_all()


async def call(upstream, request, sink=None, credential=NO_CREDENTIAL, **changes):
    facts = facts_for(upstream.url, era="legacy", **changes)
    return await mcp_client.call(facts, credential, request, sink or SilentSink())


def legacy(**knobs):
    return FakeUpstream(era="legacy", **knobs)


# Sessions -----------------------------------------------------------------------------------
@pytest.mark.parametrize("answers", ["json", "sse"])
async def test_fifty_calls_at_once_open_one_session(answers):
    with legacy(answers=answers).serve() as upstream:
        got = await asyncio.gather(
            *(call(upstream, tool_call("echo", {"text": str(n)})) for n in range(50))
        )
        assert [text_of(outcome) for outcome in got] == [str(n) for n in range(50)]
        methods = [seen.message.get("method") for seen in upstream.requests]
        assert methods[:2] == ["initialize", "notifications/initialized"]
        assert methods[2:] == ["tools/call"] * 50
        assert len(upstream.initialized) == 1
        for seen in upstream.requests[1:]:
            assert seen.headers["mcp-session-id"] == upstream.initialized[0]
            assert seen.headers["mcp-protocol-version"] == "2025-11-25"
            assert "mcp-method" not in seen.headers
            assert seen.headers["accept"] == "application/json, text/event-stream"
        ids = [seen.message["id"] for seen in upstream.requests if "id" in seen.message]
        assert len(set(ids)) == len(ids) == 51


async def test_a_session_is_not_shared_between_people_credentials_or_abilities():
    able = ClientFacts("2025-11-25", b'{"elicitation":{}}', b"", "able")
    requests = [
        (tool_call("echo"), NO_CREDENTIAL),
        (tool_call("echo", principal="person-2"), NO_CREDENTIAL),
        (tool_call("echo"), bearer("t", "grant-2")),
        (tool_call("echo", facts=able), NO_CREDENTIAL),
    ]
    with legacy().serve() as upstream:
        for request, credential in requests * 2:
            await call(upstream, request, credential=credential)
        assert len(upstream.initialized) == 4


async def test_a_refreshed_token_goes_on_in_the_same_session():
    with legacy().serve() as upstream:
        await call(upstream, tool_call("echo"), credential=bearer("old"))
        await call(upstream, tool_call("echo"), credential=bearer("new"))
        assert len(upstream.initialized) == 1
        assert upstream.last_headers("tools/call")["authorization"] == "Bearer new"


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        (b"", {}),
        (b"{}", {}),
        (b'{"roots":{"listChanged":true,"x":1},"tasks":{}}', {"roots": {"x": 1}}),
        (
            b'{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"vendor":{"a":null}}',
            {
                "elicitation": {"form": {}, "url": {}},
                "sampling": {"tools": {}},
                "vendor": {"a": None},
            },
        ),
    ],
)
async def test_exactly_what_the_client_can_do_is_declared(declared, sent):
    client = ClientFacts("2026-07-28", declared, b'{"name":"ChatGPT","version":"9"}', "f")
    with legacy().serve() as upstream:
        await call(upstream, tool_call("echo", facts=client))
        params = upstream.calls("initialize")[0]["params"]
        assert params["capabilities"] == sent
        assert (params["protocolVersion"], params["clientInfo"]["title"]) == (
            "2025-11-25",
            "ChatGPT",
        )
        assert params["clientInfo"]["name"] == "mcp-gateway"


async def test_servers_without_session_ids_are_served():
    with legacy(sessions=False).serve() as upstream:
        for _ in range(3):
            await call(upstream, tool_call("echo"))
        assert len(upstream.initialized) == 1
        assert "mcp-session-id" not in upstream.last_headers("tools/call")


async def test_a_lost_session_is_opened_anew_and_the_call_made_once_more():
    with legacy().serve() as upstream:
        await call(upstream, tool_call("echo"))
        upstream.forget_sessions()
        assert text_of(await call(upstream, tool_call("echo", {"text": "again"}))) == "again"
        assert len(upstream.initialized) == 2
        assert len(upstream.calls("tools/call")) == 3


async def test_a_server_that_says_400_for_a_lost_session_is_understood():
    lost = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID"}}'
    with legacy().serve() as upstream:
        await call(upstream, tool_call("echo"))
        upstream.script.append(Canned(400, lost))
        assert text_of(await call(upstream, tool_call("echo", {"text": "again"}))) == "again"
        assert len(upstream.initialized) == 2


async def test_a_server_that_never_knows_its_sessions_is_asked_twice_and_no_more():
    gone = Canned(404, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"gone"}}')
    with legacy(canned={"tools/call": gone}).serve() as upstream:
        outcome = await call(upstream, tool_call("echo"))
        assert json.loads(outcome.error)["message"] == "gone"
        assert len(upstream.calls("tools/call")) == 2
        assert len(upstream.initialized) == 2


@pytest.mark.parametrize("revision", ["2025-11-25", "2025-06-18", "2025-03-26"])
async def test_the_revision_the_server_picks_is_spoken(revision):
    with legacy(revision=revision).serve() as upstream:
        assert text_of(await call(upstream, tool_call("echo", {"text": "x"}))) == "x"
        sent = upstream.last_headers("tools/call").get("mcp-protocol-version", "")
        assert sent == ("" if revision == "2025-03-26" else revision)


async def test_a_revision_nobody_knows_is_incompatible():
    with legacy(revision="1999-01-01").serve() as upstream, pytest.raises(UpstreamIncompatible):
        await call(upstream, tool_call("echo"))


@pytest.mark.parametrize("session_id", ["a b", "x" * 2000, "\x7f"])
async def test_a_session_id_that_is_no_visible_ascii_is_refused(session_id):
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x"}}

    def script(request):
        request_id = json.loads(request.partition(b"\r\n\r\n")[2]).get("id")
        body = json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}).encode()
        return answer(body, Mcp_Session_Id=session_id)

    with RawUpstream(script) as upstream, pytest.raises(UpstreamAnswerInvalid):
        await call(upstream, tool_call("echo"))


async def test_a_refused_login_while_opening_is_a_refused_credential():
    with legacy(tokens={"good"}).serve() as upstream:
        with pytest.raises(CredentialRefused):
            await call(upstream, tool_call("echo"), credential=bearer("bad"))
        await call(upstream, tool_call("echo"), credential=bearer("good"))


async def test_idle_sessions_and_all_sessions_at_the_end_are_deleted(monkeypatch):
    with legacy().serve() as upstream:
        await call(upstream, tool_call("echo"))
        monkeypatch.setattr(legacy_sessions, "IDLE_SECONDS", -1.0)
        legacy_sessions.sessions()._end_idle()
        assert await upstream.seen(lambda u: len(u.deleted) == 1)
        await call(upstream, tool_call("echo"))
        await mcp_client.close_all()
        assert upstream.deleted == upstream.initialized


async def test_the_least_recently_used_session_makes_room(monkeypatch):
    monkeypatch.setattr(legacy_sessions, "MOST_SESSIONS", 2)
    with legacy().serve() as upstream:
        for person in ("a", "b", "a", "c", "a"):
            await call(upstream, tool_call("echo", principal=person))
        assert await upstream.seen(lambda u: len(u.deleted) == 1)
        assert len(upstream.initialized) == 3
        assert upstream.deleted == [upstream.initialized[1]]


async def test_opening_a_session_survives_the_caller_who_began_it():
    slow = RecordingSink()
    with legacy().serve() as upstream:
        first = asyncio.create_task(call(upstream, tool_call("echo"), slow))
        second = asyncio.create_task(call(upstream, tool_call("echo", {"text": "x"})))
        async with asyncio.timeout(PATIENCE):
            while not legacy_sessions.sessions()._opening:  # noqa: ASYNC110, no turn may be missed
                await asyncio.sleep(0)
        first.cancel()
        assert text_of(await second) == "x"
        assert len(upstream.initialized) == 1


# Calls --------------------------------------------------------------------------------------
async def test_modern_members_stay_at_home_and_unknown_ones_travel():
    params = (
        b'{"name":"exact","arguments":{"big":36893488147419103232},"_meta":{"traceparent":"00",'
        b'"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":3,'
        b'"io.modelcontextprotocol/clientInfo":{},"io.modelcontextprotocol/logLevel":"info",'
        b'"io.modelcontextprotocol/clientCapabilities":{}}}'
    )
    with legacy().serve() as upstream:
        request = tool_call("exact", params=params, params_are_modern=True)
        outcome = await call(upstream, request)
        assert (outcome.result, outcome.modern) == (EXACT, False)
        seen = upstream.calls("tools/call")[0]["params"]
        assert seen == {
            "name": "exact",
            "arguments": {"big": 2**65},
            "_meta": {"traceparent": "00"},
        }


async def test_progress_comes_back_under_the_clients_own_token():
    sink = RecordingSink()
    with legacy().serve() as upstream:
        await call(upstream, tool_call("slow", {"steps": 2}, progress_token=b"7"), sink)
        assert [p["progressToken"] for m, p in sink.notified if "progress" in m] == [7, 7]


async def test_log_messages_reach_only_the_calls_that_want_them():
    quiet, talkative = RecordingSink(), RecordingSink()
    with legacy().serve() as upstream:
        arguments = {"level": "warning", "text": "hm"}
        await call(upstream, tool_call("log", arguments, log_level="info"), talkative)
        await call(upstream, tool_call("log", arguments, log_level="error"), quiet)
        assert [params["data"] for _, params in talkative.notified] == ["hm"]
        assert quiet.notified == []
        # Without a level, who reads the answer knows what such a client gets.
        await call(upstream, tool_call("log", arguments), quiet)
        assert len(quiet.notified) == 1
        assert [m["params"]["level"] for m in upstream.calls("logging/setLevel")] == ["info"]


async def test_a_notice_on_the_stream_of_a_call_is_passed_on():
    changed = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
    sink = RecordingSink()
    with resumable([changed], final=True) as upstream:
        await call(upstream, tool_call("x"), sink)
        assert sink.notified == [("notifications/tools/list_changed", {})]


OLDEST = {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {"name": "x"}}


@pytest.mark.parametrize("form", ["document", "events"])
async def test_servers_of_2025_03_26_may_answer_with_arrays(form):
    """They may put several messages into one, and a client of that revision understands (a27)."""

    def script(request):
        message = json.loads(request.partition(b"\r\n\r\n")[2])
        if message["method"] != "tools/call":
            result = {"jsonrpc": "2.0", "id": message.get("id"), "result": OLDEST}
            known = message["method"] == "initialize"
            return answer(json.dumps(result).encode()) if known else answer(status="202 Accepted")
        token = message["params"]["_meta"]["progressToken"]
        step = {"progressToken": token, "progress": 1}
        result = {"content": [{"type": "text", "text": "together"}]}
        several = [
            {"jsonrpc": "2.0", "id": "of another call", "result": {}},
            {"jsonrpc": "2.0", "id": message["id"], "result": result},
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": step},
        ]
        data = json.dumps(several).encode()
        return answer(data) if form == "document" else stream(b"data: " + data + b"\n\n")

    sink = RecordingSink()
    with RawUpstream(script) as upstream:
        assert (
            text_of(await call(upstream, tool_call("x", progress_token=b"1"), sink)) == "together"
        )
    assert [one["progress"] for _, one in sink.notified] == ([1] if form == "events" else [])


# Ends ---------------------------------------------------------------------------------------
async def test_a_cancelled_call_is_cancelled_at_the_upstream_within_a_second():
    with legacy().serve() as upstream:

        async def cancelled() -> float:
            calls = upstream.events.count("cancelled:hang") + 1
            task = asyncio.create_task(call(upstream, tool_call("hang")))
            assert await upstream.seen(lambda u: u.events.count("started:hang") == calls)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await upstream.seen(lambda u: u.events.count("cancelled:hang") == calls)
            return time.monotonic() - started

        await once_below(1.0, cancelled)
        sent = upstream.calls("notifications/cancelled")[0]["params"]
        assert sent["requestId"] == upstream.calls("tools/call")[0]["id"]


async def test_an_opening_that_nobody_waits_for_any_more_is_not_cancelled():
    with legacy().serve() as upstream:
        upstream.canned["initialize"] = Canned(503, delay=1.0)
        task = asyncio.create_task(call(upstream, tool_call("echo")))
        assert await upstream.seen(lambda u: bool(u.calls("initialize")))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await mcp_client.close_all()
        assert {seen.message.get("method") for seen in upstream.requests} == {"initialize"}


async def test_a_call_that_takes_too_long_is_cancelled_too():
    with legacy().serve() as upstream:
        with pytest.raises(UpstreamTimeout):
            await call(upstream, tool_call("hang", timeout=0.3))
        assert await upstream.seen(lambda u: "cancelled:hang" in u.events)


@pytest.mark.parametrize("resumes", [1, 3])
async def test_a_stream_the_upstream_ends_early_is_resumed_from_its_last_event(resumes):
    with resumable([], final=False, resumes=resumes) as upstream:
        assert text_of(await call(upstream, tool_call("x"))) == "resumed"
        gets = [seen for seen in upstream.requests if seen.startswith(b"GET")]
        assert len(gets) == resumes
        assert b"\r\nLast-Event-ID: e1\r\n" in gets[0]
        assert b"\r\nMcp-Session-Id: s1\r\n" in gets[0]


async def test_the_pause_an_upstream_asks_for_is_kept_before_resuming():
    with resumable([], final=False, retry=1_600) as upstream:
        began = time.monotonic()
        assert text_of(await call(upstream, tool_call("x"))) == "resumed"
        assert time.monotonic() - began >= 1.6


async def test_resuming_has_an_end(monkeypatch):
    monkeypatch.setattr(legacy_exchange, "MOST_RESUMES", 3)
    with resumable([], final=False, resumes=100) as upstream:
        with pytest.raises(UpstreamAnswerInvalid):
            await call(upstream, tool_call("x"))
        assert len([seen for seen in upstream.requests if seen.startswith(b"GET")]) == 3


async def test_the_opening_is_that_of_the_persons_session():
    with legacy().serve() as upstream:
        facts = facts_for(upstream.url, era="legacy")
        opened = await mcp_client.opening(facts, NO_CREDENTIAL, ClientFacts(), principal="person-1")
        assert json.loads(opened)["serverInfo"]["name"] == "fake-upstream"
        await call(upstream, tool_call("echo"))
        assert len(upstream.initialized) == 1
        listed = await call(upstream, CanonicalCall(method="tools/list", principal="person-1"))
        assert len(json.loads(listed.result)["tools"]) == len(upstream.tools)


async def test_a_client_that_fails_while_it_is_told_something_ends_the_call_at_the_upstream():
    class Gone(RecordingSink):
        async def notify(self, method, params):
            raise ConnectionResetError

    with legacy().serve() as upstream:
        request = tool_call("slow", {"steps": 100, "pause": 0.05}, progress_token=b"1")
        with pytest.raises(ConnectionResetError):
            await call(upstream, request, Gone())
        assert await upstream.seen(lambda u: bool(u.calls("notifications/cancelled")))
