"""Stateless clients hear how their tasks go: notifications/tasks (protocol.md 2.3.8)."""

import json

import pytest

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.fakes.task_tools import EXTENSION, TASK_TOOLS
from tests.virtualmcp.stream_reader import listen, until
from tests.virtualmcp.wire_client import META, messages, modern_meta
from upstreams.models import Upstream
from virtualmcp.models import UpstreamChoice
from virtualmcp.routing import task_listener
from virtualmcp.signals import changed

CHANGED = "notifications/tasks"
DECLARED = {"extensions": {EXTENSION: {}}, "elicitation": {"form": {}}}
TASKS = modern_meta(**{META + "clientCapabilities": DECLARED})


def making_tasks(**more):
    upstream = FakeUpstream(**more)
    upstream.tools += TASK_TOOLS
    upstream.capabilities["extensions"] = {EXTENSION: {}}
    return upstream


@pytest.fixture
def alpha():
    with making_tasks().serve() as upstream:
        yield upstream


@pytest.fixture
def beta():
    with making_tasks(name="beta").serve() as upstream:
        yield upstream


@pytest.fixture
def client(ada, alpha, beta, make_virtual_mcp, make_token, wire):
    """A client of a Virtual MCP over two upstreams."""
    make_virtual_mcp("board", {"alpha": alpha.url, "beta": beta.url})
    found = wire("board", make_token(ada, "board"))
    assert "beta_pending" in names(found, TASKS)
    return found


def names(client, meta):
    found = messages(client.modern("tools/list", meta=meta))[0]["result"]["tools"]
    return [tool["name"] for tool in found]


def started(client, tool="pending", **arguments):
    answer = client.modern("tools/call", {"name": tool, "arguments": arguments}, meta=TASKS)
    return messages(answer)[0]["result"]["taskId"]


def own_ids(upstream):
    """The ids that an upstream was asked to tell of, by the last request."""
    wanted = upstream.calls("subscriptions/listen")[-1]["params"]["notifications"]
    return wanted.get("taskIds", [])


def heard_of(stream, task_id):
    found = (m["params"] for m in stream.messages if m.get("method") == CHANGED)
    return [params for params in found if params["taskId"] == task_id]


def test_what_becomes_of_tasks_is_told_under_the_clients_ids_and_names(client, alpha, beta):
    first, second = started(client), started(client, "beta_pending")
    with listen(client, {"taskIds": [first, second]}, id=7, meta=TASKS) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        agreed = stream.messages[0]["params"]
        assert sorted(agreed["notifications"]["taskIds"]) == sorted([first, second])
        assert len(own_ids(alpha)) == len(own_ids(beta)) == 1
        (own,) = own_ids(beta)
        assert own.startswith("task-")
        assert alpha.listening == beta.listening == 1
        beta.announce(CHANGED, {"taskId": own, "status": "working", "vendor": 2**70})
        assert stream.heard(CHANGED)
        assert stream.messages[-1] == {
            "jsonrpc": "2.0",
            "method": CHANGED,
            "params": {
                "taskId": second,
                "status": "working",
                "vendor": 2**70,
                "_meta": {META + "subscriptionId": 7},
            },
        }
        question = {"mode": "form", "message": "Go?", "requestedSchema": {"type": "object"}}
        asks = {"q1": {"method": "elicitation/create", "params": question}}
        beta.announce(CHANGED, {"taskId": own, "status": "input_required", "inputRequests": asks})
        assert stream.heard(CHANGED, 2)
        asked = heard_of(stream, second)[-1]["inputRequests"]["q1"]["params"]["message"]
        assert asked == "[Beta] Go?"
        link = {"type": "resource_link", "uri": "notes://7", "name": "report"}
        done = {"taskId": own, "status": "completed", "result": {"content": [link]}}
        beta.announce(CHANGED, done)
        assert stream.heard(CHANGED, 3)
        ended = heard_of(stream, second)[-1]
        assert ended["result"]["content"][0]["uri"] == "beta+notes://7"
        # The last task there has ended, the other upstream's goes on.
        assert beta.wait(lambda up: up.listening == 0)
        assert alpha.listening == 1
    assert alpha.wait(lambda up: up.listening == 0)


