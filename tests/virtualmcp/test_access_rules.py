"""Groups decide which upstreams and tools a person sees, in lists and calls alike."""

from dataclasses import replace

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.urls import reverse

from consent.upstream_checklist import checklist_for, reachable_upstreams
from gateway_site import people_actions
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.test_actions_and_admin import form_data
from tests.virtualmcp.wire_client import messages
from upstreams.models import Upstream
from virtualmcp import access_policy, actions, person_view, route_table
from virtualmcp.access_rules import Rule, present_rules

ECHO = {"name": "echo", "arguments": {"text": "hi"}}


@pytest.fixture(params=[1, 2], ids=["one upstream", "two upstreams"])
def board(request, make_virtual_mcp):
    """A Virtual MCP over one upstream (nothing is renamed) or two (everything is looked up)."""
    with FakeUpstream().serve() as first, FakeUpstream(era="legacy").serve() as second:
        urls = {"alpha": first.url, "beta": second.url}
        yield make_virtual_mcp("board", dict(list(urls.items())[: request.param]))


def rule(*groups: str, tools: tuple[str, ...] = (), upstream: str = "alpha") -> Rule:
    found = frozenset(Group.objects.get_or_create(name=name)[0] for name in groups)
    return Rule(Upstream.objects.get(key=upstream), tools, found)


def everywhere(row, *groups: str, tools: tuple[str, ...]) -> list[Rule]:
    """The same rule for every upstream: the fakes have equal tools."""
    keys = row.choices.values_list("upstream__key", flat=True)
    return [rule(*groups, tools=tools, upstream=key) for key in keys]


def narrow(row, *rules: Rule) -> None:
    actions.update_virtual_mcp(row, {}, rules=rules, actor=None)
    route_table.forget()


def listed(client) -> set[str]:
    return {tool["name"] for tool in client.modern("tools/list").json()["result"]["tools"]}


def refused(client, name: str) -> dict:
    body = client.modern("tools/call", {**ECHO, "name": name}).json()
    return body["error"]


def test_a_tool_for_a_group_is_neither_listed_nor_callable_for_others(
    board, ada, bob, make_token, wire
):
    narrow(board, *everywhere(board, "leads", tools=("echo",)))
    ada.groups.add(Group.objects.get(name="leads"))
    hers, his = (wire("board", make_token(person, "board")) for person in (ada, bob))
    assert "echo" in listed(hers)
    assert messages(hers.modern("tools/call", ECHO))[0]["result"]["content"][0]["text"] == "hi"
    # Bob has never listed them, and has.
    unseen = refused(his, "echo")
    names = listed(his)
    assert names
    assert "echo" not in names
    assert refused(his, "echo") == unseen
    unknown = refused(his, "no-such")
    assert unseen["code"] == unknown["code"]
    assert unseen["message"].replace("echo", "no-such") == unknown["message"]


def test_the_stateful_era_sees_the_same(board, bob, make_token, wire):
    narrow(board, *everywhere(board, "leads", tools=("echo",)))
    client = wire("board", make_token(bob, "board"))
    client.initialize()
    tools = messages(client.legacy("tools/list"))[-1]["result"]["tools"]
    assert tools
    assert "echo" not in {tool["name"] for tool in tools}
    assert "error" in messages(client.legacy("tools/call", ECHO))[-1]


def test_an_upstream_for_a_group_gives_others_nothing_at_all(board, ada, make_token, wire):
    narrow(board, rule("leads"))
    client = wire("board", make_token(ada, "board"))
    others = board.choices.count() - 1
    for method, member in (
        ("tools/list", "tools"),
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
    ):
        entries = client.modern(method).json()["result"][member]
        assert bool(entries) == bool(others), method
    assert not access_policy.open_choices(ada).filter(upstream__key="alpha").exists()
    assert [row.key for row in checklist_for(ada, "board").rows] == ["beta"][:others]
    assert not reachable_upstreams(ada).filter(key="alpha").exists()
    ada.groups.add(Group.objects.get(name="leads"))
    assert "echo" in listed(client)
    assert reachable_upstreams(ada).filter(key="alpha").exists()


def test_a_rule_without_groups_means_nobody(board, ada, make_token, wire):
    narrow(board, *everywhere(board, tools=("echo",)))
    assert "echo" not in listed(wire("board", make_token(ada, "board")))


def test_access_is_lost_with_the_group_when_it_is_left_or_deleted(board, ada, make_token, wire):
    narrow(board, *everywhere(board, "leads", tools=("echo",)))
    leads = Group.objects.get(name="leads")
    client = wire("board", make_token(ada, "board"))
    for lose in (
        lambda: ada.groups.remove(leads),
        lambda: people_actions.delete_group(leads, actor=None),
    ):
        ada.groups.add(leads)
        assert messages(client.modern("tools/call", ECHO))[0]["result"]
        lose()
        assert refused(client, "echo")


