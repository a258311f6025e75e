"""Calls through the router: where they go, what comes back, in all four cells of eras."""

import asyncio
import base64
import json
import os

import pytest

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp import routed
from tests.virtualmcp.routed import URL_MODE, Client, Heard, in_thread, legacy
from upstreams import accounts, authorized_call
from upstreams.canonical_call import Outcome
from upstreams.errors import (
    CredentialRefused,
    ScopeInsufficient,
    SetupFailed,
    UpstreamBusy,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from virtualmcp.models import UpstreamChoice
from virtualmcp.routing import questions

SERVER_INFO = "io.modelcontextprotocol/serverInfo"


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


@pytest.fixture
def alpha():
    with FakeUpstream().serve() as upstream:
        yield upstream


@pytest.fixture
def beta():
    with FakeUpstream(era="legacy", name="beta").serve() as upstream:
        yield upstream


@pytest.fixture(params=["modern", "legacy"])
def fake(request):
    with FakeUpstream(era=request.param).serve() as upstream:
        yield upstream


@pytest.fixture(params=["2026-07-28", "2025-11-25"])
def client(request):
    return Client(revision=request.param)


async def single(fake, **more):
    return await in_thread(lambda: routed.virtual_mcp(routed.upstream(fake, "alpha", **more)))


async def both(alpha, beta, **more):
    def make():
        rows = [routed.upstream(alpha, "alpha", **more), routed.upstream(beta, "beta", **more)]
        return routed.virtual_mcp(*rows)

    return await in_thread(make)


async def test_a_tool_is_called_in_every_cell(fake, client):
    await single(fake)
    result = await client.call("echo", text="hello")
    assert result["content"][0]["text"] == "hello"
    assert result["structuredContent"] == {"text": "hello"}
    modern = client.revision == "2026-07-28"
    assert ("resultType" in result) is modern
    if modern:
        assert result["resultType"] == "complete"
        assert result["_meta"][SERVER_INFO]["name"] == "team"
    else:
        assert SERVER_INFO not in result.get("_meta", {})


async def test_prompts_resources_and_completions_work_in_every_cell(fake, client):
    await single(fake)
    prompt = await client.result("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}})
    assert prompt["messages"][0]["content"]["text"] == "Hello Ada"
    read = await client.result("resources/read", {"uri": "file:///notes/1"})
    assert read["contents"][0]["uri"] == "file:///notes/1"
    assert ("ttlMs" in read) is (client.revision == "2026-07-28")
    reference = {"type": "ref/prompt", "name": "greet"}
    argument = {"name": "name", "value": "A"}
    done = await client.result("completion/complete", {"ref": reference, "argument": argument})
    assert done["completion"]["values"] == ["Ada", "Alan"]


async def test_a_warm_call_makes_no_query(fake, client):
    await single(fake)
    await client.names()
    await client.call("echo", text="1")
    await routed.settled()
    await client.call("echo", text="1")
    with routed.counted_queries() as queries:
        await client.call("echo", text="2")
    assert queries == []


async def test_a_warm_aggregate_call_makes_no_query(alpha, beta, client):
    await both(alpha, beta)
    await client.names()
    await client.call("beta_echo", text="1")
    await routed.settled()
    await client.call("beta_echo", text="1")
    with routed.counted_queries() as queries:
        await client.call("beta_echo", text="2")
    assert queries == []


async def test_exact_bytes_of_a_result_survive(alpha):
    await single(alpha)
    answer = await Client().send("tools/call", {"name": "exact"})
    for part in (
        b'"content":[{"type":"text","text":"exact","vendorBlock":null}]',
        b'"structuredContent":{"big":36893488147419103232,"long":0.1234567890123456789}',
        b'"vendor/x":null',
        b'"vendorTop":[1, 2,  3]',
    ):
        assert part in answer.whole()
    answer = await legacy().send("tools/call", {"name": "exact"})
    assert b'"vendorTop":[1, 2,  3]' in answer.whole()
    assert b"resultType" not in answer.whole()


async def test_exact_bytes_of_arguments_survive_a_rename(alpha, beta):
    await both(alpha, beta)
    await Client().names()
    arguments = b'{"text":"x","big":36893488147419103232,"long":0.1234567890123456789, "a":[1,  2]}'
    params = b'{"name":"beta_echo","vendor":null,"arguments":' + arguments + b"}"
    await legacy().send("tools/call", params)
    sent = [seen.body for seen in beta.requests if b"tools/call" in seen.body]
    assert arguments in sent[-1]
    assert b'"vendor":null' in sent[-1]
    assert b'"name":"echo"' in sent[-1]


async def test_public_names_lead_to_their_owner_and_go_out_as_it_knows_them(alpha, beta):
    await both(alpha, beta)
    await Client().names()
    await Client().call("echo", text="a")
    await Client().call("beta_echo", text="b")
    assert alpha.calls("tools/call")[-1]["params"]["arguments"] == {"text": "a"}
    assert alpha.last_headers("tools/call")["mcp-name"] == "echo"
    assert beta.calls("tools/call")[-1]["params"]["name"] == "echo"


async def test_a_call_before_any_list_finds_its_way(alpha, beta):
    await both(alpha, beta)
    beta.tools = [*beta.tools, {"name": "only_beta", "inputSchema": {"type": "object"}}]
    result = await Client().call("only_beta", x=1)
    assert "only_beta" in result["content"][0]["text"]


async def test_a_prefixed_name_is_an_alias_of_a_bare_one(alpha, beta):
    await both(alpha, beta)
    await Client().names()
    assert (await Client().call("alpha_echo", text="x"))["content"][0]["text"] == "x"


async def test_an_ambiguous_bare_name_names_the_candidates(alpha, beta):
    with FakeUpstream().serve() as gamma:
        row = await both(alpha, beta)

        def third():
            chosen = routed.upstream(gamma, "gamma")
            UpstreamChoice.objects.create(virtual_mcp=row, upstream=chosen, position=2)

        await in_thread(third)
        await Client().names()
        await in_thread(lambda: row.choices.filter(upstream__key="alpha").delete())
        routed.forget_everything()
        error = await Client().error("tools/call", {"name": "echo"})
    assert error.code == -32602
    assert "beta_echo" in error.message and "gamma_echo" in error.message


@pytest.mark.parametrize("several", [False, True])
async def test_a_filtered_tool_is_as_unknown_as_one_that_does_not_exist(alpha, beta, several):
    row = await (both(alpha, beta) if several else single(alpha))
    await Client().names()
    await in_thread(lambda: row.choices.update(tool_mode="chosen", chosen_tools=["echo"]))
    routed.forget_everything()
    messages = set()
    for name in ("hang", "alpha_hang", "no_such"):
        error = await Client().error("tools/call", {"name": name, "arguments": {}})
        assert (error.code, error.http_status) == (-32602, 200)
        messages.add(error.message.replace(name, "NAME"))
    assert len(messages) == 1
    assert not alpha.calls("tools/call")


async def test_resources_are_read_by_mapped_bare_and_web_uris(alpha, beta):
    beta.resources = [
        *beta.resources,
        {"uri": "only://beta", "name": "o"},
        {"uri": "https://example.com/b", "name": "w"},
    ]
    await both(alpha, beta)
    read = await Client().result("resources/read", {"uri": "beta+notes://7"})
    assert read["contents"][0]["uri"] == "beta+notes://7"
    assert read["contents"][0]["text"] == "note notes://7"
    board = await Client().result("resources/read", {"uri": "ui://beta+board/view.html"})
    assert board["contents"][0]["uri"] == "ui://beta+board/view.html"
    for uri in ("only://beta", "https://example.com/b"):
        await Client().error("resources/read", {"uri": uri})
        assert beta.calls("resources/read")[-1]["params"]["uri"] == uri
    assert not alpha.calls("resources/read")


async def test_a_resource_of_nobody_is_not_found_in_the_code_of_the_era(alpha, beta):
    await both(alpha, beta)
    for uri in ("none://x", "gamma+notes://1", "file:///notes/1"):
        assert (await Client().error("resources/read", {"uri": uri})).code == -32602
        assert (await legacy().error("resources/read", {"uri": uri})).code == -32002
    assert not alpha.calls("resources/read") and not beta.calls("resources/read")


@pytest.mark.parametrize("key", ["alpha", "beta"])
async def test_an_upstreams_not_found_has_the_code_of_the_clients_era(alpha, beta, key):
    await both(alpha, beta)
    uri = {"uri": f"{key}+gone://x"}
    assert (await Client().error("resources/read", uri)).code == -32602
    assert (await legacy().error("resources/read", uri)).code == -32002


async def test_completion_of_a_template_goes_to_its_owner(alpha, beta):
    await both(alpha, beta)
    reference = {"type": "ref/resource", "uri": "beta+notes://{number}"}
    argument = {"name": "number", "value": "G"}
    params = {"ref": reference, "argument": argument}
    done = await Client().result("completion/complete", params)
    assert done["completion"]["values"] == ["Grace"]
    assert beta.calls("completion/complete")[-1]["params"]["ref"]["uri"] == "notes://{number}"


@pytest.mark.parametrize(
    ("code", "modern", "old"),
    [
        (-32602, -32602, -32602),
        (-32603, -32603, -32603),
        (-32002, -32602, -32002),
        (-32000, -32603, -32000),
        (-32001, -32603, -32001),
        (-32050, -32603, -32050),
        (-32022, -32603, -32603),
        (-32021, -32021, -32603),
        (4711, 4711, 4711),
        (-31000, -31000, -31000),
    ],
)
async def test_codes_of_upstream_errors_are_those_of_the_clients_era(fake, code, modern, old):
    if fake.era == "modern" and code in (-32022, -32021):
        pytest.skip("these steer the gateway itself when a stateless upstream says them")
    await single(fake)
    params = {"name": "refuse", "arguments": {"code": code, "message": "no", "data": {"a": 1}}}
    error = await Client().error("tools/call", params)
    assert error.code == modern
    assert error.http_status == (400 if modern == -32021 else 200)
    data = json.loads(error.data)
    assert data == {"a": 1} or (data["code"], data["data"]) == (code, {"a": 1})
    assert (await legacy().error("tools/call", params)).code == old


async def test_an_aggregate_says_whose_error_it_is_and_a_single_upstream_does_not(alpha, beta):
    await both(alpha, beta)
    await Client().names()
    params = {"name": "beta_refuse", "arguments": {"message": "no"}}
    assert (await Client().error("tools/call", params)).message == "beta: no"
    await in_thread(lambda: UpstreamChoice.objects.filter(upstream__key="beta").delete())
    routed.forget_everything()
    params["name"] = "refuse"
    assert (await Client().error("tools/call", params)).message == "no"


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_http_faults_of_an_upstream_are_errors_with_status_200(alpha, client, status):
    await single(alpha)
    await client.names()
    alpha.canned["tools/call"] = Canned(status, b"", {"retry-after": "7"})
    error = await client.error("tools/call", {"name": "echo", "arguments": {}})
    assert (error.code, error.http_status) == (-32603, 200)
    assert "Alpha" in error.message
    assert json.loads(error.data)["upstream"] == "alpha"


async def test_a_dead_upstream_is_named_quickly_with_what_to_do():
    await in_thread(lambda: routed.virtual_mcp(routed.upstream(None, "dead")))
    error = await asyncio.wait_for(Client().error("tools/call", {"name": "x"}), PATIENCE)
    assert error.code == -32603
    assert "Dead" in error.message and "Try again" in error.message


async def test_secrets_in_what_an_upstream_says_are_redacted(alpha):
    token = "key-of-ada-0000000"
    alpha.tokens = {token}

    def make():
        row = routed.upstream(alpha, "alpha", credential_kind="user_key")
        routed.virtual_mcp(row)
        ada = routed.person()
        accounts.save_user_key(ada, row, token, actor=ada)
        return ada

    ada = await in_thread(make)
    ours = Client(user_id=ada.pk)
    shown = await ours.call("headers")
    assert token not in json.dumps(shown)
    said = f"bad {token} Bearer abcdefghijklmnop at http://10.0.0.7:8080/x and http://localhost/y"
    arguments = {"message": said, "data": {"authorization": token}}
    error = await ours.error("tools/call", {"name": "refuse", "arguments": arguments})
    for secret in (token, "abcdefghijklmnop", "10.0.0.7", "localhost"):
        assert secret not in error.message
    assert token.encode() not in error.data


async def test_secrets_in_what_an_upstream_logs_meanwhile_are_redacted(fake, client):
    token = "key-of-ada-0000000"
    fake.tokens = {token}

    def make():
        row = routed.upstream(fake, "alpha", credential_kind="user_key")
        routed.virtual_mcp(row)
        ada = routed.person()
        accounts.save_user_key(ada, row, token, actor=ada)
        return ada

    ada = await in_thread(make)
    ours = Client(user_id=ada.pk, revision=client.revision)
    params = {"name": "log", "arguments": {"level": "error", "text": f"called with {token}"}}
    if client.revision == "2026-07-28":
        params["_meta"] = {"io.modelcontextprotocol/logLevel": "debug"}
    await ours.send("tools/call", params, log_level="debug")
    assert [said["data"] for _, said in ours.sink.notices] == ["called with [redacted]"]


async def test_everybodys_calls_travel_with_their_own_key_and_come_back_to_them(alpha, beta):
    fakes = {"alpha": alpha, "beta": beta}

    def make():
        rows = [routed.upstream(fakes[key], key, credential_kind="user_key") for key in fakes]
        routed.virtual_mcp(*rows)
        people = [routed.person(f"person{number}") for number in range(4)]
        for person in people:
            for row in rows:
                key = f"{row.key}-key-of-{person.username}"
                fakes[row.key].tokens.add(key)
                accounts.save_user_key(person, row, key, actor=person)
        return people

    people = await in_thread(make)
    for person in people:
        await Client(user_id=person.pk).names()

    async def say(person, tool):
        client = Client(user_id=person.pk)
        for number in range(5):
            text = f"{person.username} {number}"
            result = await client.call(tool, text=text)
            assert result["content"][0]["text"] == text

    await asyncio.gather(*(say(p, tool) for p in people for tool in ("echo", "beta_echo")))
    for key, fake in fakes.items():
        calls = [seen for seen in fake.requests if seen.message.get("method") == "tools/call"]
        assert len(calls) == 20
        for seen in calls:
            owner = seen.message["params"]["arguments"]["text"].split()[0]
            assert seen.headers["authorization"] == f"Bearer {key}-key-of-{owner}"


async def test_an_unconnected_account_becomes_a_link_in_text(alpha, client):
    await single(alpha, credential_kind="user_key")
    result = await client.call("echo", text="x")
    assert result["isError"] is True
    assert "/connect/alpha/" in result["content"][0]["text"]
    error = await client.error("resources/read", {"uri": "file:///notes/1"})
    assert error.code == -32603
    assert "/connect/alpha/" in json.loads(error.data)["connect_url"]
    assert not alpha.requests


async def test_an_unconnected_account_becomes_an_url_error_for_2025_11_25(alpha):
    await single(alpha, credential_kind="user_key")
    error = await legacy(capabilities=URL_MODE).error("tools/call", {"name": "echo"})
    assert error.code == -32042
    (elicitation,) = json.loads(error.data)["elicitations"]
    assert elicitation["mode"] == "url" and elicitation["elicitationId"]
    assert "/connect/alpha/" in elicitation["url"]
    older = Client(revision="2025-06-18", capabilities=URL_MODE)
    assert (await older.call("echo"))["isError"] is True


async def test_a_stateless_client_is_asked_to_open_the_page_and_then_calls_again(alpha):
    alpha.tokens = {"key-of-ada-0000000"}

    def make():
        row = routed.upstream(alpha, "alpha", credential_kind="user_key")
        routed.virtual_mcp(row)
        return routed.person(), row

    ada, row = await in_thread(make)
    client = Client(user_id=ada.pk, capabilities=URL_MODE)
    asked = await client.call("echo", text="x")
    assert asked["resultType"] == "input_required"
    ((key, question),) = asked["inputRequests"].items()
    assert question["params"]["mode"] == "url"
    retry = {
        "name": "echo",
        "arguments": {"text": "x"},
        "requestState": asked["requestState"],
        "inputResponses": {key: {"action": "accept"}},
    }
    again = await client.result("tools/call", retry)
    assert again["resultType"] == "input_required"
    declined = {**retry, "inputResponses": {key: {"action": "decline"}}}
    assert (await client.result("tools/call", declined))["isError"] is True
    await in_thread(lambda: accounts.save_user_key(ada, row, "key-of-ada-0000000", actor=ada))
    assert (await client.result("tools/call", retry))["content"][0]["text"] == "x"
    sent = alpha.calls("tools/call")[-1]["params"]
    assert "requestState" not in sent and "inputResponses" not in sent


async def test_a_question_is_relayed_with_our_seal_in_the_place_of_the_state(alpha, beta):
    await both(alpha, beta)
    client = Client(capabilities={"elicitation": {"form": {}}})
    await client.names()
    asked = await client.call("ask", question="Who?")
    assert asked["resultType"] == "input_required"
    assert "state-1" not in asked["requestState"]
    assert asked["inputRequests"]["q1"]["params"]["message"] == "[Alpha] Who?"
    assert asked["_meta"][SERVER_INFO]["name"] == "team"
    retry = {
        "name": "ask",
        "arguments": {"question": "Who?"},
        "requestState": asked["requestState"],
        "inputResponses": {"q1": {"action": "accept", "content": {"answer": "Ada"}}},
    }
    done = await client.result("tools/call", retry)
    assert "Ada" in done["content"][0]["text"]
    assert alpha.calls("tools/call")[-1]["params"]["requestState"] == "state-1"
    for wrong in (
        {**retry, "arguments": {"question": "Other?"}},
        {**retry, "name": "echo"},
        {**retry, "requestState": asked["requestState"][:-3] + "abc"},
        {**retry, "requestState": 7},
    ):
        assert (await client.error("tools/call", wrong)).code == -32602
    capabilities = client.capabilities
    for other in (
        Client(user_id=2, capabilities=capabilities),
        Client(client_id="another", capabilities=capabilities),
    ):
        assert (await other.error("tools/call", retry)).code == -32602


async def answering(monkeypatch, *outcomes):
    """Have upstreams answer with these outcomes; returns what they were asked."""
    asked, waiting = [], list(outcomes)

    async def call_as(user_id, facts, call, sink):
        asked.append(call)
        outcome = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(authorized_call, "call_as", call_as)
    return asked


async def test_a_missing_capability_is_told_to_a_stateless_client_as_such(alpha, monkeypatch):
    await single(alpha)
    data = b'{"requiredCapabilities":{"sampling":{}}}'
    await answering(
        monkeypatch, Outcome(error=b'{"code":-32021,"message":"m","data":' + data + b"}")
    )
    error = await Client().error("tools/call", {"name": "x"})
    assert (error.code, error.http_status, error.data) == (-32021, 400, data)
    assert (await legacy().error("tools/call", {"name": "x"})).code == -32603


async def test_state_that_is_too_large_to_carry_is_an_error(alpha, monkeypatch):
    await single(alpha)
    state = base64.b64encode(os.urandom(60_000)).decode()
    result = json.dumps({"resultType": "input_required", "requestState": state}).encode()
    await answering(monkeypatch, Outcome(result=result))
    error = await Client().error("tools/call", {"name": "x"})
    assert error.code == -32603
    assert "state" in error.message


async def test_rounds_without_an_end_are_left(alpha, monkeypatch):
    await single(alpha)
    monkeypatch.setattr(questions, "_LONGEST_PAUSE", 0.0)
    asked = await answering(
        monkeypatch, Outcome(result=b'{"resultType":"input_required","requestState":"s"}')
    )
    error = await legacy().error("tools/call", {"name": "x"})
    assert error.code == -32603
    assert len(asked) == questions.MOST_ROUNDS
    assert b'"requestState":"s"' in asked[-1].params


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(result=b"[]"),
        Outcome(result=b'{"resultType":"task"}'),
        Outcome(result=b'{"resultType":"vendor/partial","content":[]}'),
        Outcome(result=b'{"resultType":7,"content":[]}'),
        Outcome(error=b"[]"),
        Outcome(error=b'{"code":"x","message":"m"}'),
        Outcome(error=b'{"code":true}'),
    ],
)
async def test_what_is_no_result_is_an_error_of_the_upstream(alpha, monkeypatch, outcome):
    await single(alpha)
    await answering(monkeypatch, outcome)
    error = await Client().error("tools/call", {"name": "x"})
    assert error.code == -32603
    assert "Alpha" in error.message


