"""Rows of the bridge between the revisions that no other test proves (``bridge_rows``)."""

import json
from dataclasses import replace

import pytest

from tests.fakes import mcp_catalogue
from tests.fakes.mcp_exchange import Canned
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, Heard, in_thread, legacy
from upstreams.canonical_call import ClientFacts, QuestionNotPossible
from virtualmcp import tool_catalogue
from virtualmcp.eras import question_fields

ELICIT, SAMPLE = "elicitation/create", "sampling/createMessage"
CLIENTS = [Client(), legacy()]


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


@pytest.fixture
def stateless():
    with FakeUpstream().serve() as upstream:
        yield upstream


@pytest.fixture
def stateful():
    with FakeUpstream(era="legacy", name="beta").serve() as upstream:
        yield upstream


async def team(*fakes):
    def make():
        keys = ("alpha", "beta")
        rows = [routed.upstream(fake, key) for fake, key in zip(fakes, keys, strict=False)]
        return routed.virtual_mcp(*rows)

    return await in_thread(make)


class Named(Client):
    """A client that says its name."""

    @property
    def facts(self):
        plain = super().facts
        info = b'{"name":"Wire Client","version":"7"}'
        return ClientFacts(plain.revision, plain.capabilities, info, plain.fingerprint)


async def test_a_stateful_upstream_meets_the_gateway_and_reads_whose_it_is(stateful):
    await team(stateful)
    for client in (Named(), Named(revision="2025-11-25", capabilities={"roots": {}})):
        await client.call("echo", text="x")
        told = stateful.calls("initialize")[-1]["params"]["clientInfo"]
        assert told["name"] == "mcp-gateway"
        assert told["title"] == "Wire Client"


async def test_a_stateless_upstream_reads_with_each_request_which_client_it_is_for(stateless):
    await team(stateless)
    await Named(revision="2025-11-25").call("echo", text="x")
    meta = stateless.calls("tools/call")[-1]["params"]["_meta"]
    told = meta["io.modelcontextprotocol/clientInfo"]
    assert told == {"name": "Wire Client", "version": "7"}


@pytest.mark.parametrize("client", CLIENTS, ids=["stateless", "stateful"])
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_call_that_an_upstream_may_have_begun_is_not_made_again(
    stateless, stateful, client, status
):
    await team(stateless, stateful)
    await client.names()
    for name, upstream in (("echo", stateless), ("beta_echo", stateful)):
        upstream.canned["tools/call"] = Canned(status, b"", {"retry-after": "7"})
        error = await client.error("tools/call", {"name": name, "arguments": {}})
        assert (error.code, error.http_status) == (-32603, 200)
        assert len(upstream.calls("tools/call")) == 1
        if status != 500:
            assert json.loads(error.data)["retryAfter"] == 7


@pytest.mark.parametrize("client", CLIENTS, ids=["stateless", "stateful"])
async def test_a_tool_with_bad_header_annotations_is_left_out_where_they_would_count(
    stateless, stateful, client
):
    bad = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
    for upstream in (stateless, stateful):
        upstream.tools = [{"name": "annotated", "inputSchema": bad}]
    await team(stateless, stateful)
    tools = (await client.result("tools/list"))["tools"]
    # Between stateful sides nobody mirrors arguments, so the annotation is one word more.
    assert [tool["name"] for tool in tools] == (
        [] if client.revision == "2026-07-28" else ["annotated"]
    )
    assert all(tool["inputSchema"] == bad for tool in tools)


@pytest.mark.parametrize(
    ("shortest", "most"), [(20_000, 20_000), (-5, tool_catalogue.LEAST_FRESH * 1_000)]
)
async def test_a_list_lives_as_long_as_its_shortest_part_and_belongs_to_one_person(shortest, most):
    long, short = FakeUpstream(list_ttl=200_000), FakeUpstream(list_ttl=shortest)
    with long.serve(), short.serve():
        await team(long, short)
        result = await Client().result("tools/list")
        assert 0 < result["ttlMs"] <= most
        # Both say that anybody may have it; what a person sees is theirs all the same.
        assert result["cacheScope"] == "private"


@pytest.mark.parametrize("client", CLIENTS, ids=["stateless", "stateful"])
async def test_an_upstream_that_disputes_its_headers_is_asked_twice_at_most(stateless, client):
    await team(stateless)
    await client.names()
    listed = len(stateless.calls("tools/list"))
    error = {"code": -32020, "message": "Header mismatch"}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
    stateless.canned["tools/call"] = Canned(400, body)
    found = await client.error("tools/call", {"name": "echo", "arguments": {"text": "x"}})
    assert (found.code, found.http_status) == (-32603, 200)
    assert len(stateless.calls("tools/call")) == 2
    assert len(stateless.calls("tools/list")) == listed + 1


