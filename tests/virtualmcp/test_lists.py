"""Lists of one and of several upstreams: whole, partial, stale, bounded, in pages."""

import asyncio
import hashlib
import json
import time

import pytest

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp import routed
from tests.virtualmcp.routed import Client, in_thread, legacy
from upstreams import authorized_call, circuit_breaker
from upstreams.canonical_call import Outcome
from upstreams.models import Upstream, UpstreamAccount
from virtualmcp import change_hearing, name_pins, published_lists, route_table, tool_catalogue
from virtualmcp.models import PublicName, UpstreamChoice, VirtualMcp
from virtualmcp.routing import list_reading
from virtualmcp.tool_catalogue import catalogue

PROBLEMS = "gateway/upstreams"
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


async def single(fake, **more):
    return await in_thread(lambda: routed.virtual_mcp(routed.upstream(fake, "alpha", **more)))


async def both(alpha, beta, **more):
    def make():
        rows = [routed.upstream(alpha, "alpha", **more), routed.upstream(beta, "beta", **more)]
        return routed.virtual_mcp(*rows)

    return await in_thread(make)


def tool(name, **more):
    return {"name": name, "inputSchema": {"type": "object"}, **more}


async def pins():
    rows = PublicName.objects.filter(kind="tool")
    return await in_thread(lambda: dict(rows.values_list("public_name", "upstream__key")))


async def bound(condition, timeout=PATIENCE):
    until = time.monotonic() + timeout
    while not await condition():
        assert time.monotonic() < until, "it did not come to be"
        await asyncio.sleep(0.02)


async def test_a_single_upstream_is_shown_byte_for_byte(alpha):
    await single(alpha)
    answer = await Client().send("tools/list")
    assert [t["name"] for t in json.loads(answer.result)["tools"]] == [
        t["name"] for t in alpha.tools
    ]
    for entry in alpha.tools:
        assert json.dumps(entry).encode() in answer.result


async def test_unknown_members_of_a_single_upstreams_list_survive(alpha):
    await single(alpha)
    assert (await Client().result("tools/list"))["vendorList"] is None


async def test_a_stateless_list_is_typed_hinted_and_signed_by_the_gateway(alpha):
    await single(alpha)
    result = await Client().result("tools/list")
    assert result["resultType"] == "complete"
    assert result["cacheScope"] == "private"
    assert 0 < result["ttlMs"] <= 60_000
    assert result["_meta"][SERVER_INFO]["name"] == "team"


async def test_a_stateful_list_has_none_of_that(alpha):
    await single(alpha)
    result = await legacy().result("tools/list")
    assert not {"resultType", "ttlMs", "cacheScope", "_meta"} & set(result)


async def test_a_warm_list_asks_no_upstream_and_no_database(alpha, beta):
    await both(alpha, beta)
    client = Client()
    await client.names()
    await routed.settled()
    first = await client.send("tools/list")
    asked = len(alpha.requests), len(beta.requests)
    with routed.counted_queries() as queries:
        again = await client.send("tools/list")
    assert queries == []
    assert (len(alpha.requests), len(beta.requests)) == asked
    assert json.loads(again.result)["tools"] == json.loads(first.result)["tools"]


async def test_several_upstreams_keep_their_order_and_the_first_owner_keeps_the_name(alpha, beta):
    alpha.tools, beta.tools = [tool("search"), tool("a")], [tool("b"), tool("search")]
    await both(alpha, beta)
    assert await Client().names() == ["search", "a", "b", "beta_search"]


async def test_every_new_name_has_its_upstreams_key_where_the_administrator_wants_that(alpha, beta):
    alpha.tools, beta.tools = [tool("search")], [tool("find"), tool("beta_find")]
    row = await single(alpha)
    assert await Client().names() == ["search"]
    await routed.settled()

    def add():
        chosen = routed.upstream(beta, "beta")
        UpstreamChoice.objects.create(virtual_mcp=row, upstream=chosen, position=1)
        VirtualMcp.objects.update(naming="prefixed")

    await in_thread(add)
    routed.forget_everything()
    # What clients were given stays; a bare name reaches its only owner all the same.
    assert await Client().names() == ["search", "beta_find", "beta_beta_find"]
    await Client().call("find")
    assert beta.calls("tools/call")[-1]["params"]["name"] == "find"
    assert await Client().names("prompts/list") == ["alpha_greet", "beta_greet"]


