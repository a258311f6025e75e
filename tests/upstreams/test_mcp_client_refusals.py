"""Answers of stateless upstreams that are refused, and in which words (security.md 4J)."""

import json

import pytest

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.fakes.raw_upstream import CLOSE, RESET, RawUpstream, stream
from tests.upstreams.relaying import NO_CREDENTIAL, facts_for, replying, streaming, tool_call
from upstreams import call_answer, mcp_client
from upstreams.canonical_call import CanonicalCall, SilentSink
from upstreams.errors import (
    CredentialRefused,
    ScopeInsufficient,
    UpstreamAnswerInvalid,
    UpstreamBusy,
)

SCOPE_CHALLENGE = 'Bearer error="insufficient_scope", scope="a b"'


@pytest.fixture(autouse=True)
async def forgotten_afterwards():
    mcp_client.forget()
    yield
    await mcp_client.close_all()


async def call(upstream, request):
    facts = facts_for(upstream.url, era="modern")
    return await mcp_client.call(facts, NO_CREDENTIAL, request, SilentSink())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html></html>",
        b'[{"jsonrpc":"2.0","id":"%s","result":{}}]',
        b'{"id":"%s","result":{}}',
        b'{"jsonrpc":"1.0","id":"%s","result":{}}',
        b'{"jsonrpc":"2.0","id":"%s"}',
        b'{"jsonrpc":"2.0","id":"%s","result":{},"error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":"%s","result":null}',
        b'{"jsonrpc":"2.0","id":"%s","result":"text"}',
        b'{"jsonrpc":"2.0","id":"%s","error":"text"}',
        b'{"jsonrpc":"2.0","id":"%s","error":{"code":"1","message":"x"}}',
        b'{"jsonrpc":"2.0","id":"%s","error":{"code":1.5,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":"other","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":"%s","method":"x","result":{}}',
        b'{"jsonrpc":"2.0","id":"%s","result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":"%s","result":{"a":NaN}}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":"%s","result":{}}',
        b'{"jsonrpc":"2.0","id":"%s","result":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"jsonrpc":"2.0","id":"%s","result":{}} {}',
    ],
)
async def test_what_is_no_answer_to_our_request_is_an_error(body):
    script = replying(lambda request_id: body.replace(b"%s", request_id.encode()))
    with RawUpstream(script) as upstream:
        with pytest.raises(UpstreamAnswerInvalid):
            await call(upstream, tool_call("x"))
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("text", [b'"\\ud83d"', b'"a\\ud83d b"', b'"\\ude00\\ud83d"'])
async def test_lone_surrogates_survive(text):
    body = b'{"jsonrpc":"2.0","id":"%s","result":{"n":36893488147419103232,"t":' + text + b"}}"
    script = replying(lambda request_id: body.replace(b"%s", request_id.encode()))
    with RawUpstream(script) as upstream:
        outcome = await call(upstream, tool_call("x"))
        assert json.loads(outcome.result) == {"n": 2**65, "t": json.loads(text)}


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (401, {"www-authenticate": 'Bearer realm="x"'}, CredentialRefused),
        (
            403,
            {"www-authenticate": 'Bearer error="insufficient_scope", scope="a b"'},
            ScopeInsufficient,
        ),
        (403, {}, UpstreamAnswerInvalid),
        (429, {"retry-after": "7"}, UpstreamBusy),
        (503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, UpstreamBusy),
        (500, {"content-type": "text/html"}, UpstreamAnswerInvalid),
        (200, {"content-type": "text/html"}, UpstreamAnswerInvalid),
        (200, {}, UpstreamAnswerInvalid),
        (202, {}, UpstreamAnswerInvalid),
        (204, {}, UpstreamAnswerInvalid),
        (302, {"location": "/elsewhere"}, UpstreamAnswerInvalid),
    ],
)
async def test_http_statuses_become_errors_people_understand(status, headers, error):
    canned = Canned(status, b"" if status in (202, 204) else b"<p>secret-stack-trace</p>", headers)
    with FakeUpstream(script=[canned]).serve() as upstream:
        with pytest.raises(error) as caught:
            await call(upstream, tool_call("echo"))
        assert type(caught.value) in (error, call_answer.NoMessage)
        assert "secret" not in caught.value.message + caught.value.detail
        assert caught.value.message.startswith("Fake ")
        if error is CredentialRefused:
            assert caught.value.challenge == 'Bearer realm="x"'
        if error is ScopeInsufficient:
            assert caught.value.scope == "a b"
        if status == 429:
            assert caught.value.retry_after == 7
        if status == 503:
            assert caught.value.retry_after == 0


@pytest.mark.parametrize("end", [[], [CLOSE], [RESET]], ids=["end", "close", "reset"])
async def test_a_stream_that_ends_before_the_result_is_an_error_at_once(end):
    script = [*stream(b": hello\n\n", b'data: {"jsonrpc":"2.0","me', end=not end), *end]
    with RawUpstream(script) as upstream, pytest.raises(UpstreamAnswerInvalid):
        await call(upstream, tool_call("x", timeout=3_600))


async def test_an_event_and_a_list_beyond_their_limits_are_refused():
    long = b'{"jsonrpc":"2.0","id":"%s","result":{"a":"' + b"x" * 4_300_000 + b'"}}'
    too_large = pytest.raises(UpstreamAnswerInvalid, match="too large")
    with RawUpstream(streaming(long)) as upstream, too_large:
        await call(upstream, tool_call("x"))
    script = replying(lambda request_id: long[:3_000_000].replace(b"%s", request_id.encode()))
    with RawUpstream(script) as upstream, too_large:
        await call(upstream, CanonicalCall(method="tools/list"))