def test_a_server_for_a_group_ends_with_the_group(board, ada, make_token, wire):
    leads = Group.objects.create(name="leads")
    ada.groups.add(leads)
    actions.update_virtual_mcp(board, {"audience": "groups"}, groups=[leads], actor=None)
    client = wire("board", make_token(ada, "board"))
    assert client.modern("tools/list").status_code == 200
    people_actions.delete_group(leads, actor=None)
    assert client.modern("tools/list").status_code == 404


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rules", "groups", "upstream", "tool"),
    [
        ([((), {1})], set(), False, False),
        ([((), {1})], {1}, True, True),
        ([((), {1}), ((), {2})], {2}, True, True),
        ([(("t",), {1})], set(), True, False),
        ([(("t",), {1}), (("t", "u"), {2})], {2}, True, True),
        ([((), {1}), (("t",), {2})], {1}, True, False),
        ([((), {1}), (("t",), {2})], {2}, False, False),
        ([((), {1}), (("t",), {2})], {1, 2}, True, True),
        ([(("t",), set())], {1, 2}, True, False),
        ([(("u",), {1})], set(), True, True),
    ],
)
def test_rules_add_up(rules, groups, upstream, tool):
    from tests.virtualmcp import routed

    row = routed.virtual_mcp(routed.upstream(None, "alpha"))
    facts = route_table.read_facts(row.slug)
    alpha = facts.choices[0].upstream.id
    made = tuple(
        route_table.RuleFacts(alpha, frozenset(tools), frozenset(ids)) for tools, ids in rules
    )
    view = person_view.seen_by(replace(facts, rules=made, version=hash(made)), frozenset(groups))
    choice = view.choice_of(alpha)
    assert (choice is not None) is upstream
    assert (choice is not None and choice.shows("t")) is tool


def test_people_whose_groups_make_no_difference_share_a_view(board, ada):
    narrow(board, *everywhere(board, "leads", tools=("echo",)))
    facts = route_table.read_facts("board")
    leads = Group.objects.get(name="leads").pk
    plain = person_view.seen_by(facts, frozenset())
    assert person_view.seen_by(facts, frozenset({leads + 7})) is plain
    assert person_view.seen_by(facts, frozenset({leads})) is not plain
    assert person_view.lost_any(person_view.seen_by(facts, frozenset({leads})), facts, frozenset())
    assert not person_view.lost_any(plain, facts, frozenset({leads}))


@pytest.mark.django_db
def test_the_admin_stores_rules_with_the_server(admin_client):
    alpha = Upstream.objects.create(key="alpha", title="Alpha", url="https://alpha.example/mcp")
    leads = Group.objects.create(name="leads")
    data = form_data({"upstream": alpha.pk, "position": 1, "tool_mode": "all"})
    rules = {
        "rules-TOTAL_FORMS": "1",
        "rules-0-upstream": alpha.pk,
        "rules-0-named_tools": "delete\r\n\r\ndelete\r\npurge",
        "rules-0-groups": [leads.pk],
    }
    answer = admin_client.post(reverse("admin:virtualmcp_virtualmcp_add"), data | rules)
    assert answer.status_code == 302, answer.context["errors"]
    row = alpha.choices.get().virtual_mcp
    assert present_rules(row) == [rule("leads", tools=("delete", "purge"))]
    page = admin_client.get(reverse("admin:virtualmcp_virtualmcp_change", args=[row.pk]))
    assert "delete\npurge" in page.content.decode()
    too_long = {"rules-0-named_tools": "x" * 300}
    answer = admin_client.post(
        reverse("admin:virtualmcp_virtualmcp_add"), data | rules | too_long | {"slug": "other"}
    )
    assert "must be tool names" in answer.content.decode()


@pytest.mark.django_db
def test_what_is_no_rule_is_refused():
    from tests.virtualmcp import routed

    row = routed.virtual_mcp(routed.upstream(None, "alpha"))
    for bad in ([rule("a", tools=("",))], [rule("a", tools=("x" * 300,))], [rule("a")] * 201):
        with pytest.raises(ValidationError):
            actions.update_virtual_mcp(row, {}, rules=bad, actor=None)
    assert not row.rules.exists()


def test_what_an_upstream_may_no_longer_ask_is_gone_where_rules_exist(board):
    narrow(board, *everywhere(board, "leads", tools=("echo",)))
    board.choices.update(may_sample=True, may_list_roots=True)
    allowed = route_table.read_facts("board")
    assert all(choice.may_sample for choice in person_view.seen_by(allowed, frozenset()).choices)
    board.choices.update(may_sample=False, may_list_roots=False)
    now = route_table.read_facts("board")
    for choice in person_view.seen_by(now, frozenset()).choices:
        assert not choice.may_sample
        assert not choice.may_list_roots


@pytest.mark.parametrize("member", ["may_sample", "may_list_roots", "required"])
def test_every_setting_of_an_upstream_changes_the_version(board, member):
    choice = board.choices.first()
    before = route_table.read_facts("board").version
    setattr(choice, member, not getattr(choice, member))
    choice.save()
    assert route_table.read_facts("board").version != before


def test_a_view_is_of_the_snapshot_at_hand_even_if_versions_are_equal(board):
    narrow(board, *everywhere(board, "leads", tools=("echo",)))
    facts = route_table.read_facts("board")
    assert person_view.seen_by(facts, frozenset()).title == facts.title
    other = replace(facts, title="Another")
    assert person_view.seen_by(other, frozenset()).title == "Another"
