"""An upstream asks a person's own model so often a minute, and for so many tokens a day."""

import json

import httpx
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.urls import reverse

from gateway_site import housekeeping
from gateway_site.models import AuditEvent
from tests.fakes import task_tools
from tests.fakes.asgi_server import serve
from tests.fakes.mcp_upstream import FakeUpstream
from tests.fakes.task_tools import EXTENSION, TASK_TOOLS
from tests.patience import PATIENCE
from tests.virtualmcp.answering_client import EVERYTHING, REPLIES, SAMPLE, Answering, form, question
from tests.virtualmcp.stream_reader import get_stream, listen, post_stream, until
from tests.virtualmcp.test_call_takeover import Asked, notes, result_of
from tests.virtualmcp.wire_client import META, messages, modern_meta
from upstreams.models import Upstream
from upstreams.upstream_facts import SAMPLING_PER_MINUTE, SAMPLING_TOKENS_PER_DAY
from virtualmcp import route_table, sampling_limits
from virtualmcp.models import SamplingUse, UpstreamChoice
from virtualmcp.transport import event_log, resumption

CELLS = [(client, upstream) for client in ("legacy", "modern") for upstream in ("legacy", "modern")]
NAMES = [f"{c[0].upper()}{u[0].upper()}" for c, u in CELLS]
TASKS_CHANGED = "notifications/tasks"


@pytest.fixture(autouse=True)
def one_window(monkeypatch):
    """Neither a minute nor a day ends while a test runs."""
    monkeypatch.setattr(sampling_limits, "_MINUTE", 10**9)
    monkeypatch.setattr(sampling_limits, "_DAY", 10**9)
    sampling_limits.forget()


@pytest.fixture
def second_node(endpoint, gateway):
    """Another node of the same gateway."""
    with (
        serve(endpoint) as base,
        httpx.Client(
            base_url=base, headers={"host": django_settings.PUBLIC_HOST}, timeout=PATIENCE
        ) as http,
    ):
        yield http


@pytest.fixture
def answering(make_token, wire):
    """Make a client of one era for somebody."""

    def make(era, person, http=None):
        client = wire("board", make_token(person, "board"))
        if http is not None:
            client.http = http
        if era == "legacy":
            client.initialize(capabilities=EVERYTHING)
        return Answering(client, era)

    return make


@pytest.fixture(params=CELLS, ids=NAMES)
def cell(request, ada, answering, make_virtual_mcp):
    """A client and an upstream of one of the four cells."""
    era, upstream_era = request.param
    with FakeUpstream(era=upstream_era).serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        yield answering(era, ada), upstream


def limit(**numbers):
    Upstream.objects.update(**numbers)
    route_table.forget()


def asking(tokens):
    return question(SAMPLE["method"], **{**SAMPLE["params"], "maxTokens": tokens})


def ask(client, *questions):
    """Have the upstream ask; returns "" or the words of the refusal, whoever got them."""
    answer = client.call("interview", {"rounds": [list(questions or [SAMPLE])]})
    if "error" in answer:
        return answer["error"]["message"]
    text = answer["result"]["content"][0]["text"]
    if answer["result"].get("isError"):
        return text
    return " ".join(one["error"]["message"] for one in json.loads(text) if "error" in one)


def test_an_upstream_asks_so_often_and_no_more_whoever_speaks_which_era(cell):
    client, upstream = cell
    limit(sampling_per_minute=2)
    assert [ask(client), ask(client)] == ["", ""]
    asked = len(client.asked)
    refused = ask(client)
    assert "may ask a person's model 2 times a minute; try again in" in refused
    assert len(client.asked) == asked == 2
    if upstream.era == "legacy":
        # The upstream was told so, and its call went on.
        assert upstream.events.count("finished:interview") == 3
    # Other questions are not counted.
    assert ask(client, form("Name?")) == ""


def test_an_upstream_asks_for_so_many_tokens_a_day(cell):
    client, _ = cell
    limit(sampling_tokens_per_day=100)
    assert ask(client, asking(60)) == ""
    refused = ask(client, asking(41))
    assert (
        "may ask a person's model for 100 tokens a day (maxTokens), and not for 41 more" in refused
    )
    # What was refused is not counted, so a smaller question fits.
    assert ask(client, asking(40)) == ""
    assert "not for 1 more" in ask(client, asking(1))


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_the_numbers_hold_over_nodes_and_for_each_person_apart(
    ada, bob, answering, make_virtual_mcp, second_node, era
):
    with FakeUpstream(era="legacy").serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        limit(sampling_per_minute=1)
        assert ask(answering(era, ada)) == ""
        assert "1 times a minute" in ask(answering(era, ada, second_node))
        assert ask(answering(era, bob, second_node)) == ""


