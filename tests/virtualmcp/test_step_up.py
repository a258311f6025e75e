"""Tools that change something need a scope of their own, where an administrator asks for it."""

import re
import time

import pytest
from oauth2_provider.models import get_access_token_model

from oauthserver import bearer_tokens
from oauthserver.models import ServiceAccount
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.wire_client import messages
from virtualmcp import route_table, tool_groups
from virtualmcp.models import ToolDefinition, UpstreamChoice

CALL = {"name": "exact", "arguments": {}}
READ = {"name": "echo", "arguments": {"text": "hi"}}
METADATA = "http://localhost:8000/.well-known/oauth-protected-resource/v1/mcp/board"


@pytest.fixture
def board(ada, make_virtual_mcp, make_token, wire):
    """A client that may read, of a Virtual MCP that asks separately for more."""
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url}, step_up=True)
        client = wire("board", make_token(ada, "board"))
        client.upstream = upstream
        yield client


def widen(*scopes):
    get_access_token_model().objects.update(scope=" ".join(["mcp:tools", *scopes]))
    bearer_tokens.forget()


def say_of(read=(), write=()):
    UpstreamChoice.objects.update(read_tools=list(read), write_tools=list(write))
    route_table.forget()


def test_a_tool_that_may_change_something_is_refused_with_one_complete_challenge(board):
    widen("openid", "offline_access")
    response = board.modern("tools/call", CALL)
    assert response.status_code == 403
    challenges = response.headers.get_list("www-authenticate")
    assert len(challenges) == 1
    told = dict(re.findall(r'(\w+)="([^"]*)"', challenges[0]))
    assert told["error"] == "insufficient_scope"
    assert told["scope"] == "mcp:tools mcp:tools.write"
    assert told["resource_metadata"] == METADATA
    assert board.upstream.calls("tools/call") == []
    error = response.json()["error"]
    assert error["code"] == -31003
    assert "Authorize again" in error["message"]


def test_a_stateful_client_gets_the_same_challenge(board):
    board.initialize()
    board.tell("notifications/initialized")
    response = board.legacy("tools/call", CALL)
    assert response.status_code == 403
    assert 'error="insufficient_scope"' in response.headers["www-authenticate"]


def test_the_wider_token_calls_and_lists_are_the_same_for_both(board):
    narrow = board.modern("tools/list").json()["result"]["tools"]
    widen("mcp:tools.write")
    assert board.modern("tools/list").json()["result"]["tools"] == narrow
    assert "exact" in {tool["name"] for tool in narrow}
    assert board.modern("tools/call", CALL).status_code == 200


def test_a_list_says_from_the_first_which_scopes_a_tool_needs(board):
    def told():
        listed = board.modern("tools/list").json()["result"]["tools"]
        return {tool["name"]: tool["securitySchemes"][0]["scopes"] for tool in listed}

    first = told()
    assert first["echo"] == ["mcp:tools"]
    assert first["exact"] == ["mcp:tools", "mcp:tools.write"]
    say_of(write=["echo"], read=["exact"])
    assert told()["echo"] == ["mcp:tools", "mcp:tools.write"]
    assert told()["exact"] == ["mcp:tools"]


def test_what_an_upstream_says_of_its_own_tokens_stays_where_no_step_up_is_asked_for(
    ada, make_virtual_mcp, make_token, wire
):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        listed = wire("board", make_token(ada, "board")).modern("tools/list").json()
    tools = {tool["name"]: tool for tool in listed["result"]["tools"]}
    assert tools["echo"]["securitySchemes"] == [{"type": "noauth"}]
    assert "securitySchemes" not in tools["exact"]


@pytest.mark.parametrize("meta", [{"openai": 1}, {"vendor/openai/subject": 1}])
def test_only_a_client_that_speaks_the_dialect_is_answered_in_it(board, meta):
    board.initialize()
    board.tell("notifications/initialized")
    refused = board.legacy("tools/call", {**CALL, "_meta": meta})
    assert refused.status_code == 403
    told = board.legacy("tools/call", {**CALL, "_meta": {"openai/subject": "v1/x"}})
    assert told.status_code == 200
    assert messages(told)[0]["result"]["_meta"]["mcp/www_authenticate"]


def test_the_administrators_word_goes_before_the_upstreams(board):
    say_of(read=["exact"])
    assert board.modern("tools/call", CALL).status_code == 200
    say_of(read=["exact"], write=["exact"])
    assert board.modern("tools/call", CALL).status_code == 403


def test_one_wording_in_use_that_does_not_say_so_is_enough(make_virtual_mcp):
    row = make_virtual_mcp("board", {"fake": "http://localhost:9/mcp"}, step_up=True)
    choice = row.choices.get()

    def reading_after(digest, read_only, state="approved"):
        ToolDefinition.objects.create(
            virtual_mcp=row,
            upstream=choice.upstream,
            subject="tool",
            name="look",
            digest=digest,
            read_only=read_only,
            state=state,
        )
        return tool_groups.reading_tools(row)[choice.upstream_id]

    assert tool_groups.reading_tools(row) == {choice.upstream_id: frozenset()}
    assert reading_after("1", True) == {"look"}
    assert tool_groups.groups_of(row) == (["look"], [])
    assert reading_after("2", False, "rejected") == {"look"}
    assert reading_after("3", False) == frozenset()
    assert tool_groups.groups_of(row) == ([], ["look"])
    row.step_up = False
    assert tool_groups.reading_tools(row) is None


def test_listing_teaches_which_tools_only_read(board):
    # Until the gateway has seen what the upstream says, every tool counts as one that changes.
    assert board.modern("tools/call", READ).status_code == 403
    board.modern("tools/list")
    deadline = time.monotonic() + 20
    while board.modern("tools/call", READ).status_code == 403:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert board.modern("tools/call", CALL).status_code == 403


def test_without_the_switch_nothing_is_asked_for(ada, make_virtual_mcp, make_token, wire):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url})
        response = wire("board", make_token(ada, "board")).modern("tools/call", CALL)
    assert response.status_code == 200
    assert messages(response)[0]["result"]


def test_prompts_and_resources_need_no_further_scope(board):
    assert board.modern("prompts/list").status_code == 200
    assert board.modern("resources/list").status_code == 200


def test_a_service_account_uses_what_its_token_is_for_whatever_the_groups(
    ada, oauth_client, make_virtual_mcp, make_token, wire
):
    with FakeUpstream().serve() as upstream:
        make_virtual_mcp("board", {"fake": upstream.url}, audience="groups")
        token = make_token(ada, "board")
        assert wire("board", token).modern("tools/call", READ).status_code == 404
        type(oauth_client).objects.update(authorization_grant_type="client-credentials")
        bearer_tokens.forget()
        # The grant type alone makes no service account of whoever the token is for.
        assert wire("board", token).modern("tools/call", READ).status_code == 404
        ServiceAccount.objects.create(client=oauth_client, user=ada)
        bearer_tokens.forget()
        assert wire("board", token).modern("tools/call", READ).status_code == 200
