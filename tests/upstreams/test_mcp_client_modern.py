"""Calls to stateless upstreams: what goes out, what comes back, what is refused."""

import asyncio
import json
import time

import msgspec
import pytest

from tests.fakes.mcp_catalogue import EXACT
from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.fakes.raw_upstream import RawUpstream, answer, stream
from tests.patience import PATIENCE
from tests.upstreams.relaying import (
    NO_CREDENTIAL,
    RESULT,
    RecordingSink,
    bearer,
    facts_for,
    streaming,
    text_of,
    tool_call,
)
from upstreams import (
    call_answer,
    call_gate,
    json_rpc,
    mcp_client,
    result_heads,
    session_opening,
    upstream_era,
)
from upstreams.canonical_call import CanonicalCall, ClientFacts, SilentSink
from upstreams.errors import (
    UpstreamAnswerInvalid,
    UpstreamBusy,
    UpstreamTimeout,
)

PROGRESS = "notifications/progress"


@pytest.fixture(autouse=True)
async def forgotten_afterwards():
    mcp_client.forget()
    yield
    await mcp_client.close_all()


def modern(upstream, **changes):
    return facts_for(upstream.url, era="modern", **changes)


async def call(upstream, request, sink=None, credential=NO_CREDENTIAL, **changes):
    facts = modern(upstream, **changes)
    return await mcp_client.call(facts, credential, request, sink or SilentSink())


# What goes out ------------------------------------------------------------------------------
async def test_the_headers_repeat_the_body():
    with FakeUpstream().serve() as upstream:
        outcome = await call(upstream, tool_call("echo", {"text": "hi"}), credential=bearer("t"))
        assert text_of(outcome) == "hi"
        headers = upstream.last_headers("tools/call")
        assert headers["mcp-protocol-version"] == "2026-07-28"
        assert (headers["mcp-method"], headers["mcp-name"]) == ("tools/call", "echo")
        assert headers["accept"] == "application/json, text/event-stream"
        assert headers["authorization"] == "Bearer t"
        assert "mcp-session-id" not in headers


@pytest.mark.parametrize("name", ["名前", " padded", "a\nb", "=?base64?x?=", "a" * 128, "ü"])
async def test_names_no_header_can_carry_travel_in_base64(name):
    with FakeUpstream().serve() as upstream:
        upstream.tools.append({"name": name, "inputSchema": {"type": "object"}})
        outcome = await call(upstream, tool_call(name))
        assert text_of(outcome).startswith("called ")


async def test_parameter_headers_are_sent_as_given():
    with FakeUpstream().serve() as upstream:
        request = tool_call(
            "regional", {"region": "eu"}, param_headers=(("Mcp-Param-Region", "eu"),)
        )
        assert text_of(await call(upstream, request)) == "eu: None"


async def test_a_parameter_header_that_could_inject_is_an_error():
    with FakeUpstream().serve() as upstream:
        for value in ("a\r\nX: y", "é", "\ud800"):
            request = tool_call("regional", param_headers=(("Mcp-Param-Region", value),))
            with pytest.raises(UpstreamAnswerInvalid):
                await call(upstream, request)
        assert upstream.requests == []


MODERN_PARAMS = (
    b'{"name":"echo", "arguments":{"text":"x","big":36893488147419103232,'
    b'"f":0.1234567890123456789},'
    b'"vendor":null,"_meta":{"vendor/y":{"n":18446744073709551617},"traceparent":"00-1",'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{"x":1}}}'
)


async def test_modern_params_go_out_byte_for_byte():
    with FakeUpstream().serve() as upstream:
        await call(upstream, tool_call("echo", params=MODERN_PARAMS, params_are_modern=True))
        assert b'"params":' + MODERN_PARAMS in upstream.requests[0].body


async def test_a_progress_token_is_replaced_and_nothing_else_changed():
    with FakeUpstream().serve() as upstream:
        params = MODERN_PARAMS.replace(b'"vendor/y"', b'"progressToken":"mine","vendor/y"')
        await call(
            upstream,
            tool_call("echo", params=params, params_are_modern=True, progress_token=b'"mine"'),
        )
        seen = upstream.requests[0]
        assert seen.message["params"]["_meta"].pop("progressToken") == seen.message["id"]
        assert seen.message["params"] == json.loads(MODERN_PARAMS)
        assert b"0.1234567890123456789" in seen.body and b"36893488147419103232" in seen.body