async def test_questions_about_lists_and_completions_are_not_passed_on(alpha, monkeypatch):
    await single(alpha)
    await answering(monkeypatch, Outcome(result=b'{"resultType":"input_required"}'))
    params = {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {}}
    assert (await Client().error("completion/complete", params)).code == -32603


async def test_reading_nothing_is_not_found_for_a_stateless_client(alpha, monkeypatch):
    await single(alpha)
    await answering(monkeypatch, Outcome(result=b'{"contents":[]}'))
    assert (await Client().error("resources/read", {"uri": "x:1"})).code == -32602


@pytest.mark.parametrize("several", [False, True])
async def test_an_upstreams_own_page_to_open_takes_the_form_the_client_knows(
    alpha, beta, monkeypatch, several
):
    await (both(alpha, beta) if several else single(alpha))
    name = {"name": "echo", "arguments": {}}
    await Client().names()
    page = {"mode": "url", "elicitationId": "7", "url": "https://up/x", "message": "Sign in"}
    bad = {**page, "url": "javascript:x"}
    data = {"code": -32042, "message": "m", "data": {"elicitations": [page, bad]}}
    await answering(monkeypatch, Outcome(error=json.dumps(data).encode(), modern=False))
    error = await legacy(capabilities=URL_MODE).error("tools/call", name)
    assert error.code == -32042
    assert json.loads(error.data)["elicitations"][0] == page
    asked = await Client(capabilities=URL_MODE).result("tools/call", name)
    (question,) = asked["inputRequests"].values()
    assert question["params"]["url"] == page["url"]
    assert "elicitationId" not in question["params"]
    for plain in (Client(), legacy()):
        result = await plain.result("tools/call", name)
        assert result["isError"] is True
        assert page["url"] in result["content"][0]["text"]
        assert "javascript" not in result["content"][0]["text"]


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (UpstreamTimeout("It did not answer in time."), "look before you repeat"),
        (UpstreamBusy("It is busy.", retry_after=7), "in 7 seconds"),
        (UpstreamUnreachable("It could not be reached."), "Try again"),
        (CredentialRefused("It refused the credential."), "renew the credential"),
        (SetupFailed("token", "Its token request failed."), "administrator"),
    ],
)
async def test_failures_say_what_happened_and_what_to_do(alpha, monkeypatch, client, failure, word):
    await single(alpha)
    await answering(monkeypatch, failure)
    error = await client.error("tools/call", {"name": "echo"})
    assert (error.code, error.http_status) == (-32603, 200)
    assert "Alpha" in error.message and word in error.message
    assert json.loads(error.data)["upstream"] == "alpha"


