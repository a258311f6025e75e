"""Tasks: the extension relayed, and tools that run as a task only called as one long call."""

import asyncio
import json
import time

import pytest

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.fakes.task_tools import EXTENSION, TASK_TOOLS
from tests.patience import PATIENCE
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, Heard, in_thread, legacy
from virtualmcp.routing import long_tasks
from virtualmcp.routing.opening import opening

TASKS = {"extensions": {EXTENSION: {}}, "elicitation": {"form": {}}}
ANSWER = {"action": "accept", "content": {"answer": "yes"}}


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


@pytest.fixture
def modern():
    with FakeUpstream().serve() as upstream:
        upstream.tools += TASK_TOOLS
        upstream.capabilities["extensions"] = {EXTENSION: {}}
        yield upstream


@pytest.fixture
def stateful():
    with FakeUpstream(era="legacy").serve() as upstream:
        upstream.tools += TASK_TOOLS
        yield upstream


async def team(*fakes):
    def make():
        keys = ("alpha", "beta")
        return routed.virtual_mcp(
            *(routed.upstream(fake, key) for fake, key in zip(fakes, keys, strict=False))
        )

    await in_thread(make)


async def until(client, task_id, status):
    until = time.monotonic() + PATIENCE
    while True:
        seen = await client.result("tasks/get", {"taskId": task_id})
        if seen["status"] == status:
            return seen
        assert time.monotonic() < until, f"never {status}: {seen}"