async def test_params_of_a_legacy_client_get_the_modern_members():
    capabilities = (
        b'{"roots":{"listChanged":true},"sampling":{},"elicitation":{},"tasks":{"list":{}},'
        b'"extensions":{"io.modelcontextprotocol/ui":{"a":1}}}'
    )
    client = ClientFacts("2025-11-25", capabilities, b'{"name":"c","version":"1","x":2}', "f")
    with FakeUpstream().serve() as upstream:
        params = b'{"name":"echo","arguments":{},"_meta":{"traceparent":"00","progressToken":5}}'
        await call(upstream, tool_call("echo", params=params, facts=client, log_level="error"))
        assert upstream.requests[0].message["params"]["_meta"] == {
            "traceparent": "00",
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1", "x": 2},
            "io.modelcontextprotocol/logLevel": "error",
            "io.modelcontextprotocol/clientCapabilities": {
                "roots": {},
                "sampling": {},
                "elicitation": {"form": {}},
                "extensions": {"io.modelcontextprotocol/ui": {"a": 1}},
            },
        }


async def test_every_request_has_an_id_of_its_own():
    with FakeUpstream().serve() as upstream:
        await asyncio.gather(*(call(upstream, tool_call("echo")) for _ in range(50)))
        ids = [seen.message["id"] for seen in upstream.requests]
        assert len(set(ids)) == 50
        assert all(isinstance(found, str) and len(found) > 16 for found in ids)
        assert all(isinstance(seen.message, dict) for seen in upstream.requests)
        assert {seen.headers["content-type"] for seen in upstream.requests} == {"application/json"}


# What comes back ----------------------------------------------------------------------------
@pytest.mark.parametrize("answers", ["json", "sse"])
async def test_a_result_comes_back_byte_for_byte(answers):
    with FakeUpstream(answers=answers).serve() as upstream:
        outcome = await call(upstream, tool_call("exact"))
        assert (outcome.result, outcome.error, outcome.modern) == (EXACT, b"", True)


async def test_an_answer_is_parsed_once_and_the_params_not_at_all(monkeypatch):
    parsed = []
    with FakeUpstream().serve() as upstream:
        for module, name in (
            (json_rpc, "_decode_message"),
            (json_rpc, "_decode_members"),
            (result_heads, "_decode_whole_head"),
            (result_heads, "_decode_any_head"),
        ):
            real = getattr(module, name)
            monkeypatch.setattr(
                module, name, lambda raw, real=real, name=name: parsed.append(name) or real(raw)
            )
        await call(
            upstream,
            tool_call(
                "exact", params=MODERN_PARAMS.replace(b"echo", b"exact"), params_are_modern=True
            ),
        )
        assert parsed == ["_decode_whole_head"]


async def test_progress_comes_back_under_the_clients_own_token():
    sink = RecordingSink()
    with FakeUpstream().serve() as upstream:
        outcome = await call(
            upstream, tool_call("slow", {"steps": 3}, progress_token=b'"mine"'), sink
        )
        assert text_of(outcome) == "done"
        assert [method for method, _ in sink.notified] == [PROGRESS] * 3
        assert {params["progressToken"] for _, params in sink.notified} == {"mine"}
        assert [params["message"] for _, params in sink.notified] == ["step 1", "step 2", "step 3"]


async def test_the_first_progress_is_passed_on_before_the_second_is_made():
    class Watching(RecordingSink):
        async def notify(self, method, params):
            await super().notify(method, params)
            assert "finished:slow" not in upstream.events

    with FakeUpstream().serve() as upstream:
        sink = Watching()
        await call(
            upstream, tool_call("slow", {"steps": 2, "pause": 0.2}, progress_token=b"1"), sink
        )
        assert len(sink.notified) == 2


async def test_a_client_that_asked_for_no_progress_gets_none():
    sink = RecordingSink()
    with FakeUpstream().serve() as upstream:
        await call(upstream, tool_call("slow", {"steps": 1}), sink)
        assert sink.notified == []


@pytest.mark.parametrize(
    ("wanted", "passed"), [("", 0), ("debug", 1), ("warning", 1), ("error", 0)]
)
async def test_log_messages_are_passed_on_from_the_wanted_level_up(wanted, passed):
    sink = RecordingSink()
    message = (
        b'{"jsonrpc":"2.0","method":"notifications/message",'
        b'"params":{"level":"warning","data":"x"}}'
    )
    with RawUpstream(streaming(message, RESULT)) as upstream:
        await call(upstream, tool_call("log", log_level=wanted), sink)
        assert len(sink.notified) == passed