async def test_lists_are_equal_after_a_restart(alpha, beta):
    await both(alpha, beta)
    first = (await Client().result("tools/list"))["tools"]
    routed.forget_everything()
    assert (await Client().result("tools/list"))["tools"] == first


async def test_a_second_upstream_renames_nothing_that_exists(alpha, beta):
    alpha.tools, beta.tools = [tool("search")], [tool("search"), tool("aaa")]
    row = await single(alpha)
    assert await Client().names() == ["search"]

    await routed.settled()
    assert await pins() == {"search": "alpha"}

    def add():
        UpstreamChoice.objects.filter(virtual_mcp=row).update(position=1)
        chosen = routed.upstream(beta, "beta")
        UpstreamChoice.objects.create(virtual_mcp=row, upstream=chosen, position=0)

    await in_thread(add)
    routed.forget_everything()
    assert await Client().names() == ["beta_search", "aaa", "search"]


async def test_an_upstream_that_adds_a_name_in_use_does_not_take_it_over(alpha, beta):
    alpha.tools, beta.tools = [tool("a")], [tool("search")]
    await both(alpha, beta)
    await Client().names()
    alpha.tools = [tool("search"), tool("a")]
    tool_catalogue.forget()
    assert await Client().names() == ["alpha_search", "a", "search"]
    assert (await pins())["search"] == "beta"


async def test_two_nodes_pinning_at_once_agree(alpha, beta):
    from virtualmcp.tool_names import Sighting

    row = await both(alpha, beta)
    ids = [choice.upstream_id for choice in await in_thread(lambda: list(row.choices.all()))]
    first, second = (
        [Sighting(ids[0], "alpha", f"t{n}") for n in range(40)],
        [Sighting(ids[1], "beta", f"t{n}") for n in range(40)],
    )
    pin = name_pins.pin
    kind = PublicName.Kind.TOOL
    await asyncio.gather(
        *(
            in_thread(pin, row.pk, kind, sightings, transparent=False)
            for sightings in (first, second, first + second, second + first)
        )
    )
    names = await in_thread(
        lambda: list(PublicName.objects.values_list("upstream__key", "upstream_name"))
    )
    assert len(names) == len(set(names)) == 80


async def test_an_upstream_that_invents_names_cannot_fill_the_database(alpha, beta, monkeypatch):
    monkeypatch.setattr(name_pins, "MOST_PER_UPSTREAM", 3)
    alpha.tools, beta.tools = [tool(f"a{n}") for n in range(9)], [tool("b")]
    await both(alpha, beta)
    assert await Client().names() == ["a0", "a1", "a2", "b"]
    assert len(await pins()) == 4


async def test_the_administrators_choice_of_tools_is_all_that_shows(alpha):
    row = await single(alpha)
    await in_thread(
        lambda: row.choices.update(tool_mode="chosen", chosen_tools=["echo", "not there"])
    )
    assert await Client().names() == ["echo"]


async def test_all_pages_of_an_upstream_are_read(alpha, beta):
    alpha.page_size = beta.page_size = 3
    await both(alpha, beta)
    assert len(await Client().names()) == len(alpha.tools) + len(beta.tools)


async def test_a_dead_upstream_is_named_and_the_others_answer(alpha):
    def make():
        live, dead = routed.upstream(alpha, "alpha"), routed.upstream(None, "dead")
        routed.virtual_mcp(dead, live)

    await in_thread(make)
    result = await Client().result("tools/list")
    assert [t["name"] for t in result["tools"]] == [t["name"] for t in alpha.tools]
    (problem,) = result["_meta"][PROBLEMS]
    assert (problem["key"], problem["title"]) == ("dead", "Dead")
    assert problem["problem"] in ("unreachable", "timeout")
    assert result["ttlMs"] == 0


async def test_a_hanging_upstream_holds_nobody_up_beyond_its_deadline(alpha, beta):
    await both(alpha, beta)
    await in_thread(Upstream.objects.filter(key="beta").update, list_timeout=1)
    beta.canned["tools/list"] = Canned(delay=3_600)
    result = await Client().result("tools/list")
    assert result["tools"]
    assert result["_meta"][PROBLEMS][0]["problem"] == "timeout"