def test_a_new_minute_has_room_again(ada, answering, make_virtual_mcp, monkeypatch):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        limit(sampling_per_minute=1)
        client = answering("modern", ada)
        assert ask(client) == ""
        assert ask(client)
        monkeypatch.setattr(sampling_limits, "_MINUTE", 5 * 10**8)
        assert ask(client) == ""


@pytest.mark.parametrize(
    ("given", "counted"),
    [
        (None, sampling_limits.UNSAID_TOKENS),
        ("many", sampling_limits.UNSAID_TOKENS),
        (True, sampling_limits.UNSAID_TOKENS),
        (-5, 1),
        (7.9, 7),
        (1e300, None),
        (10**40, None),
    ],
)
def test_a_question_that_says_no_usable_number_is_counted_all_the_same(
    ada, answering, make_virtual_mcp, given, counted
):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        one = asking(given)
        if given is None:
            del one["params"]["maxTokens"]
        refused = ask(answering("modern", ada), one)
    if counted is None:
        assert "tokens a day" in refused
        assert not SamplingUse.objects.exists()
    else:
        assert refused == ""
        assert SamplingUse.objects.get(window__startswith="day:").amount == counted


def test_several_questions_at_once_are_counted_together_or_not_at_all(
    ada, answering, make_virtual_mcp
):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        limit(sampling_per_minute=2)
        client = answering("modern", ada)
        assert "2 times a minute" in ask(client, SAMPLE, SAMPLE, SAMPLE)
        assert client.asked == []
        assert ask(client, SAMPLE, SAMPLE) == ""


def test_a_question_outside_of_calls_is_counted_as_well(ada, answering, make_virtual_mcp):
    with FakeUpstream(era="legacy", asks_apart=True).serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        limit(sampling_per_minute=1)
        client = answering("legacy", ada)
        client.call("echo", {"text": "x"})
        with get_stream(client.client) as stream:
            assert upstream.wait(lambda up: up.listening >= 1)
            for number in (1, 2):
                upstream.announce_raw({"jsonrpc": "2.0", "id": f"u-{number}", **SAMPLE})
                if number == 1:
                    assert stream.heard(SAMPLE["method"])
                    client.respond(stream.messages[-1])
                    assert upstream.wait(lambda up: up.answer_to("u-1") is not None)
            assert upstream.wait(lambda up: up.answer_to("u-2") is not None)
            assert "1 times a minute" in upstream.answer_to("u-2")["error"]["message"]
            assert stream.methods.count(SAMPLE["method"]) == 1


def test_a_task_is_counted_once_however_often_it_is_looked_at_or_told_of(
    ada, make_virtual_mcp, make_token, wire, monkeypatch
):
    declared = {"extensions": {EXTENSION: {}}, "sampling": {}}
    meta = modern_meta(**{META + "clientCapabilities": declared})
    upstream = FakeUpstream()
    upstream.tools += TASK_TOOLS
    upstream.capabilities["extensions"] = {EXTENSION: {}}
    with upstream.serve():
        make_virtual_mcp("board", {"fake": upstream.url})
        limit(sampling_per_minute=1)
        client = wire("board", make_token(ada, "board"))

        def send(method, **params):
            named = {"Mcp-Name": params["taskId"]} if "taskId" in params else {}
            return messages(client.modern(method, params, meta=meta, **named))[0]

        async def get(call):
            return looked_at

        monkeypatch.setitem(task_tools.METHODS, "tasks/get", get)
        made = send("tools/call", name="pending", arguments={})["result"]
        with listen(client, {"taskIds": [made["taskId"]]}, id=7, meta=meta) as stream:
            assert stream.wait(lambda reader: bool(reader.events))
            wanted = upstream.calls("subscriptions/listen")[-1]["params"]["notifications"]
            (own,) = wanted["taskIds"]
            state = {"taskId": own, "status": "input_required", "inputRequests": {"q1": SAMPLE}}
            upstream.announce(TASKS_CHANGED, state)
            assert stream.heard(TASKS_CHANGED)
            looked_at = state
            for _ in range(2):
                seen = send("tasks/get", taskId=made["taskId"])["result"]
                assert seen["inputRequests"]["q1"]["method"] == SAMPLE["method"]
            assert SamplingUse.objects.get(window__startswith="minute:").amount == 1
            more = {**state, "inputRequests": {"q1": SAMPLE, "q2": SAMPLE}}
            upstream.announce(TASKS_CHANGED, more)
            looked_at = more
            refused = send("tasks/get", taskId=made["taskId"])
            assert "1 times a minute" in refused["error"]["message"]
            upstream.announce(TASKS_CHANGED, {"taskId": own, "status": "working"})
            assert stream.heard(TASKS_CHANGED, 2)
            told = [one["params"] for one in stream.messages if one.get("method") == TASKS_CHANGED]
            assert [one["status"] for one in told] == ["input_required", "working"]