async def test_what_does_not_belong_to_the_call_is_ignored():
    sink = RecordingSink()
    others = (
        b'{"jsonrpc":"2.0","id":"somebody-elses","result":{"stolen":1}}',
        b'{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{}}',
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress",'
        b'"params":{"progressToken":"other","progress":1}}',
    )
    late = b'{"jsonrpc":"2.0","id":"%s","result":{"second":1}}'
    with RawUpstream(streaming(*others, RESULT, late)) as upstream:
        outcome = await call(upstream, tool_call("x", progress_token=b"1"), sink)
        assert outcome.result == b'{"ok":1}'
        assert sink.notified == sink.asked == []
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_notice_that_nobody_can_read_costs_no_result(era):
    notices = [
        {"jsonrpc": "2.0", "method": method, "params": params}
        for method in (PROGRESS, "notifications/message", "notifications/cancelled")
        for params in ([], 7, "x", None)
    ]
    opened = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x"}}

    def script(request):
        message = json.loads(request.partition(b"\r\n\r\n")[2])
        if message["method"] != "tools/call":
            body = {"jsonrpc": "2.0", "id": message.get("id"), "result": opened}
            return answer(json.dumps(body).encode())
        result = {"content": [{"type": "text", "text": "kept"}]}
        last = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        pieces = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in [*notices, last]]
        return stream(*pieces)

    sink = RecordingSink()
    request = tool_call("x", progress_token=b"1", log_level="debug")
    with RawUpstream(script) as upstream:
        facts = facts_for(upstream.url, era=era)
        assert text_of(await mcp_client.call(facts, NO_CREDENTIAL, request, sink)) == "kept"
    assert sink.notified == []


async def test_input_required_is_a_result_like_any_other():
    with FakeUpstream().serve() as upstream:
        outcome = await call(upstream, tool_call("ask"))
        assert json.loads(outcome.result)["resultType"] == "input_required"
        params = (
            b'{"name":"ask","arguments":{},"inputResponses":{"q1":{"action":"accept"}},'
            b'"requestState":"state-1"}'
        )
        assert text_of(await call(upstream, tool_call("ask", params=params))).startswith(
            "they said"
        )


@pytest.mark.parametrize("status", [200, 400, 404, 500])
async def test_a_json_rpc_error_is_an_outcome_whatever_the_http_status(status):
    with FakeUpstream().serve() as upstream:
        arguments = {"code": -32050, "message": "no", "data": {"x": 2**70}, "status": status}
        outcome = await call(upstream, tool_call("refuse", arguments))
        assert outcome.result == b""
        assert json.loads(outcome.error) == {"code": -32050, "message": "no", "data": {"x": 2**70}}


# Time, cancellation, crowds -----------------------------------------------------------------
async def test_cancelling_the_task_cancels_the_call_at_the_upstream():
    with FakeUpstream().serve() as upstream:
        task = asyncio.create_task(call(upstream, tool_call("hang")))
        assert await upstream.seen(lambda u: "started:hang" in u.events)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await upstream.seen(lambda u: "cancelled:hang" in u.events)
        # The end of the connection says it; nothing else is posted (b6, b15).
        assert [seen.message["method"] for seen in upstream.requests] == ["tools/call"]


@pytest.mark.parametrize(
    ("era", "module", "limit", "method"),
    [
        ("legacy", session_opening, "OPEN_SECONDS", "initialize"),
        ("auto", upstream_era, "PROBE_SECONDS", "server/discover"),
    ],
)
async def test_an_opening_without_an_answer_ends_at_its_deadline(
    monkeypatch, era, module, limit, method
):
    monkeypatch.setattr(module, limit, 0.3)
    with FakeUpstream(era="modern" if era == "auto" else era).serve() as upstream:
        upstream.canned[method] = Canned(200, delay=PATIENCE)
        facts = facts_for(upstream.url, era=era)
        with pytest.raises(UpstreamTimeout):
            await mcp_client.call(facts, NO_CREDENTIAL, tool_call("echo"), SilentSink())
        assert not upstream.calls("tools/call")


async def test_a_call_without_an_answer_ends_at_its_deadline():
    with FakeUpstream().serve() as upstream:
        with pytest.raises(UpstreamTimeout):
            await call(upstream, tool_call("hang"), call_timeout=1)
        with pytest.raises(UpstreamTimeout):
            await call(upstream, tool_call("hang", timeout=1))
        assert await upstream.seen(lambda u: u.events.count("cancelled:hang") == 2)


async def test_progress_keeps_a_call_alive_but_not_beyond_the_hard_limit(monkeypatch):
    request = tool_call("slow", {"steps": 30, "pause": 0.1}, progress_token=b"1", timeout=2.5)
    with FakeUpstream().serve() as upstream:
        assert text_of(await call(upstream, request)) == "done"
        monkeypatch.setattr(call_answer, "HARD_LIMIT_SECONDS", 0.8)
        with pytest.raises(UpstreamTimeout):
            await call(upstream, request)