async def test_an_upstream_that_keeps_hanging_costs_the_others_nothing_any_more(
    alpha, beta, monkeypatch
):
    """The bound: one list deadline for the first failures, then nothing while the circuit is
    open; what it last listed stands in, and is marked as old."""
    await both(alpha, beta)
    before = await Client().names()
    await in_thread(Upstream.objects.filter(key="beta").update, list_timeout=1)
    route_table.forget()
    monkeypatch.setattr(tool_catalogue, "STALE", -1000.0)
    beta.canned["tools/list"] = Canned(delay=3_600)
    asked = []
    for _ in range(circuit_breaker.FAILURES + 2):
        catalogue.expire()
        result = await Client().result("tools/list")
        asked.append(len(beta.calls("tools/list")))
        assert [tool["name"] for tool in result["tools"]] == before
        (problem,) = result["_meta"][PROBLEMS]
        assert (problem["key"], problem["stale"]) == ("beta", True)
    assert asked == [2, 3, 4, 4, 4]
    assert problem["problem"] == "circuit_open"


async def test_the_last_good_list_stands_in_for_a_failing_upstream(alpha, beta, monkeypatch):
    await both(alpha, beta)
    before = await Client().names()
    monkeypatch.setattr(tool_catalogue, "STALE", -1000.0)
    beta.canned["tools/list"] = Canned(503, b"")
    result = await Client().result("tools/list")
    assert [t["name"] for t in result["tools"]] == before
    (problem,) = result["_meta"][PROBLEMS]
    assert problem["key"] == "beta"
    assert problem["stale"] is True


async def test_a_last_good_list_older_than_a_day_is_not_served(alpha, beta, monkeypatch):
    await both(alpha, beta)
    await Client().names()
    monkeypatch.setattr(tool_catalogue, "STALE", -1000.0)
    monkeypatch.setattr(tool_catalogue, "LAST_GOOD", -1.0)
    beta.canned["tools/list"] = Canned(503, b"")
    result = await Client().result("tools/list")
    assert len(result["tools"]) == len(alpha.tools)


async def test_when_all_fail_it_is_an_error_and_not_an_empty_list():
    await in_thread(lambda: routed.virtual_mcp(routed.upstream(None, "dead")))
    error = await Client().error("tools/list")
    assert error.code == -32603
    assert "Dead" in error.message
    assert error.http_status == 200


async def test_an_upstream_without_prompts_has_an_empty_list(alpha, beta):
    await both(alpha, beta)
    for fake in (alpha, beta):
        fake.prompts = []
    assert await Client().names("prompts/list") == []


async def test_a_stale_list_is_served_at_once_and_renewed_behind(alpha, monkeypatch):
    monkeypatch.setattr(tool_catalogue, "LEAST_FRESH", 0.0)
    await single(alpha)
    before = await Client().names()
    alpha.tools = [tool("new")]
    assert await Client().names() == before

    async def renewed():
        return await Client().names() == ["new"]

    await bound(renewed)


async def test_simultaneous_readers_share_one_reading(alpha):
    await single(alpha)
    await asyncio.gather(*(Client().names() for _ in range(8)))
    assert len(alpha.calls("tools/list")) == 1


async def test_a_reader_who_leaves_does_not_stop_the_others(alpha):
    await single(alpha)
    leaving = asyncio.create_task(Client().names())
    staying = asyncio.create_task(Client().names())
    assert await alpha.seen(lambda fake: bool(fake.requests))
    leaving.cancel()
    assert await staying


class Endless(list):
    """Entries of which there are always more pages."""

    def __len__(self):
        return 10**6


async def test_a_list_without_an_end_is_cut_and_that_is_said(alpha, monkeypatch):
    monkeypatch.setattr(list_reading, "MOST_PAGES", 5)
    await single(alpha)
    alpha.page_size, alpha.tools = 1, Endless([tool("x")])
    result = await Client().result("tools/list")
    assert [t["name"] for t in result["tools"]] == ["x"]
    assert result["_meta"][PROBLEMS][0]["problem"] == "truncated"
    assert len(alpha.calls("tools/list")) == 5