async def test_a_refused_personal_account_leads_to_the_connect_page(alpha, monkeypatch, client):
    await single(alpha, credential_kind="user_oauth")
    await answering(monkeypatch, ScopeInsufficient("It wants more.", scope="write"))
    result = await client.call("echo")
    assert result["isError"] is True
    assert "/connect/alpha/" in result["content"][0]["text"]
    assert "permissions" in result["content"][0]["text"]


async def test_a_stateful_client_is_asked_on_its_stream_and_the_call_goes_on(alpha):
    await single(alpha)
    sink = Heard({"action": "accept", "content": {"answer": "Ada"}})
    client = legacy(capabilities={"elicitation": {}}, sink=sink)
    done = await client.call("ask", question="Who?")
    assert "Ada" in done["content"][0]["text"]
    assert sink.questions[0][0] == "elicitation/create"


async def test_between_stateful_sides_an_aggregate_says_who_asks(alpha, beta):
    await both(alpha, beta)
    sink = Heard({"action": "accept", "content": {"answer": "Ada"}})
    client = legacy(capabilities={"elicitation": {}}, sink=sink)
    await client.names()
    done = await client.call("beta_ask", question="Who?")
    assert "Ada" in done["content"][0]["text"]
    assert sink.questions[0][1]["message"] == "[Beta] Who?"