@pytest.mark.parametrize("client", CLIENTS, ids=["stateless", "stateful"])
async def test_of_a_completion_a_client_of_several_gets_a_hundred_values(
    stateless, stateful, client, monkeypatch
):
    values = [f"v{number}" for number in range(300)]
    await team(stateless, stateful)
    for name, upstream in (("greet", stateless), ("beta_greet", stateful)):
        reference = {"ref": {"type": "ref/prompt", "name": name}}
        asked = {**reference, "argument": {"name": "name", "value": ""}}
        await client.names("prompts/list")
        monkeypatch.setattr(mcp_catalogue, "NAMES", values)
        found = (await client.result("completion/complete", asked))["completion"]
        assert (found["values"], found["hasMore"]) == (values[:100], True)
        assert len(upstream.calls("completion/complete")) == 1


def asking_first(asked):
    """Return a tool that asks, and says what it was given once it is called again."""

    async def run(call):
        if "inputResponses" not in call.params:
            return asked
        return mcp_catalogue.said(call.arguments["text"])

    return run


@pytest.mark.parametrize("state", [None, "", "=?x? \u00e9\u2028 " + "s" * 500])
@pytest.mark.parametrize("client", CLIENTS, ids=["stateless", "stateful"])
async def test_a_retry_brings_the_upstream_exactly_the_state_it_gave_or_none(
    stateless, client, state, monkeypatch
):
    question = {"method": ELICIT, "params": {"message": "Name?", "requestedSchema": {}}}
    first = {"resultType": "input_required", "inputRequests": {"q": question}}
    if state is not None:
        first["requestState"] = state
    await team(stateless)
    said = {"action": "accept", "content": {"answer": "Ada"}}
    able = replace(client, capabilities={"elicitation": {"form": {}}}, sink=Heard(said))
    await able.names()
    monkeypatch.setitem(mcp_catalogue.TOOLS, "echo", asking_first(first))
    result = await able.call("echo", text="x")
    if client.revision == "2026-07-28":
        retry = {"name": "echo", "arguments": {"text": "x"}, "inputResponses": {"q": said}}
        retry["requestState"] = result["requestState"]
        result = await able.result("tools/call", retry)
    assert result["content"][0]["text"] == "x"
    begun, retried = stateless.calls("tools/call")
    assert "requestState" not in begun["params"]
    assert retried["params"].get("requestState") == state
    assert ("requestState" in retried["params"]) == (state is not None)
    assert retried["params"]["inputResponses"] == {"q": said}
    assert retried["id"] != begun["id"]


def test_the_id_of_a_page_to_open_is_made_for_stateful_clients_and_dropped_for_others():
    page = b'{"mode":"url","message":"Open it","url":"https://a.example/","vendor":1}'
    down = json.loads(question_fields.for_stateful(ELICIT, page, "2025-11-25"))
    assert len(down.pop("elicitationId")) >= 16
    assert down == json.loads(page)
    given = b'{"mode":"url","elicitationId":"theirs","vendor":1}'
    assert question_fields.for_stateful(ELICIT, given, "2025-11-25") == given
    assert json.loads(question_fields.for_stateless(ELICIT, given)) == {"mode": "url", "vendor": 1}
    assert question_fields.for_stateless(ELICIT, page) is page


def test_sampling_of_several_blocks_is_split_for_older_clients_and_tools_are_refused():
    text, other = {"type": "text", "text": "a"}, {"type": "text", "text": "b"}
    params = {"messages": [{"role": "user", "content": [text, other]}], "maxTokens": 1}
    raw = json.dumps(params).encode()
    assert question_fields.for_stateful(SAMPLE, raw, "2025-11-25") is raw
    for revision in ("2025-06-18", "2025-03-26"):
        split = json.loads(question_fields.for_stateful(SAMPLE, raw, revision))
        assert split["messages"] == [{"role": "user", "content": one} for one in (text, other)]
        assert split["maxTokens"] == 1
        used = {"type": "tool_use", "id": "1", "name": "x", "input": {}}
        params["messages"][0]["content"] = [text, used]
        with pytest.raises(QuestionNotPossible, match="no sampling with tools"):
            question_fields.for_stateful(SAMPLE, json.dumps(params).encode(), revision)
        params["messages"][0]["content"] = [text, other]