async def test_silence_after_some_progress_ends_the_call_all_the_same():
    def script(request):
        request_id = json.loads(request.partition(b"\r\n\r\n")[2])["id"]
        params = {"progressToken": request_id, "progress": 1}
        event = {"jsonrpc": "2.0", "method": PROGRESS, "params": params}
        return stream(b"data: " + msgspec.json.encode(event) + b"\n\n", 30.0)

    sink = RecordingSink()
    with RawUpstream(script) as upstream:
        started = time.monotonic()
        with pytest.raises(UpstreamTimeout):
            await call(upstream, tool_call("x", progress_token=b"1", timeout=1.5), sink)
        assert time.monotonic() - started < 20
        assert len(sink.notified) == 1


async def test_a_full_upstream_turns_callers_away_after_a_second(monkeypatch):
    monkeypatch.setattr(call_gate, "QUEUE_SECONDS", 0.2)
    with FakeUpstream().serve() as upstream:
        facts = facts_for(upstream.url)
        gate = call_gate.gate_for(facts)
        places = [gate.try_enter() for _ in range(facts.max_in_flight + 1)]
        assert places.count(True) == facts.max_in_flight
        with pytest.raises(UpstreamBusy):
            await call(upstream, tool_call("echo"))
        monkeypatch.setattr(call_gate, "QUEUE_SECONDS", PATIENCE)
        waiting = asyncio.create_task(call(upstream, tool_call("echo", {"text": "late"})))
        await asyncio.sleep(0.01)
        gate.leave()
        assert text_of(await waiting) == "late"
        for _ in range(facts.max_in_flight - 1):
            gate.leave()
        assert gate.in_flight == 0


async def test_five_thousand_progress_events_reach_a_slow_client_one_by_one():
    class Slow(RecordingSink):
        async def notify(self, method, params):
            await asyncio.sleep(0)
            await super().notify(method, params)

    def script(request):
        request_id = json.loads(request.partition(b"\r\n\r\n")[2])["id"]
        event = {"jsonrpc": "2.0", "method": PROGRESS}
        events = [
            b"data: "
            + msgspec.json.encode({**event, "params": {"progressToken": request_id, "progress": n}})
            + b"\n\n"
            for n in range(5000)
        ]
        last = b"data: " + RESULT.replace(b"%s", request_id.encode()) + b"\n\n"
        return stream(b"".join(events), last)

    sink = Slow()
    with RawUpstream(script) as upstream:
        await call(upstream, tool_call("x", progress_token=b"7"), sink)
        assert [params["progress"] for _, params in sink.notified] == list(range(5000))


async def test_the_opening_is_asked_once_a_minute():
    with FakeUpstream().serve() as upstream:
        facts = modern(upstream)
        first = await mcp_client.opening(facts, NO_CREDENTIAL, ClientFacts())
        assert json.loads(first)["instructions"] == "A server for tests."
        assert await mcp_client.opening(facts, NO_CREDENTIAL, ClientFacts()) == first
        assert len(upstream.requests) == 1
        await mcp_client.opening(facts, bearer("t"), ClientFacts())
        assert len(upstream.requests) == 2


async def test_everything_else_a_server_offers_is_reached_the_same_way():
    with FakeUpstream(page_size=5).serve() as upstream:
        listed = await call(upstream, CanonicalCall(method="tools/list"))
        cursor = json.loads(listed.result)["nextCursor"]
        second = CanonicalCall(method="tools/list", params=json.dumps({"cursor": cursor}).encode())
        assert len(json.loads((await call(upstream, second)).result)["tools"]) == 5
        uri = "ui://board/view.html"
        read = CanonicalCall(
            method="resources/read", params=json.dumps({"uri": uri}).encode(), name=uri
        )
        assert json.loads((await call(upstream, read)).result)["contents"][0]["uri"] == uri
        prompt = CanonicalCall(
            method="prompts/get",
            params=b'{"name":"greet","arguments":{"name":"Ada"}}',
            name="greet",
        )
        assert b"Hello Ada" in (await call(upstream, prompt)).result
        complete = CanonicalCall(
            method="completion/complete",
            params=b'{"ref":{"type":"ref/prompt","name":"greet"},'
            b'"argument":{"name":"name","value":"A"}}',
        )
        assert json.loads((await call(upstream, complete)).result)["completion"]["total"] == 2
