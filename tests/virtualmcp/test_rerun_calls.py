"""A held call whose process died is made anew, for tools an administrator said can stand it.

The death is played: the call is cut off in this process as it stands, and its lease has run out.
"""

import json

import pytest
from django.urls import reverse

from tests.fakes import mcp_catalogue
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.answering_client import REPLIES, SAMPLE, Answering, form
from tests.virtualmcp.stream_reader import until
from tests.virtualmcp.test_actions_and_admin import form_data
from virtualmcp import actions, route_table
from virtualmcp.actions import Choice
from virtualmcp.definitions import of_entry
from virtualmcp.models import SharedNote, ToolDefinition, UpstreamChoice
from virtualmcp.routing import parking

NAME = REPLIES["elicitation/create"]


@pytest.fixture
def held(ada, make_virtual_mcp, make_token, wire):
    """A stateless client over a stateful upstream that resumes nothing."""
    with FakeUpstream(era="legacy").serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        yield Answering(wire("board", make_token(ada, "board")), "modern"), upstream


def mark(*tools):
    UpstreamChoice.objects.update(rerun_tools=list(tools))
    route_table.forget()


def asks_twice(*second, **more):
    return {"name": "interview", "arguments": {"rounds": [[form("One?")], list(second)], **more}}


def holder_dies():
    """The process of every held call ends, and its lease soon after."""
    for call in parking.held():
        call._care.get_loop().call_soon_threadsafe(call._care.cancel)
    assert until(lambda: not parking.count())
    SharedNote.objects.filter(key__startswith="parked-holder:").delete()


def words_of(answer):
    return json.loads(answer["result"]["content"][0]["text"])


def text(answer):
    if "error" in answer:
        return answer["error"]["message"]
    return answer["result"]["content"][0]["text"]


def test_a_marked_tool_runs_again_and_its_person_is_asked_nothing_twice(held):
    client, upstream = held
    mark("interview")
    params = asks_twice(form("Two?"), SAMPLE)
    first = client.send(params)["result"]
    client.replies = {**REPLIES, "elicitation/create": {**NAME, "content": {"answer": "Eva"}}}
    second = client.send(client.retry_of(params, first))["result"]
    assert second["resultType"] == "input_required"
    holder_dies()
    client.replies = REPLIES
    answer = client.send(client.retry_of(params, second))
    assert words_of(answer) == [
        {"action": "accept", "content": {"answer": "Eva"}},
        NAME,
        REPLIES["sampling/createMessage"],
    ]
    asked = [one["params"].get("message") for one in client.asked]
    assert asked == ["One?", "Two?", None]
    assert upstream.events.count("started:interview") == 2
    assert upstream.events.count("finished:interview") == 1
    # What the dead process had begun is ended, and the new call has nothing of a retry in it.
    assert upstream.wait(lambda up: up.calls("notifications/cancelled"))
    sent = upstream.calls("tools/call")
    assert sent[-1]["params"]["arguments"] == sent[0]["params"]["arguments"]
    assert not {"inputResponses", "requestState"} & set(sent[-1]["params"])
    # Coming again brings the same outcome.
    assert client.send(client.retry_of(params, second))["result"] == answer["result"]
    assert upstream.events.count("started:interview") == 2
    assert until(lambda: not parking.count())


@pytest.mark.parametrize("marked", [(), ("echo",)])
def test_no_other_tool_is_run_again(held, marked):
    client, upstream = held
    mark(*marked)
    params = asks_twice(form("Two?"))
    asked = client.send(params)["result"]
    holder_dies()
    assert "process that held this call" in text(client.send(client.retry_of(params, asked)))
    assert upstream.events.count("started:interview") == 1


def test_what_is_asked_in_other_words_is_asked_anew(held, monkeypatch):
    client, _ = held
    mark("echo")
    runs = []

    async def changing(call):
        runs.append(call)
        given = []
        for words in ("Name?", f"Sure about run {len(runs)}?", "Name?"):
            question = form(words)
            reply = await call.ask(question["method"], question["params"])
            given.append(reply["result"]["content"]["answer"])
        return mcp_catalogue.said(" ".join(given))

    monkeypatch.setitem(mcp_catalogue.TOOLS, "echo", changing)

    def saying(word):
        client.replies = {"elicitation/create": {"action": "accept", "content": {"answer": word}}}

    params = {"name": "echo", "arguments": {}}
    asked = client.send(params)["result"]
    saying("Ada")
    asked = client.send(client.retry_of(params, asked))["result"]
    holder_dies()
    saying("yes")
    asked = client.send(client.retry_of(params, asked))["result"]
    assert len(runs) == 2
    # The same words a second time are a second question, as they were the first time.
    saying("sure")
    asked = client.send(client.retry_of(params, asked))["result"]
    saying("Bob")
    assert text(client.send(client.retry_of(params, asked))) == "Ada sure Bob"
    assert [one["params"]["message"] for one in client.asked] == [
        "Name?",
        "Sure about run 1?",
        "Sure about run 2?",
        "Name?",
    ]


def test_it_is_made_anew_as_often_as_a_process_dies(held):
    client, upstream = held
    mark("interview")
    params = asks_twice(form("Two?"))
    params["arguments"]["rounds"].append([form("Three?")])
    asked = client.send(params)["result"]
    for _ in range(2):
        holder_dies()
        asked = client.send(client.retry_of(params, asked))["result"]
    holder_dies()
    assert words_of(client.send(client.retry_of(params, asked))) == [NAME] * 3
    assert len(client.asked) == 3
    assert upstream.events.count("started:interview") == 4


def test_the_administrator_marks_tools_and_sees_which_say_they_can_be_repeated(admin_client):
    one = routed.upstream(None, "one")
    row = routed.virtual_mcp(one)
    hints = {"look": {"readOnlyHint": True}, "set": {"idempotentHint": True}, "send": {}}
    for name, annotations in hints.items():
        made = of_entry(json.dumps({"name": name, "annotations": annotations}).encode())
        ToolDefinition.objects.create(
            virtual_mcp=row,
            upstream=one,
            subject="tool",
            name=name,
            digest=made.digest,
            content=made.content.decode(),
            read_only=made.read_only,
            state="approved",
        )
    page = reverse("admin:virtualmcp_virtualmcp_change", args=[row.pk])
    assert "The upstream says so of: look, set." in admin_client.get(page).content.decode()
    chosen = {
        "id": row.choices.get().pk,
        "upstream": one.pk,
        "position": 0,
        "tool_mode": "all",
        "repeatable_tools": "look\nset\n",
    }
    answer = admin_client.post(page, form_data(chosen, **{"choices-INITIAL_FORMS": "1"}))
    assert answer.status_code == 302, answer.context["errors"]
    assert row.choices.get().rerun_tools == ["look", "set"]
    actions.update_virtual_mcp(row, {}, choices=[Choice(one)], actor=None)
    assert row.choices.get().rerun_tools == []
