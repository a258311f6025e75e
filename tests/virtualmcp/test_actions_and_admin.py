"""What administrators do to Virtual MCPs, by the actions and through the admin pages."""

import pytest
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone

from oauthserver.models import OAuthClient
from tests.virtualmcp import routed
from virtualmcp import actions, route_table
from virtualmcp.actions import Choice
from virtualmcp.models import CallRecord, PublicName, UpstreamChoice, VirtualMcp
from virtualmcp.signals import audit, changed

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh():
    routed.forget_everything()
    yield
    routed.forget_everything()


@pytest.fixture
def heard():
    events = []

    def hear(sender, signal, **facts):
        events.append(facts)

    audit.connect(hear)
    changed.connect(hear)
    yield events
    audit.disconnect(hear)
    changed.disconnect(hear)


@pytest.fixture
def root():
    return User.objects.create_superuser("root")


def made(**more):
    data = {"slug": "team", "title": "Team", **more}
    return actions.create_virtual_mcp(data, actor=None)


def test_creating_writes_choices_in_order_and_tells(heard, root):
    first, second = routed.upstream(None, "one"), routed.upstream(None, "two")
    row = actions.create_virtual_mcp(
        {"slug": "team", "title": "Team", "audience": "everyone"},
        groups=[Group.objects.create(name="staff")],
        choices=[Choice(second, tools=["a"]), Choice(first, required=False)],
        actor=root,
    )
    choices = list(row.choices.values_list("upstream__key", "required", "chosen_tools"))
    assert choices == [("two", True, ["a"]), ("one", False, [])]
    kinds = [event["kind"] for event in heard]
    assert kinds == ["virtual_mcp.created", "configuration"]
    assert heard[0]["user"] == root
    assert heard[0]["target"] == "team"


def test_the_slug_cannot_change():
    row = made()
    with pytest.raises(ValidationError, match="address cannot change"):
        actions.update_virtual_mcp(row, {"slug": "other"}, actor=None)
    assert VirtualMcp.objects.get().slug == "team"


@pytest.mark.parametrize("slug", ["", "Team", "-a", "a-", "a b", "x" * 64, "a/b", "ä"])
def test_a_slug_that_is_no_address_is_refused(slug):
    with pytest.raises(ValidationError):
        made(slug=slug)


def test_unknown_fields_and_bad_choices_are_refused():
    row, chosen = made(), routed.upstream(None, "one")
    with pytest.raises(ValidationError):
        actions.update_virtual_mcp(row, {"id": 7}, actor=None)
    for choices in (
        [Choice(chosen), Choice(chosen)],
        [Choice(chosen, tools=[""])],
        [Choice(chosen, tools=[7])],
        [Choice(chosen, tools=["x"] * 1001)],
    ):
        with pytest.raises(ValidationError):
            actions.update_virtual_mcp(row, {}, choices=choices, actor=None)
    assert not UpstreamChoice.objects.exists()


def test_changing_nothing_tells_nobody(heard):
    row = made()
    heard.clear()
    actions.update_virtual_mcp(row, {"title": "Team"}, groups=[], choices=[], actor=None)
    assert heard == []


def test_a_change_is_told_with_before_and_after_and_reaches_the_snapshot(heard):
    row = made(audience="everyone")
    assert route_table.read_facts("team").choices == ()
    chosen = routed.upstream(None, "one")
    actions.update_virtual_mcp(row, {"audience": "groups"}, choices=[Choice(chosen)], actor=None)
    details = next(e["details"] for e in heard if e["kind"] == "virtual_mcp.changed")
    assert details["audience"] == {"before": "everyone", "after": "groups"}
    assert [c["upstream"] for c in details["choices"]["after"]] == ["one"]
    assert len(route_table.read_facts("team").choices) == 1


def test_deleting_takes_the_names_along(heard):
    row, chosen = made(), routed.upstream(None, "one")
    PublicName.objects.create(
        virtual_mcp=row, upstream=chosen, kind="tool", upstream_name="a", public_name="a"
    )
    actions.delete_virtual_mcp(row, actor=None)
    assert not PublicName.objects.exists()
    assert heard[-2]["kind"] == "virtual_mcp.deleted"


def form_data(*choices, **more):
    data = {
        "title": "Team",
        "slug": "team",
        "enabled": "on",
        "audience": "everyone",
        "new_definitions": "trust",
        "changed_definitions": "alert",
        "ask_again": "grown",
        "app_domains": "drop",
        "naming": "bare",
        "argument_uris": "keep",
        "choices-TOTAL_FORMS": str(len(choices)),
        "choices-INITIAL_FORMS": "0",
        "rules-TOTAL_FORMS": "0",
        "rules-INITIAL_FORMS": "0",
        **more,
    }
    for number, choice in enumerate(choices):
        data |= {f"choices-{number}-{name}": value for name, value in choice.items()}
    return data