async def test_a_task_is_made_looked_at_and_ended_under_a_sealed_id(modern):
    await team(modern)
    client = Client(capabilities=TASKS)
    made = await client.call("batch", looks=2)
    assert made["resultType"] == "task"
    assert made["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "team"
    task_id = made["taskId"]
    assert task_id.startswith("v1.")
    seen = await until(client, task_id, "completed")
    assert seen["resultType"] == "complete"
    assert seen["taskId"] == task_id
    assert json.loads(seen["result"]["content"][0]["text"])["looks"] == 2
    assert seen["result"]["vendorTask"] is None
    own = modern.calls("tasks/get")[-1]["params"]["taskId"]
    assert own.startswith("task-")
    assert modern.last_headers("tasks/get")["mcp-name"] == own


async def test_questions_of_a_task_are_answered_by_update_under_the_upstreams_own_keys(modern):
    await team(modern)
    client = Client(capabilities=TASKS)
    task_id = (await client.call("batch", looks=1, question="Go on?"))["taskId"]
    seen = await until(client, task_id, "input_required")
    assert seen["inputRequests"]["q1"]["params"]["message"] == "Go on?"
    answers = {"taskId": task_id, "inputResponses": {"q1": ANSWER}}
    assert (await client.result("tasks/update", answers))["resultType"] == "complete"
    done = await until(client, task_id, "completed")
    assert json.loads(done["result"]["content"][0]["text"])["answer"] == ANSWER


async def test_in_an_aggregate_a_task_goes_to_its_upstream_and_its_result_names_our_uris(modern):
    with FakeUpstream(name="beta").serve() as other:
        await team(other, modern)
        client = Client(capabilities=TASKS)
        task_id = (await client.call("batch", looks=1, question="Go on?"))["taskId"]
        asked = await until(client, task_id, "input_required")
        assert asked["inputRequests"]["q1"]["params"]["message"] == "[Beta] Go on?"
        await client.result("tasks/update", {"taskId": task_id, "inputResponses": {"q1": ANSWER}})
        done = await until(client, task_id, "completed")
        assert done["result"]["content"][1]["uri"] == "beta+notes://7"
        assert other.calls("tasks/get") == []


async def test_a_task_can_be_cancelled(modern):
    await team(modern)
    client = Client(capabilities=TASKS)
    task_id = (await client.call("pending"))["taskId"]
    assert (await client.result("tasks/cancel", {"taskId": task_id}))["resultType"] == "complete"
    assert (await until(client, task_id, "cancelled"))["taskId"] == task_id


async def test_a_failed_task_keeps_its_error(modern):
    await team(modern)
    client = Client(capabilities=TASKS)
    task_id = (await client.call("doomed", looks=1))["taskId"]
    assert (await until(client, task_id, "failed"))["error"]["message"] == "the batch broke"


async def test_a_task_is_its_makers_alone(modern):
    await team(modern)
    maker = Client(capabilities=TASKS)
    task_id = (await maker.call("pending"))["taskId"]
    before = len(modern.calls("tasks/get"))
    own = modern.calls("tools/call")[-1]
    strangers = [
        Client(capabilities=TASKS, user_id=2),
        Client(capabilities=TASKS, client_id="another"),
    ]
    for stranger in strangers:
        error = await stranger.error("tasks/get", {"taskId": task_id})
        assert (error.code, error.http_status) == (-32602, 200)
    for bad in (task_id[:-2] + "xx", "task-1", str(own["id"])):
        assert (await maker.error("tasks/cancel", {"taskId": bad})).code == -32602
    assert (await maker.error("tasks/get", {"taskId": 7})).code == -32602
    assert len(modern.calls("tasks/get")) == before


async def test_a_client_without_the_extension_gets_the_missing_capability(modern):
    await team(modern)
    error = await Client().error("tasks/get", {"taskId": "x"})
    assert (error.code, error.http_status) == (-32021, 400)
    assert EXTENSION in json.loads(error.data)["requiredCapabilities"]["extensions"]
    refused = await Client().error("tools/call", {"name": "batch", "arguments": {}})
    assert (refused.code, refused.http_status) == (-32021, 400)


async def test_stateful_clients_have_no_task_methods(modern):
    await team(modern)
    client = legacy()
    from upstreams.revisions import Era
    from virtualmcp.routing import method_table

    assert not method_table.known("tasks/get", Era.LEGACY)
    assert (await client.error("tools/call", {"name": "batch", "arguments": {}})).code == -32603


async def test_the_extension_is_promised_to_stateless_clients_only(modern):
    await team(modern)

    async def promised(client):
        found = await opening(await client.server(), routed.holder(), client.facts)
        return EXTENSION in found.capabilities.get("extensions", {})

    assert await promised(Client(capabilities=TASKS))
    assert not await promised(legacy())


@pytest.mark.parametrize("client", [Client(), legacy()], ids=["stateless", "stateful"])
async def test_a_task_that_nobody_asked_for_is_seen_to_its_end_with_progress(modern, client):
    await team(modern)
    client.sink = Heard()
    answer = await client.send(
        "tools/call",
        {"name": "batch", "arguments": {"insists": True, "looks": 3}},
        progress_token=b'"mine"',
    )
    assert answer.error is None, answer.error
    said = json.loads(json.loads(answer.whole())["content"][0]["text"])
    assert said["looks"] == 3
    steps = [params["progress"] for method, params in client.sink.notices]
    assert steps == [1, 2, 3]
    assert client.sink.notices[-1][1]["progressToken"] == "mine"


@pytest.mark.parametrize("era", ["stateless", "stateful"])
async def test_a_tool_of_a_stateful_server_that_needs_a_task_is_one_long_call(stateful, era):
    await team(stateful)
    client = Client() if era == "stateless" else legacy()
    assert "batch" in await client.names()
    result = await client.call("batch", looks=2)
    assert json.loads(result["content"][0]["text"])["looks"] == 2
    methods = [seen.message.get("method") for seen in stateful.requests]
    assert methods.count("tasks/result") == 1
    assert stateful.calls("tools/call")[-1]["params"]["task"]["ttl"] > 0
    # Refused without a task first, so nothing ran twice.
    assert "task" not in stateful.calls("tools/call")[0]["params"]


@pytest.mark.parametrize("era", ["modern", "stateful"])
async def test_the_pause_a_task_asks_for_is_kept(request, era):
    await team(request.getfixturevalue(era))
    began = time.monotonic()
    result = await legacy().call("batch", looks=1, poll=1_500, insists=True)
    assert "looks" in result["content"][0]["text"]
    assert time.monotonic() - began >= 1.5


async def test_a_failed_task_of_a_stateful_server_is_the_calls_error(stateful):
    await team(stateful)
    error = await legacy().error("tools/call", {"name": "doomed", "arguments": {"looks": 1}})
    assert "the batch broke" in error.message


async def test_a_task_asks_its_question_while_the_one_long_call_runs(stateful):
    await team(stateful)
    client = legacy(capabilities={"elicitation": {"form": {}}}, sink=Heard(ANSWER))
    result = await client.call("batch", looks=1, question="Go on?")
    assert json.loads(result["content"][0]["text"])["answer"] == ANSWER
    assert client.sink.questions[0][1]["message"] == "Go on?"


async def test_who_cancels_the_call_cancels_the_task(stateful):
    await team(stateful)
    calling = asyncio.create_task(legacy().call("pending"))
    assert await stateful.seen(lambda up: bool(up.calls("tasks/get")))
    calling.cancel()
    assert await stateful.seen(lambda up: "task cancelled" in up.events)


async def test_a_task_that_takes_too_long_is_cancelled_and_said_so(stateful, monkeypatch):
    monkeypatch.setattr(long_tasks, "LONGEST_SECONDS", 0.5)
    await team(stateful)
    error = await legacy().error("tools/call", {"name": "pending", "arguments": {}})
    assert error.code == -32603
    assert "longer than the gateway waits" in error.message
    assert await stateful.seen(lambda up: "task cancelled" in up.events)


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"form": {}}}])
async def test_a_task_whose_question_nobody_can_be_asked_is_cancelled(modern, capabilities):
    await team(modern)
    client = legacy(capabilities=capabilities, sink=Heard())
    arguments = {"insists": True, "looks": 1, "question": "Go on?"}
    await client.error("tools/call", {"name": "batch", "arguments": arguments})
    assert len(client.sink.questions) == len(capabilities)
    assert await modern.seen(lambda up: bool(up.calls("tasks/cancel")))


async def test_a_task_that_can_not_be_looked_at_any_more_is_cancelled(modern):
    await team(modern)
    modern.canned["tasks/get"] = Canned(503, b"")
    arguments = {"insists": True, "looks": 1}
    await Client().error("tools/call", {"name": "batch", "arguments": arguments})
    assert await modern.seen(lambda up: bool(up.calls("tasks/cancel")))