async def test_more_tools_than_the_gateway_takes_are_cut_and_that_is_said(alpha):
    alpha.tools = [tool(f"t{number}") for number in range(1200)]
    await single(alpha)
    result = await Client().result("tools/list")
    assert len(result["tools"]) == 1000
    assert result["_meta"][PROBLEMS][0]["problem"] == "truncated"


async def test_bad_and_doubled_tools_are_left_out_and_the_good_stay(alpha, caplog):
    bad = {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}, "type": "object"}
    alpha.tools = [
        tool("good"),
        tool(""),
        {"name": 7},
        tool("nul\0"),
        tool("bidi\u202e"),
        tool("good", title="again"),
        tool("bad", inputSchema=bad),
        tool("task", execution={"taskSupport": "required"}),
        tool("maybe", execution={"taskSupport": "optional"}),
    ]
    await single(alpha)
    result = await Client().result("tools/list")
    assert [t["name"] for t in result["tools"]] == ["good", "maybe"]
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (
        "alpha: left out of what is offered: 5 entries of tools/list are unusable or come "
        in (said[0])
    )
    assert "'bad': x-mcp-header on a property of another type" in said[1]
    tasks = Client(capabilities={"extensions": {"io.modelcontextprotocol/tasks": {}}})
    assert await tasks.names() == ["good", "task", "maybe"]
    assert all("execution" not in listed for listed in result["tools"])


