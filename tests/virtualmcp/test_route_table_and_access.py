"""Snapshots of Virtual MCPs and who may use them."""

import asyncio

import pytest
from django.contrib.auth.models import AnonymousUser, Group
from django.db import connection
from django.test.utils import CaptureQueriesContext

from oauthserver import audience
from tests.virtualmcp import routed
from tests.virtualmcp.routed import in_thread
from virtualmcp import access_policy, change_hearing, route_table
from virtualmcp.models import PublicName, VirtualMcp


@pytest.fixture(autouse=True)
def db(django_db_setup, django_db_blocker):
    with routed.own_rows(django_db_blocker):
        yield


def test_a_snapshot_takes_the_same_few_queries_whatever_the_size():
    counts = []
    for size in (1, 12):
        rows = [routed.upstream(None, f"up{size}-{number}") for number in range(size)]
        row = routed.virtual_mcp(*rows, slug=f"of-{size}")
        for upstream in rows:
            PublicName.objects.create(
                virtual_mcp=row,
                upstream=upstream,
                kind="tool",
                upstream_name=upstream.key,
                public_name=upstream.key,
            )
        with CaptureQueriesContext(
            connection,
        ) as queries:
            facts = route_table.read_facts(f"of-{size}")
        assert len(facts.tools) == size
        counts.append(len(queries))
    assert counts == [6, 6]


def test_what_is_switched_off_is_not_in_the_snapshot():
    on, off = routed.upstream(None, "on"), routed.upstream(None, "off", enabled=False)
    row = routed.virtual_mcp(on, off)
    facts = route_table.read_facts("team")
    assert [choice.upstream.key for choice in facts.choices] == ["on"]
    assert facts.transparent
    VirtualMcp.objects.filter(pk=row.pk).update(enabled=False)
    assert route_table.read_facts("team") is None
    assert route_table.read_facts("no-such") is None


def test_the_version_changes_with_the_content_and_only_with_it():
    row = routed.virtual_mcp(routed.upstream(None, "one"))
    before = route_table.read_facts("team").version
    assert route_table.read_facts("team").version == before
    VirtualMcp.objects.filter(pk=row.pk).update(instructions="new")
    assert route_table.read_facts("team").version != before


async def test_a_warm_snapshot_costs_no_query_and_simultaneous_readers_share_one():
    await in_thread(lambda: routed.virtual_mcp(routed.upstream(None, "one")))
    with routed.counted_queries() as queries:
        found = await asyncio.gather(*(route_table.load("team") for _ in range(5)))
        assert len(queries) == 6
        assert route_table.cached("team") is await route_table.load("team") is found[0]
        assert len(queries) == 6


async def test_an_unknown_slug_is_remembered_briefly_and_boundedly(monkeypatch):
    monkeypatch.setattr(route_table, "MOST_ABSENT", 3)
    for number in range(6):
        assert await route_table.load(f"none-{number}") is None
    with routed.counted_queries() as queries:
        await route_table.load("none-5")
        assert queries == []
        await route_table.load("none-0")
        assert queries
    assert len(route_table._snapshots._absent) == 3


async def test_a_read_that_began_before_a_change_is_not_kept(monkeypatch):
    await in_thread(lambda: routed.virtual_mcp(routed.upstream(None, "one")))
    read_facts = route_table.read_facts

    def changed_meanwhile(slug):
        facts = read_facts(slug)
        route_table.forget()
        return facts

    monkeypatch.setattr(route_table, "read_facts", changed_meanwhile)
    assert await route_table.load("team") is not None
    assert route_table.cached("team") is None


async def test_every_change_of_configuration_drops_the_snapshots():
    await in_thread(lambda: routed.virtual_mcp(routed.upstream(None, "one")))
    for kind, key in (("configuration", "some-upstream"), ("access", "7"), ("configuration", "")):
        await route_table.load("team")
        change_hearing.hear(kind, key)
        assert route_table.cached("team") is None


@pytest.mark.parametrize(
    ("audience_kind", "named", "member", "allowed"),
    [
        ("everyone", False, False, True),
        ("groups", False, False, False),
        ("groups", False, True, False),
        ("groups", True, False, False),
        ("groups", True, True, True),
    ],
)
def test_memory_and_database_decide_alike_and_fail_closed(audience_kind, named, member, allowed):
    staff = Group.objects.create(name="staff")
    ada = routed.person()
    if member:
        ada.groups.add(staff)
    row = routed.virtual_mcp(routed.upstream(None, "one"), audience=audience_kind)
    if named:
        row.groups.add(staff)
    groups = frozenset(ada.groups.values_list("pk", flat=True))
    facts = route_table.read_facts("team")
    assert access_policy.may_use(routed.holder(ada.pk, groups=groups), facts) is allowed
    assert access_policy.may_use_model(ada, row) is allowed
    assert list(access_policy.visible_to(ada)) == ([row] if allowed else [])


def test_nobody_sees_what_is_switched_off_and_strangers_see_nothing():
    row = routed.virtual_mcp(routed.upstream(None, "one"))
    ada = routed.person()
    assert not access_policy.visible_to(AnonymousUser()).exists()
    VirtualMcp.objects.filter(pk=row.pk).update(enabled=False)
    assert not access_policy.may_use_model(ada, row)
    VirtualMcp.objects.filter(pk=row.pk).update(enabled=True)
    ada.is_active = False
    assert not access_policy.may_use_model(ada, row)


def test_a_person_in_several_groups_sees_a_server_once():
    first, second = Group.objects.create(name="a"), Group.objects.create(name="b")
    ada = routed.person()
    ada.groups.set([first, second])
    row = routed.virtual_mcp(routed.upstream(None, "one"), audience="groups")
    row.groups.set([first, second])
    assert list(access_policy.visible_to(ada)) == [row]


def test_the_authorization_server_finds_exactly_the_published_addresses():
    routed.virtual_mcp(routed.upstream(None, "one"))
    ada = routed.person()
    uri = "http://localhost:8000/v1/mcp/team"
    found = audience.find_resource(uri)
    assert (found.uri, found.slug, found.title) == (uri, "team", "Team")
    assert audience.may_use(ada, found)
    assert audience.resources_for(ada) == [found]
    for other in (uri + "x", uri + "/x", uri.upper(), "http://localhost:8000/v1/mcp/"):
        assert audience.find_resource(other) is None