def test_a_client_that_did_not_declare_tasks_is_told_what_it_lacks(client, alpha):
    task_id = started(client)
    with listen(client, {"taskIds": [task_id]}) as stream:
        assert stream.status == 400
        error = json.loads(stream.body)["error"]
    assert error["code"] == -32021
    assert error["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    assert alpha.listening == 0


def test_only_a_clients_own_tasks_are_honoured(client, alpha, bob, make_token, wire):
    mine = started(client)
    other = wire("board", make_token(bob, "board"))
    with listen(other, {"taskIds": [mine, "v1.x.y", "task-1"]}, meta=TASKS) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        assert stream.messages[0]["params"]["notifications"] == {}
        assert alpha.listening == 0
    too_many = [f"v1.{number}" for number in range(101)]
    with listen(client, {"taskIds": too_many}, meta=TASKS) as stream:
        assert stream.status == 400
    with listen(client, {"taskIds": mine}, meta=TASKS) as stream:
        assert b"notifications.taskIds must be an array of task ids" in stream.body


def test_an_upstream_that_tells_nothing_of_tasks_is_not_promised(client, alpha, beta):
    first, second = started(client), started(client, "beta_pending")
    beta.canned["subscriptions/listen"] = Canned(404, b"")
    with listen(client, {"taskIds": [first, second]}, meta=TASKS) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        assert stream.messages[0]["params"]["notifications"] == {"taskIds": [first]}


def test_after_a_break_each_task_is_looked_at_once(client, alpha, monkeypatch):
    monkeypatch.setattr(task_listener, "FIRST_PAUSE", 0.05)
    task_id = started(client, "batch", looks=1)
    with listen(client, {"taskIds": [task_id]}, meta=TASKS) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        alpha.end_streams()
        assert stream.heard(CHANGED)
        assert heard_of(stream, task_id)[-1]["status"] == "completed"
        assert "resultType" not in heard_of(stream, task_id)[-1]
        assert len(alpha.calls("tasks/get")) == 1


def reconfigured():
    """Tell of a change of the configuration as an administrator's page does."""
    changed.send(sender=None, kind="configuration", key="board")


@pytest.mark.parametrize("how", ["taken away", "switched off"])
def test_a_server_that_is_gone_is_listened_to_no_more(client, alpha, how):
    task_id = started(client)
    with listen(client, {"taskIds": [task_id]}, meta=TASKS) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        if how == "taken away":
            UpstreamChoice.objects.filter(upstream=Upstream.objects.get(key="alpha")).delete()
        else:
            Upstream.objects.filter(key="alpha").update(enabled=False)
        reconfigured()
        assert alpha.wait(lambda up: up.listening == 0)


def test_what_is_told_of_tasks_follows_the_configuration(client, beta):
    task_id = started(client, "beta_pending")
    question = {"mode": "form", "message": "Go?", "requestedSchema": {"type": "object"}}
    asks = {"q1": {"method": "elicitation/create", "params": question}}
    with listen(client, {"taskIds": [task_id]}, meta=TASKS) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        (own,) = own_ids(beta)
        Upstream.objects.filter(key="beta").update(title="Gamma")
        reconfigured()
        news = {"taskId": own, "status": "input_required", "inputRequests": asks}

        def named():
            beta.announce(CHANGED, news)
            stream.wait(lambda reader: len(heard_of(reader, task_id)) > 0, 0.1)
            found = heard_of(stream, task_id)
            return found and "[Gamma] Go?" in json.dumps(found[-1])

        assert until(named)
        # It was not asked anew for what concerns nobody there.
        assert len(beta.calls("subscriptions/listen")) == 1
        # Another way to reach it does.
        Upstream.objects.filter(key="beta").update(era="modern")
        reconfigured()
        assert beta.wait(lambda up: len(up.calls("subscriptions/listen")) == 2)
        assert beta.wait(lambda up: up.listening == 1)


def test_tools_that_run_as_a_task_only_are_listed_for_who_takes_tasks(client):
    everything = names(client, TASKS)
    tasks = {"batch", "doomed", "pending", "beta_batch", "beta_doomed", "beta_pending"}
    assert tasks < set(everything)
    for _ in range(2):
        assert names(client, modern_meta()) == [name for name in everything if name not in tasks]
        assert names(client, TASKS) == everything
    client.initialize()
    listed = messages(client.legacy("tools/list"))[0]["result"]["tools"]
    assert not tasks & {tool["name"] for tool in listed}