def test_the_admin_creates_a_server_with_upstreams_in_one_go(admin_client, heard):
    one, two = routed.upstream(None, "one"), routed.upstream(None, "two")
    answer = admin_client.post(
        reverse("admin:virtualmcp_virtualmcp_add"),
        form_data(
            {"upstream": one.pk, "position": 2, "tool_mode": "all", "required": "on"},
            {"upstream": two.pk, "position": 1, "tool_mode": "chosen", "other_tools": "a\r\nb\r\n"},
        ),
    )
    assert answer.status_code == 302, answer.context["errors"]
    choices = VirtualMcp.objects.get().choices.values_list(
        "upstream__key", "required", "chosen_tools"
    )
    assert list(choices) == [("two", False, ["a", "b"]), ("one", True, [])]
    assert [e["kind"] for e in heard].count("virtual_mcp.created") == 1


def test_a_new_server_has_a_place_ready_for_its_first_upstream(admin_client):
    page = admin_client.get("/admin/virtualmcp/virtualmcp/add/").content.decode()
    assert 'name="choices-0-upstream"' in page
    data = form_data()
    # What the browser sends of a place that was left empty.
    data |= {"choices-TOTAL_FORMS": 1, "choices-0-position": 0, "choices-0-required": "on"}
    data |= {"choices-0-tool_mode": "all", "choices-0-upstream": ""}
    answer = admin_client.post("/admin/virtualmcp/virtualmcp/add/", data)
    assert answer.status_code == 302, answer.content.decode()
    server = VirtualMcp.objects.get()
    assert not server.choices.exists()
    page = admin_client.get(f"/admin/virtualmcp/virtualmcp/{server.pk}/change/").content.decode()
    assert 'name="choices-0-upstream"' not in page


def test_a_server_that_is_saved_without_an_upstream_gets_a_warning(admin_client):
    add = reverse("admin:virtualmcp_virtualmcp_add")
    page = admin_client.post(add, form_data(), follow=True).content.decode()
    assert "Team has no upstream, so it offers nothing" in page
    one = {"upstream": routed.upstream(None, "one").pk, "position": 1, "tool_mode": "all"}
    page = admin_client.post(add, form_data(one, title="B", slug="b"), follow=True)
    assert "has no upstream" not in page.content.decode()


def test_a_server_that_offers_only_chosen_tools_of_which_none_is_chosen_gets_a_warning(
    admin_client,
):
    add = reverse("admin:virtualmcp_virtualmcp_add")
    one = {"upstream": routed.upstream(None, "one").pk, "position": 1, "tool_mode": "chosen"}
    page = admin_client.post(add, form_data(one), follow=True).content.decode()
    assert "Team offers no tool of" in page
    named = one | {"other_tools": "search"}
    page = admin_client.post(add, form_data(named, title="B", slug="b"), follow=True)
    assert "offers no tool of" not in page.content.decode()


def test_a_slug_that_is_taken_is_said_to_be(admin_client):
    made()
    slug = VirtualMcp.objects.get().slug
    page = admin_client.post(reverse("admin:virtualmcp_virtualmcp_add"), form_data(slug=slug))
    assert "Another Virtual MCP server has this slug." in page.content.decode()


def test_a_server_for_chosen_groups_of_which_none_is_chosen_gets_a_warning(admin_client):
    add = reverse("admin:virtualmcp_virtualmcp_add")
    page = admin_client.post(add, form_data(audience="groups"), follow=True).content.decode()
    assert "Nobody may use Team yet" in page
    group = Group.objects.create(name="staff")
    more = {"title": "B", "slug": "b", "audience": "groups", "groups": [group.pk]}
    page = admin_client.post(add, form_data(**more), follow=True).content.decode()
    assert "Nobody may use" not in page