async def test_pages_of_ours_follow_each_other_by_sealed_cursors(alpha, beta, monkeypatch):
    monkeypatch.setattr(published_lists, "PAGE_ENTRIES", 5)
    await both(alpha, beta)
    seen, cursor, rounds = [], "", 0
    while cursor is not None:
        result = await Client().result("tools/list", {"cursor": cursor})
        seen += [t["name"] for t in result["tools"]]
        cursor, rounds = result.get("nextCursor"), rounds + 1
    assert rounds == -(-len(seen) // 5)
    assert len(seen) == len(set(seen)) == len(alpha.tools) + len(beta.tools)


async def test_bad_foreign_and_outdated_cursors_are_refused(alpha, monkeypatch):
    monkeypatch.setattr(published_lists, "PAGE_ENTRIES", 5)
    await single(alpha)
    cursor = (await Client().result("tools/list"))["nextCursor"]
    for client, given in (
        (Client(), "nonsense"),
        (Client(), cursor[:-2] + "xx"),
        (Client(user_id=2), cursor),
    ):
        assert (await client.error("tools/list", {"cursor": given})).code == -32602
    assert (await Client().error("prompts/list", {"cursor": cursor})).code == -32602
    assert (await Client().error("tools/list", {"cursor": 7})).code == -32602
    alpha.tools = alpha.tools[:-1]
    tool_catalogue.forget()
    assert (await Client().error("tools/list", {"cursor": cursor})).code == -32602


async def test_a_stateful_client_gets_no_output_schema_that_is_not_an_objects(alpha):
    alpha.tools = [
        tool("array", outputSchema={"type": "array"}),
        tool("object", outputSchema={"type": "object"}),
    ]
    await single(alpha)
    result = await legacy().result("tools/list")
    assert ["outputSchema" in t for t in result["tools"]] == [False, True]
    result = await Client().result("tools/list")
    assert all("outputSchema" in t for t in result["tools"])


async def test_app_references_are_mapped_alike_in_tools_and_resources(alpha, beta):
    await both(alpha, beta)
    tools = (await Client().result("tools/list"))["tools"]
    board = next(t for t in tools if t["name"] == "beta_show_board")
    uri = "ui://beta+board/view.html"
    assert board["_meta"]["ui"]["resourceUri"] == uri
    assert board["_meta"]["openai/outputTemplate"] == uri
    assert uri in await Client().names("resources/list")
    assert await Client().names("resources/templates/list") == [
        "alpha+notes://{number}",
        "beta+notes://{number}",
    ]


async def test_the_domain_of_an_app_is_dropped_and_the_rest_of_its_settings_stay(alpha):
    settings = {"domain": "x.example", "csp": {"connectDomains": ["https://a.example"]}}
    alpha.resources = [{"uri": "ui://a", "name": "a", "_meta": {"ui": settings}}]
    await single(alpha)
    (entry,) = (await Client().result("resources/list"))["resources"]
    assert entry["_meta"]["ui"] == {"csp": settings["csp"]}


async def test_the_domain_of_an_app_is_made_anew_for_this_servers_address_where_it_is_wanted(
    alpha, beta
):
    theirs = f"{'a' * 32}.claudemcpcontent.com"
    page = {"uri": "ui://a", "name": "a", "_meta": {"ui": {"domain": theirs}}}
    alpha.resources = [page]
    await in_thread(
        lambda: routed.virtual_mcp(
            routed.upstream(alpha, "alpha"),
            routed.upstream(beta, "beta"),
            app_domains="recompute",
        )
    )
    client = Client()
    listed = (await client.result("resources/list"))["resources"][0]
    address = (await client.server()).resource
    domain = hashlib.sha256(address.encode()).hexdigest()[:32] + ".claudemcpcontent.com"
    assert listed["_meta"]["ui"]["domain"] == domain


async def test_an_https_resource_of_two_upstreams_is_listed_once(alpha, beta):
    shared = {"uri": "https://example.com/a", "name": "a"}
    alpha.resources, beta.resources = [shared], [shared, {"uri": "x:1", "name": "x"}]
    await both(alpha, beta)
    assert await Client().names("resources/list") == ["https://example.com/a", "beta+x:1"]


async def test_unconnected_upstreams_are_named_with_a_link_for_this_person(alpha, beta):
    def make():
        ada = routed.person()
        first = routed.upstream(alpha, "alpha")
        second = routed.upstream(beta, "beta", credential_kind="user_key")
        routed.virtual_mcp(first, second)
        return ada

    ada = await in_thread(make)
    result = await Client(user_id=ada.pk).result("tools/list")
    assert len(result["tools"]) == len(alpha.tools)
    (problem,) = result["_meta"][PROBLEMS]
    assert problem["problem"] == "not_connected"
    assert "/connect/beta/" in problem["connect_url"]
    assert not beta.requests


async def test_a_list_of_nothing_but_unconnected_upstreams_says_where_to_connect(alpha):
    await single(alpha, credential_kind="user_key")
    error = await Client().error("tools/list")
    assert error.code == -32603
    assert "/connect/alpha/" in error.message
    assert "/connect/alpha/" in json.loads(error.data)["connect_url"]


async def connected(fake, tokens):
    """Give each of some people their own key for one upstream."""
    from upstreams import accounts

    def make():
        row = routed.upstream(fake, "alpha", credential_kind="user_key")
        routed.virtual_mcp(row)
        people = []
        for name, token in tokens.items():
            person = routed.person(name)
            accounts.save_user_key(person, row, token, actor=person)
            people.append(person)
        return people

    return await in_thread(make)


async def test_two_peoples_lists_never_mix(alpha):
    alpha.tokens = {"key-of-ada-0000000", "key-of-bob-0000000"}
    ada, bob = await connected(alpha, {"ada": "key-of-ada-0000000", "bob": "key-of-bob-0000000"})
    alpha.tools = [tool("for_ada")]
    assert await Client(user_id=ada.pk).names() == ["for_ada"]
    alpha.tools = [tool("for_bob")]
    assert await Client(user_id=bob.pk).names() == ["for_bob"]
    assert await Client(user_id=ada.pk).names() == ["for_ada"]
    assert await in_thread(UpstreamAccount.objects.count) == 2


async def test_a_reading_under_way_at_a_change_is_not_served_again(alpha):
    await single(alpha)
    reading = asyncio.create_task(Client().names())
    assert await alpha.seen(lambda fake: bool(fake.requests))
    tool_catalogue.forget()
    names = await reading
    assert catalogue._kept
    assert not any(kept.usable for kept in catalogue._kept.values())
    alpha.tools = [*alpha.tools, tool("new")]
    assert await Client().names() == [*names, "new"]


async def test_a_change_in_the_admin_has_lists_read_again_but_keeps_the_last_good_ones(alpha):
    await single(alpha)
    before = await Client().names()
    tool_catalogue.forget()
    alpha.canned["tools/list"] = Canned(503, b"")
    result = await Client().result("tools/list")
    assert [t["name"] for t in result["tools"]] == before
    assert result["_meta"][PROBLEMS][0]["stale"] is True


async def test_a_notice_during_a_call_has_the_lists_read_again(alpha, beta):
    from tests.fakes import mcp_catalogue

    await both(alpha, beta)
    await Client().names()

    async def changing(call):
        await call.emit("notifications/tools/list_changed", {})
        return {"content": []}

    mcp_catalogue.TOOLS["echo"], before = changing, mcp_catalogue.TOOLS["echo"]
    try:
        stateless, stateful = Client(), legacy()
        await stateful.names()
        await stateful.call("beta_echo")
        await stateless.call("beta_echo")
    finally:
        mcp_catalogue.TOOLS["echo"] = before
    # What is told on a call's stream goes to whoever listens, and not onto that stream.
    assert stateless.sink.notices == stateful.sink.notices == []
    beta.tools = [tool("new")]
    assert "new" in await Client().names()


async def test_a_replaced_shared_credential_takes_its_lists_along(alpha):
    await single(alpha)
    await Client().names()
    upstream_id = (await Client().server()).choices[0].upstream.id
    change_hearing.hear("credential", f"7:{upstream_id}")
    assert catalogue._kept
    change_hearing.hear("credential", f":{upstream_id}")
    assert not catalogue._kept and not catalogue._bytes


async def test_memory_of_lists_is_bounded_and_equal_lists_are_held_once(alpha, monkeypatch):
    await single(alpha)
    for number in range(4):
        await Client(capabilities={"x": {"n": number}}).names()
    assert len({id(kept.content) for kept in catalogue._kept.values()}) == 1
    size = next(iter(catalogue._kept.values())).content.size
    assert catalogue._bytes == size
    monkeypatch.setattr(tool_catalogue, "MOST_ENTRIES", 2)
    await Client(capabilities={"x": {"n": 9}}).names()
    assert len(catalogue._kept) == 2
    monkeypatch.setattr(tool_catalogue, "MOST_BYTES", size // 2)
    alpha.tools = alpha.tools[:-1]
    await Client(capabilities={"x": {"n": 10}}).names()
    assert len(catalogue._kept) == 1
    catalogue.forget()
    assert catalogue._bytes == 0


async def test_an_upstream_that_does_not_know_the_method_has_an_empty_list(alpha, monkeypatch):
    await single(alpha)
    call_as = authorized_call.call_as

    async def without_prompts(user_id, facts, call, sink):
        if call.method == "prompts/list":
            return Outcome(error=b'{"code":-32601,"message":"no"}')
        return await call_as(user_id, facts, call, sink)

    monkeypatch.setattr(authorized_call, "call_as", without_prompts)
    result = await Client().result("prompts/list")
    assert result["prompts"] == []
    assert PROBLEMS not in result["_meta"]


@pytest.mark.parametrize(
    "result",
    [
        b'{"tools":{}}',
        b'{"tools":null}',
        b"{}",
        b"[]",
        b'{"tools":[],"resultType":"input_required"}',
        b'{"tools":[],"resultType":"vendor/partial"}',
        b'{"tools":[],"nextCursor":"same"}',
    ],
)
async def test_what_is_no_list_is_a_failure_and_not_an_empty_list(alpha, monkeypatch, result):
    await single(alpha)

    async def answered(user_id, facts, call, sink):
        return Outcome(result=result)

    monkeypatch.setattr(authorized_call, "call_as", answered)
    error = await Client().error("tools/list")
    assert error.code == -32603
    assert json.loads(error.data)[PROBLEMS][0]["problem"] == "answer_invalid"


async def test_an_empty_cursor_is_not_the_end_of_an_upstreams_list(alpha, monkeypatch):
    await single(alpha)
    pages = [b'{"tools":[{"name":"a"}],"nextCursor":""}', b'{"tools":[{"name":"b"}]}']

    asked = []

    async def answered(user_id, facts, call, sink):
        asked.append(json.loads(call.params))
        return Outcome(result=pages.pop(0))

    monkeypatch.setattr(authorized_call, "call_as", answered)
    assert await Client().names() == ["a", "b"]
    assert [page.get("cursor") for page in asked] == [None, ""]