async def test_a_stateful_upstreams_question_to_a_client_that_cannot_be_asked_is_declined(beta):
    await single(beta)
    result = await Client(capabilities={"roots": {}}).call("ask", question="Who?")
    assert result["isError"] is True


async def test_a_stateful_client_that_cannot_be_asked_gets_a_clear_error(alpha):
    await single(alpha)
    error = await legacy().error("tools/call", {"name": "ask", "arguments": {}})
    assert error.code == -32603
    assert "Use a client that supports it" in error.message


async def test_progress_reaches_the_client_under_its_own_token(fake, client):
    await single(fake)
    params = {"name": "slow", "arguments": {"steps": 2}, "_meta": {"progressToken": "mine"}}
    await client.send("tools/call", params, progress_token=b'"mine"')
    progress = [params for method, params in client.sink.notices if "progress" in method]
    assert [p["progress"] for p in progress] == [1, 2]
    assert {p["progressToken"] for p in progress} == {"mine"}


async def test_mirrored_arguments_are_checked_and_made_anew_for_the_upstream(alpha):
    await single(alpha)
    client = Client()
    await client.names()
    params = {"name": "regional", "arguments": {"region": "eu", "query": "q"}}
    for headers in ({}, {"mcp-param-region": "us"}):
        error = await client.error("tools/call", params, param_headers=headers)
        assert (error.code, error.http_status) == (-32020, 400)
    assert not alpha.calls("tools/call")
    good = {"Mcp-Param-Region": "eu", "Mcp-Param-Other": "kept"}
    await client.result("tools/call", params, param_headers=good)
    sent = alpha.last_headers("tools/call")
    assert (sent["mcp-param-region"], sent["mcp-param-other"]) == ("eu", "kept")