def test_a_call_that_another_process_goes_on_with_is_not_refused_what_it_had_asked(
    ada, answering, make_virtual_mcp, monkeypatch
):
    monkeypatch.setattr(resumption, "OWNER_SECONDS", 0.2)
    event_log._logs.clear()
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        limit(sampling_per_minute=1)
        client = answering("legacy", ada)
        params = {"name": "interview", "arguments": {"rounds": [[SAMPLE]]}}
        with post_stream(client.client, "tools/call", params, id="cut") as stream:
            assert stream.wait(lambda reader: bool(reader.events))
            assert until(lambda: notes().exists())
            asked = Asked(client, stream, upstream)
            asked.dies()
        with asked.comes_back() as back:
            assert asked.answer() == 202
            assert result_of(back) == [REPLIES[SAMPLE["method"]]]
        # It has used up what there was.
        assert "1 times a minute" in ask(client)


def test_the_administrator_hears_of_it_once_an_hour(ada, answering, make_virtual_mcp):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        limit(sampling_per_minute=1)
        client = answering("modern", ada)
        assert [bool(ask(client)) for _ in range(3)] == [False, True, True]
    event = AuditEvent.objects.get(kind="sampling.refused")
    assert (event.target, event.details) == ("fake", {"questions_a_minute": 1})
    assert event.user_id == ada.pk


def test_a_question_that_is_not_allowed_is_not_counted(ada, answering, make_virtual_mcp):
    with FakeUpstream().serve() as upstream, FakeUpstream(name="other").serve() as other:
        make_virtual_mcp("board", {"fake": upstream.url, "other": other.url})
        client = answering("modern", ada)
        client.capabilities = {**EVERYTHING}
        assert ask(client)
        assert not SamplingUse.objects.exists()
        UpstreamChoice.objects.update(may_sample=True)
        route_table.forget()
        assert ask(client) == ""
        assert SamplingUse.objects.count() == 2


def test_a_database_that_is_away_keeps_no_question_from_being_asked(
    ada, answering, make_virtual_mcp, monkeypatch
):
    def away(*args):
        raise DatabaseError("no database")

    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        monkeypatch.setattr(sampling_limits, "_count", away)
        assert ask(answering("modern", ada)) == ""


def test_counters_of_windows_that_are_over_are_cleared_away(ada, answering, make_virtual_mcp):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        assert ask(answering("modern", ada)) == ""
    housekeeping.do_chores()
    assert SamplingUse.objects.count() == 2
    SamplingUse.objects.filter(window__startswith="minute:").update(
        expires_at="2026-01-01T00:00:00Z"
    )
    housekeeping.do_chores()
    assert [row.window.split(":")[0] for row in SamplingUse.objects.all()] == ["day"]


def test_the_page_of_an_upstream_says_the_numbers_and_refuses_what_is_none(client, db):
    root = User.objects.create_superuser("root")
    client.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    row = Upstream.objects.create(key="one", title="One", url="https://one.example/mcp")
    page = reverse("admin:upstreams_upstream_change", args=[row.pk])
    shown = client.get(page)
    words = shown.content.decode()
    assert f"{SAMPLING_PER_MINUTE} times" in words
    assert f"{SAMPLING_TOKENS_PER_DAY:,}" in words
    form_data = {
        name: value
        for name, value in shown.context["adminform"].form.initial.items()
        if value not in (None, False)
    }
    for given, complaint in (("0", "Give 1 to 10000 questions"), ("7", "")):
        sent = {**form_data, "sampling_per_minute": given, "oauth_extra_authorize_parameters": "{}"}
        answer = client.post(page, {**sent, "oauth_allowed_hosts": "[]"})
        assert complaint in (answer.content.decode() if complaint else "")
        assert complaint or answer.status_code == 302, answer.context["errors"]
    row.refresh_from_db()
    assert (row.sampling_per_minute, row.sampling_tokens_per_day) == (7, None)
