"""An administrator gives a tool another public name: the old one goes on working until freed."""

import re

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import ValidationError
from django.db import connection
from django.urls import reverse

from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp import routed
from tests.virtualmcp.background_writes import settle
from tests.virtualmcp.stream_reader import get_stream, listen
from tests.virtualmcp.wire_client import messages
from upstreams.models import Upstream
from virtualmcp import actions, call_log, name_changes, name_pins, route_table, tool_catalogue
from virtualmcp.access_rules import Rule
from virtualmcp.models import CallRecord, PublicName, VirtualMcp
from virtualmcp.name_changes import Named
from virtualmcp.signals import audit
from virtualmcp.tool_names import Sighting

TOOLS_CHANGED = "notifications/tools/list_changed"


@pytest.fixture
def alpha():
    with FakeUpstream(name="alpha").serve() as upstream:
        yield upstream


@pytest.fixture
def beta():
    with FakeUpstream(era="legacy", name="beta").serve() as upstream:
        yield upstream


@pytest.fixture(params=[1, 2], ids=["one upstream", "two upstreams"])
def board(request, alpha, beta, make_virtual_mcp):
    """A Virtual MCP over one upstream (nothing is renamed) or two (everything is looked up)."""
    urls = {"alpha": alpha.url, "beta": beta.url}
    return make_virtual_mcp("board", dict(list(urls.items())[: request.param]))


@pytest.fixture
def team(alpha, beta, make_virtual_mcp):
    return make_virtual_mcp("team", {"alpha": alpha.url, "beta": beta.url})


@pytest.fixture
def root(client, transactional_db):
    """The administration, as a full administrator sees it."""
    person = User.objects.create_superuser("root")
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return client


def listed(wire_client, kind="tools"):
    answer = wire_client.modern(f"{kind}/list").json()["result"][kind]
    settle()
    return [entry["name"] for entry in answer]


def called(wire_client, name):
    """Call a tool that says what it is given; returns what it says, or the error's words."""
    answer = wire_client.modern("tools/call", {"name": name, "arguments": {"text": "hi"}})
    message = messages(answer)[-1]
    if "error" in message:
        return message["error"]["message"]
    return message["result"]["content"][0]["text"]


def row_of(name, kind="tool"):
    return PublicName.objects.get(public_name=name, kind=kind, former=False)


def page_of(name, kind="tool"):
    return reverse("admin:virtualmcp_publicname_change", args=[row_of(name, kind).pk])


def rename(root, name, wanted, kind="tool", **more):
    """Give another name on the page; returns what the page complains of."""
    answer = root.post(page_of(name, kind), {"public_name": wanted, **more})
    if answer.status_code == 302:
        return ""
    assert PublicName.objects.filter(public_name=name, kind=kind, former=False).exists()
    return " ".join(answer.context["errors"].as_data() and map(str, answer.context["errors"][0]))


def test_the_new_name_is_listed_and_both_are_called(board, ada, make_token, wire, root, alpha):
    client = wire("board", make_token(ada, "board"))
    before = listed(client)
    assert "echo" in before
    heard = []
    audit.connect(receiver := lambda **event: heard.append(event), weak=False)
    assert rename(root, "echo", "say_back") == ""
    audit.disconnect(receiver)
    assert listed(client) == ["say_back" if name == "echo" else name for name in before]
    assert called(client, "say_back") == called(client, "echo") == "hi"
    assert {call["params"]["name"] for call in alpha.calls("tools/call")} == {"echo"}
    (event,) = heard
    assert (event["kind"], event["target"]) == ("name.changed", "alpha in board")
    assert event["details"] == {"tool": "echo", "before": "echo", "after": "say_back"}


