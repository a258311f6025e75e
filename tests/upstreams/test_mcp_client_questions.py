"""Questions that stateful upstreams ask in the middle of a call."""

import asyncio
import json

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.upstreams.relaying import (
    NO_CREDENTIAL,
    RecordingSink,
    facts_for,
    resumable,
    text_of,
    tool_call,
)
from upstreams import mcp_client
from upstreams.canonical_call import Outcome, SilentSink


@pytest.fixture(autouse=True)
async def forgotten_afterwards():
    mcp_client.forget()
    yield
    await mcp_client.close_all()


async def call(upstream, request, sink=None):
    facts = facts_for(upstream.url, era="legacy")
    return await mcp_client.call(facts, NO_CREDENTIAL, request, sink or SilentSink())


def legacy():
    return FakeUpstream(era="legacy")


async def test_a_question_is_put_to_the_client_and_its_answer_goes_back():
    sink = RecordingSink(answers=[Outcome(result=b'{"action":"accept","content":{"a":1}}')])
    with legacy().serve() as upstream:
        outcome = await call(upstream, tool_call("ask", {"question": "Why?"}), sink)
        assert text_of(outcome) == 'they said {"action": "accept", "content": {"a": 1}}'
        method, params = sink.asked[0]
        assert (method, params["message"]) == ("elicitation/create", "Why?")


async def test_a_question_nobody_can_answer_is_refused_and_the_call_goes_on():
    with legacy().serve() as upstream:
        outcome = await call(upstream, tool_call("ask"))
        assert json.loads(outcome.result)["isError"] is True
        assert text_of(outcome) == "not possible: -32603"


async def test_an_error_of_the_client_is_the_answer_to_the_question():
    sink = RecordingSink(answers=[Outcome(error=b'{"code":-1,"message":"declined"}')])
    with legacy().serve() as upstream:
        assert text_of(await call(upstream, tool_call("ask"), sink)) == "not possible: -1"


async def test_thinking_about_a_question_does_not_use_up_the_calls_time():
    class Thoughtful(RecordingSink):
        async def ask(self, method, params, origin=None):
            await asyncio.sleep(0.8)
            return Outcome(result=b'{"action":"decline"}')

    with legacy().serve() as upstream:
        outcome = await call(upstream, tool_call("ask", timeout=0.4), Thoughtful())
        assert "decline" in text_of(outcome)


async def test_a_ping_of_the_upstream_is_answered_while_a_call_runs():
    ping = b'{"jsonrpc":"2.0","id":99,"method":"ping"}'
    with resumable([ping, 0.3], final=True) as upstream:
        await call(upstream, tool_call("x"))
        assert any(b'{"jsonrpc":"2.0","id":99,"result":{}}' in seen for seen in upstream.requests)


async def test_a_question_whose_params_are_null_is_put_to_the_client_as_one_without():
    asking = b'{"jsonrpc":"2.0","id":7,"method":"roots/list","params":null}'
    roots = Outcome(result=b'{"roots":[]}')
    sink = RecordingSink(answers=[roots])
    with resumable([asking, 0.3], final=True) as upstream:
        await call(upstream, tool_call("x"), sink)
        expected = b'{"jsonrpc":"2.0","id":7,"result":{"roots":[]}}'
        assert any(expected in seen for seen in upstream.requests)
    assert sink.asked == [("roots/list", {})]


async def test_a_question_that_fails_on_the_way_to_the_client_is_answered_all_the_same():
    class Broken(RecordingSink):
        async def ask(self, method, params, origin=None):
            raise ValueError("broken")

    with legacy().serve() as upstream:
        assert text_of(await call(upstream, tool_call("ask"), Broken())) == "not possible: -32603"