def test_the_call_log_names_people_and_clients_and_is_searched_by_them(admin_client):
    ada = User.objects.create_user("ada")
    OAuthClient.objects.create(client_id="https://chat.example/c", name="Chat")
    facts = {"virtual_mcp": "team", "method": "tools/call", "duration_ms": 12.4}
    facts |= {"at": timezone.now(), "client_id": "https://chat.example/c"}
    CallRecord.objects.create(**facts, name="find", user_id=ada.pk, outcome="ok")
    CallRecord.objects.create(**facts, name="send", user_id=4711, outcome="error -32602")
    log = reverse("admin:virtualmcp_callrecord_changelist")
    page = admin_client.get(log).content.decode()
    for said in ("find (tools/call)", "ada", "Chat", "Answered", "12 ms"):
        assert said in page
    assert "account 4711, deleted" in page and "Failed: -32602" in page
    assert "Nobody has called a tool yet" not in page
    for query, there, missing in (
        ("?q=ada", "find", "send"),
        ("?ended=failed", "send", "find"),
        ("?ended=answered", "find", "send"),
    ):
        page = admin_client.get(log + query).content.decode()
        assert f"{there} (tools/call)" in page and f"{missing} (tools/call)" not in page
    row = CallRecord.objects.get(name="find")
    page = admin_client.get(reverse("admin:virtualmcp_callrecord_change", args=[row.pk]))
    assert "https://chat.example/c" in page.content.decode()
    assert "historylink" not in page.content.decode()


def test_the_admin_shows_a_doubled_upstream_as_a_mistake(admin_client):
    one = routed.upstream(None, "one")
    twice = {"upstream": one.pk, "position": 0, "tool_mode": "all"}
    answer = admin_client.post(
        reverse("admin:virtualmcp_virtualmcp_add"), form_data(twice, dict(twice))
    )
    assert answer.status_code == 200
    assert not VirtualMcp.objects.exists()


def test_the_change_page_shows_the_address_and_the_known_tools(admin_client):
    row = made()
    chosen = routed.upstream(None, "one")
    choice = UpstreamChoice.objects.create(
        virtual_mcp=row, upstream=chosen, tool_mode="chosen", chosen_tools=["search"]
    )
    PublicName.objects.create(
        virtual_mcp=row, upstream=chosen, kind="tool", upstream_name="list", public_name="list"
    )
    page = reverse("admin:virtualmcp_virtualmcp_change", args=[row.pk])
    shown = admin_client.get(page).content.decode()
    assert "http://localhost:8000/v1/mcp/team" in shown
    assert 'name="slug"' not in shown
    for tool in ("list", "search"):
        assert f'value="{tool}"' in shown
    data = form_data(
        {
            "id": choice.pk,
            "upstream": chosen.pk,
            "position": 0,
            "tool_mode": "chosen",
            "picked_tools": ["list"],
        },
        slug="other",
        **{"choices-INITIAL_FORMS": "1"},
    )
    answer = admin_client.post(page, data)
    assert answer.status_code == 302, answer.context["errors"]
    row.refresh_from_db()
    assert row.slug == "team"
    assert row.choices.get().chosen_tools == ["list"]


def test_the_admin_deletes_a_server_that_has_names(admin_client, heard):
    row, chosen = made(), routed.upstream(None, "one")
    PublicName.objects.create(
        virtual_mcp=row, upstream=chosen, kind="tool", upstream_name="a", public_name="a"
    )
    page = reverse("admin:virtualmcp_virtualmcp_delete", args=[row.pk])
    assert admin_client.post(page, {"post": "yes"}).status_code == 302
    assert not VirtualMcp.objects.exists()
    assert "virtual_mcp.deleted" in [event["kind"] for event in heard]


def test_the_call_log_and_the_names_are_only_read(admin_client):
    from django.utils import timezone

    CallRecord.objects.create(
        at=timezone.now(), virtual_mcp="team", method="tools/call", outcome="ok", duration_ms=1.5
    )
    for model in ("callrecord", "publicname"):
        assert admin_client.get(reverse(f"admin:virtualmcp_{model}_changelist")).status_code == 200
        assert admin_client.get(reverse(f"admin:virtualmcp_{model}_add")).status_code == 403
    record = CallRecord.objects.get()
    page = reverse("admin:virtualmcp_callrecord_change", args=[record.pk])
    assert admin_client.post(page, {"method": "x"}).status_code == 403


def test_text_of_upstreams_is_escaped_in_the_admin(admin_client):
    row = made()
    chosen = routed.upstream(None, "one")
    UpstreamChoice.objects.create(virtual_mcp=row, upstream=chosen, tool_mode="chosen")
    PublicName.objects.create(
        virtual_mcp=row,
        upstream=chosen,
        kind="tool",
        upstream_name="<script>alert(1)</script>",
        public_name="x",
    )
    page = reverse("admin:virtualmcp_virtualmcp_change", args=[row.pk])
    assert b"<script>alert" not in admin_client.get(page).content