def test_prompts_are_renamed_like_tools(team, ada, make_token, wire, root):
    client = wire("team", make_token(ada, "team"))
    assert "greet" in listed(client, "prompts")
    assert rename(root, "greet", "welcome", "prompt") == ""
    assert "welcome" in listed(client, "prompts")
    for name in ("welcome", "greet"):
        params = {"name": name, "arguments": {"name": "Ada"}}
        result = client.modern("prompts/get", params).json()["result"]
        assert result["messages"][0]["content"]["text"] == "Hello Ada"
        reference = {"ref": {"type": "ref/prompt", "name": name}}
        argument = {"argument": {"name": "name", "value": "A"}}
        done = client.modern("completion/complete", {**reference, **argument}).json()["result"]
        assert done["completion"]["values"] == ["Ada", "Alan"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_clients_that_listen_are_told_that_the_list_changed(
    board, ada, make_token, wire, root, era
):
    client = wire("board", make_token(ada, "board"))
    client.initialize()
    listed(client)
    stream = listen(client, {"toolsListChanged": True}) if era == "modern" else get_stream(client)
    with stream:
        assert era == "legacy" or stream.wait(lambda reader: bool(reader.events))
        assert rename(root, "echo", "say_back") == ""
        assert stream.heard(TOOLS_CHANGED)


def test_no_other_upstream_gets_a_former_name_before_it_is_freed(
    team, ada, make_token, wire, root, alpha, beta
):
    beta.tools = []
    client = wire("team", make_token(ada, "team"))
    listed(client)
    rename(root, "echo", "say_back")
    beta.tools = [{"name": "echo", "inputSchema": {"type": "object"}}]
    tool_catalogue.forget()
    assert "beta_echo" in listed(client)
    called(client, "echo")
    assert beta.calls("tools/call") == []
    # By hand it is not to be had either, and the page says where to free it.
    assert "former name of the tool echo of Alpha" in rename(root, "beta_echo", "echo")
    assert "echo" in root.get(page_of("say_back")).content.decode()
    assert rename(root, "say_back", "say_back", freed=["echo"]) == ""
    assert rename(root, "beta_echo", "echo") == ""
    assert len(alpha.calls("tools/call")) == 1
    called(client, "echo")
    assert len(alpha.calls("tools/call")) == len(beta.calls("tools/call")) == 1


def test_a_freed_name_is_audited_and_only_a_former_one_can_be_freed(team, ada, make_token, wire):
    listed(wire("team", make_token(ada, "team")))
    named = name_changes.of_row(row_of("echo"))
    name_changes.change_name(named, "say_back", actor=None)
    heard = []
    audit.connect(receiver := lambda **event: heard.append(event), weak=False)
    assert name_changes.change_name(named, "say_back", freed=["echo", "say_back"], actor=None)
    assert not name_changes.change_name(named, "say_back", freed=["echo"], actor=None)
    audit.disconnect(receiver)
    (event,) = heard
    assert (event["kind"], event["details"]["names"]) == ("name.freed", ["echo"])
    assert row_of("say_back").upstream_name == "echo"


def test_a_name_is_given_back(board, ada, make_token, wire, root):
    client = wire("board", make_token(ada, "board"))
    listed(client)
    for before, after in (("echo", "one"), ("one", "two"), ("two", "one"), ("one", "echo")):
        assert rename(root, before, after) == ""
    assert "echo" in listed(client)
    assert {called(client, name) for name in ("echo", "one", "two")} == {"hi"}
    assert name_changes.former_names(name_changes.of_row(row_of("echo"))) == ["one", "two"]


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("", "required"),
        ("say back", "letters of the English alphabet"),
        ("säg", "letters of the English alphabet"),
        ("a.b", "letters of the English alphabet"),
        ("x" * 65, "Use 1 to 64"),
        ("hang", "is the name of another tool, of Alpha"),
        ("beta_echo", "is the name of another tool, of Beta"),
        ("beta_hang", "is the name of another tool, of Beta"),
        ("alpha_hang", "also leads to hang of Alpha"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_reason(
    team, ada, make_token, wire, root, wanted, why
):
    client = wire("team", make_token(ada, "team"))
    before = listed(client)
    assert why in rename(root, "echo", wanted)
    assert listed(client) == before


def test_what_apps_call_another_tool_by_is_no_new_name(team, ada, make_token, wire, root, beta):
    beta.tools = [{"name": "plan", "inputSchema": {"type": "object"}}]
    client = wire("team", make_token(ada, "team"))
    listed(client)
    assert rename(root, "plan", "beta_plan") == ""
    assert rename(root, "beta_plan", "beta_plan", freed=["plan"]) == ""
    assert "also leads to beta_plan of Beta" in rename(root, "echo", "plan")
    called(client, "plan")
    assert len(beta.calls("tools/call")) == 1


def test_a_single_upstream_that_adds_a_tool_called_like_a_renamed_one_hides_neither(
    alpha, ada, make_virtual_mcp, make_token, wire, root
):
    make_virtual_mcp("solo", {"alpha": alpha.url})
    client = wire("solo", make_token(ada, "solo"))
    listed(client)
    assert rename(root, "echo", "say_back") == ""
    alpha.tools = [*alpha.tools, {"name": "say_back", "inputSchema": {"type": "object"}}]
    tool_catalogue.forget()
    listed(client)
    names = listed(client)
    assert names.count("say_back") == 1
    assert "alpha_say_back" in names
    called(client, "say_back")
    called(client, "alpha_say_back")
    assert [call["params"]["name"] for call in alpha.calls("tools/call")] == ["echo", "say_back"]


def test_a_rule_for_a_tool_stays_with_it_under_every_name(board, ada, bob, make_token, wire, root):
    leads = Group.objects.create(name="leads")
    ada.groups.add(leads)
    rule = Rule(Upstream.objects.get(key="alpha"), ("echo",), frozenset({leads}))
    actions.update_virtual_mcp(board, {}, rules=[rule], actor=None)
    route_table.forget()
    hers, his = (wire("board", make_token(person, "board")) for person in (ada, bob))
    listed(hers)
    rename(root, "echo", "say_back")
    assert "say_back" in listed(hers)
    assert "say_back" not in listed(his)
    assert called(hers, "echo") == called(hers, "say_back") == "hi"
    assert "Unknown tool" in called(his, "say_back")
    if board.choices.count() == 1:
        assert "Unknown tool" in called(his, "echo")


def test_the_call_log_says_the_public_name_of_the_time(board, ada, make_token, wire, root):
    client = wire("board", make_token(ada, "board"))
    listed(client)
    called(client, "echo")
    rename(root, "echo", "say_back")
    called(client, "echo")
    called(client, "say_back")
    call_log.call_log.flush()
    records = CallRecord.objects.filter(method="tools/call").order_by("pk")
    assert [(row.name, row.upstream) for row in records] == [
        ("echo", "alpha"),
        ("say_back", "alpha"),
        ("say_back", "alpha"),
    ]


def test_the_list_of_names_shows_each_thing_once_and_finds_it_by_a_former_name(
    team, ada, make_token, wire, root
):
    listed(wire("team", make_token(ada, "team")))
    rename(root, "echo", "say_back")
    index = reverse("admin:virtualmcp_publicname_changelist")
    shown = root.get(index, {"q": "say_back"}).content.decode()
    assert "1 public name" in shown
    found = root.get(index, {"q": "echo"}).content.decode()
    assert re.search(r">say_back</a>", found)
    page = root.get(reverse("admin:virtualmcp_virtualmcp_change", args=[team.pk]))
    assert f"{index}?virtual_mcp__id__exact={team.pk}" in page.content.decode()


def test_who_may_only_look_changes_no_name(team, ada, make_token, wire, client):
    listed(wire("team", make_token(ada, "team")))
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_publicname"))
    client.force_login(viewer, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(page_of("echo")).status_code == 200
    assert client.post(page_of("echo"), {"public_name": "say_back"}).status_code == 403
    assert row_of("echo")


def test_a_name_that_is_taken_in_the_same_moment_is_said_to_be(
    team, ada, make_token, wire, root, monkeypatch
):
    listed(wire("team", make_token(ada, "team")))
    chosen = Upstream.objects.get(key="beta")
    check = name_changes.check

    checks = []

    def and_then_another_process_pins_it(named, wanted, freed=()):
        check(named, wanted, freed)
        checks.append(wanted)
        # The page checks first, then the action.
        if len(checks) == 2:
            sighting = Sighting(chosen.pk, "beta", wanted)
            name_pins.pin(team.pk, PublicName.Kind.TOOL, [sighting], transparent=False)

    monkeypatch.setattr(name_changes, "check", and_then_another_process_pins_it)
    answer = root.post(page_of("echo"), {"public_name": "fresh"}, follow=True)
    assert "fresh has just been taken" in answer.content.decode()
    assert "was changed successfully" not in answer.content.decode()
    assert row_of("echo")


def test_what_is_not_behind_the_server_gets_no_name(team):
    stranger = routed.upstream(None, "gamma")
    with pytest.raises(ValidationError, match="Gamma is not behind Team"):
        name_changes.change_name(Named(team, stranger, "tool", "x"), "y", actor=None)
    assert not PublicName.objects.exists()


def test_a_process_of_the_release_before_still_gives_names(team):
    """It knows no former names, and writes rows while the tables are newer already."""
    server = VirtualMcp.objects.get()
    upstream = server.choices.first().upstream
    columns = "virtual_mcp_id, upstream_id, kind, upstream_name, public_name, created_at"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO virtualmcp_publicname ({columns}) VALUES (%s, %s, %s, %s, %s, %s)",
            [server.pk, upstream.pk, "tool", "added", "added", "2026-01-01 00:00:00+00:00"],
        )
    row = PublicName.objects.get(public_name="added")
    assert (row.former, row.set_by_hand) == (False, False)