async def test_a_stateful_clients_call_gets_the_headers_a_stateless_upstream_wants(alpha):
    await single(alpha)
    params = {"name": "regional", "arguments": {"region": "eü", "query": "q"}}
    cold = await legacy().result("tools/call", params)
    assert cold["content"][0]["text"] == "eü: q"
    assert await legacy().result("tools/call", params) == cold


async def test_results_of_an_aggregate_name_mapped_uris_and_web_ones_find_home(alpha, beta):
    link = {"type": "resource_link", "uri": "notes://9", "name": "nine", "vendor": None}
    embedded = {"type": "resource", "resource": {"uri": "ui://x", "text": "notes://9"}}
    web = {"type": "resource_link", "uri": "https://example.com/only-returned", "name": "w"}
    await both(alpha, beta)
    await Client().names()
    for fake in (beta,):
        fake.tools = [*fake.tools]
    from tests.fakes import mcp_catalogue

    async def links(call):
        return {"content": [link, embedded, web]}

    mcp_catalogue.TOOLS["echo"], before = links, mcp_catalogue.TOOLS["echo"]
    try:
        result = await Client().call("beta_echo")
    finally:
        mcp_catalogue.TOOLS["echo"] = before
    assert result["content"] == [
        {**link, "uri": "beta+notes://9"},
        {"type": "resource", "resource": {"uri": "ui://beta+x", "text": "notes://9"}},
        web,
    ]
    await Client().error("resources/read", {"uri": web["uri"]})
    assert beta.calls("resources/read")[-1]["params"]["uri"] == web["uri"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {}),
        ("tools/call", {"name": 7}),
        ("tools/call", {"name": ""}),
        ("tools/call", {"name": "x" * 600}),
        ("prompts/get", {"name": None}),
        ("resources/read", {"uri": ["x"]}),
        ("completion/complete", {"ref": 1}),
        ("completion/complete", {"ref": {"type": "ref/other"}}),
        ("tools/call", b"[]"),
        ("tools/list", b"[]"),
    ],
)
async def test_malformed_params_are_refused_before_any_upstream(alpha, client, method, params):
    await single(alpha)
    error = await client.error(method, params)
    assert error.code == -32602
    assert not alpha.calls(method)


async def test_an_unknown_method_has_the_status_of_the_era(alpha):
    await single(alpha)
    assert (await Client().error("nope")).http_status == 404
    assert (await legacy().error("nope")).http_status == 200


async def test_leaving_a_call_cancels_it_at_the_upstream(fake, client):
    await single(fake)
    running = asyncio.create_task(client.call("hang"))
    assert await fake.seen(lambda f: "started:hang" in f.events)
    running.cancel()
    assert await fake.seen(lambda f: "cancelled:hang" in f.events)
