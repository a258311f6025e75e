"""Clients of both eras hear of changes at upstreams of both eras (protocol.md 2.3.6)."""

import asyncio
import threading

import pytest

from gateway_site import change_feed
from oauthserver import bearer_tokens
from tests.fakes import mcp_catalogue
from tests.fakes.mcp_upstream import FakeUpstream
from tests.patience import PATIENCE
from tests.virtualmcp.stream_reader import get_stream, listen, until
from tests.virtualmcp.wire_client import META, messages
from upstreams import accounts, change_streams
from upstreams.models import Upstream, UpstreamAccount
from virtualmcp.models import SessionSubscription, UpstreamChoice
from virtualmcp.routing.change_listener import ChangeListener
from virtualmcp.transport import draining, open_streams, session_notices

ERAS = ("modern", "legacy")
NOTE = "file:///notes/1"
TOOLS, UPDATED = "notifications/tools/list_changed", "notifications/resources/updated"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
SUBSCRIPTION_ID = META + "subscriptionId"


def reader(client, era, uris=()):
    """Listen in the manner of the client's era for tools and these resources."""
    if era == "modern":
        return listen(client, {"toolsListChanged": True, "resourceSubscriptions": list(uris)})
    for uri in uris:
        assert messages(client.legacy("resources/subscribe", {"uri": uri}))[0]["result"] == {}
    return get_stream(client)


def list_tools(client, era):
    """Read the tools as the client's era does."""
    if era == "modern":
        return messages(client.modern("tools/list"))[0]["result"]["tools"]
    return messages(client.legacy("tools/list"))[0]["result"]["tools"]


@pytest.mark.parametrize("era", ERAS)
def test_a_changed_list_and_an_updated_resource_are_told(board, upstream, era):
    list_tools(board, era)
    with reader(board, era, [NOTE]) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["x-accel-buffering"] == "no"
        assert upstream.wait(lambda up: up.listening == 1)
        if upstream.era == "legacy":
            assert upstream.wait(lambda up: up.subscribed == [NOTE])
        upstream.tools.append(mcp_catalogue.tool("new", "A new one", {}))
        upstream.announce(TOOLS)
        upstream.announce(UPDATED, {"uri": NOTE, "vendor": 36893488147419103232})
        assert stream.heard(TOOLS) and stream.heard(UPDATED)
        updated = next(m for m in stream.messages if m.get("method") == UPDATED)
        assert updated["params"]["uri"] == NOTE
        assert updated["params"]["vendor"] == 36893488147419103232
        ids = {m["params"].get("_meta", {}).get(SUBSCRIPTION_ID) for m in stream.messages}
        assert ids == ({"listen-1"} if era == "modern" else {None})
        assert "new" in [tool["name"] for tool in list_tools(board, era)]
    assert upstream.wait(lambda up: up.listening == 0)


@pytest.mark.parametrize("era", ERAS)
def test_a_list_that_reads_as_before_has_not_changed(board, upstream, era):
    list_tools(board, era)
    with reader(board, era, [NOTE]) as stream:
        assert upstream.wait(lambda up: up.listening == 1)
        for _ in range(5):
            upstream.announce(TOOLS)
        asked = len(upstream.calls("tools/list"))
        assert upstream.wait(lambda up: len(up.calls("tools/list")) > asked)
        upstream.announce(UPDATED, {"uri": NOTE})
        assert stream.heard(UPDATED)
        assert TOOLS not in stream.methods


def test_an_acknowledgement_comes_first_and_names_only_what_is_honoured(board, upstream):
    upstream.refused_uris.add("file:///notes/2")
    wanted = {
        "toolsListChanged": True,
        "promptsListChanged": False,
        "resourceSubscriptions": [NOTE, "file:///notes/2"],
    }
    with listen(board, wanted, id=7) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        assert stream.messages[0] == {
            "jsonrpc": "2.0",
            "method": ACKNOWLEDGED,
            "params": {
                "notifications": {"toolsListChanged": True, "resourceSubscriptions": [NOTE]},
                "_meta": {SUBSCRIPTION_ID: 7},
            },
        }
        assert stream.events[0][0] == ""


def test_what_was_not_asked_for_is_not_told(board, upstream):
    with listen(board, {"promptsListChanged": True}) as stream:
        assert upstream.wait(lambda up: up.listening == 1)
        upstream.announce(TOOLS)
        upstream.announce(UPDATED, {"uri": NOTE})
        upstream.prompts.clear()
        upstream.announce("notifications/prompts/list_changed")
        assert stream.heard("notifications/prompts/list_changed")
        assert stream.methods == [ACKNOWLEDGED, "notifications/prompts/list_changed"]


@pytest.mark.parametrize("notifications", [None, 7, {"toolsListChanged": "yes"}])
def test_a_filter_that_is_none_is_refused(board, notifications):
    with listen(board, notifications) as stream:
        assert stream.status == 400
        assert b"-32602" in stream.body and b"notifications" in stream.body


def test_too_many_resources_are_refused(board):
    uris = [f"file:///notes/{number}" for number in range(101)]
    with listen(board, {"resourceSubscriptions": uris}) as stream:
        assert (stream.status, b"-32602" in stream.body) == (400, True)


def test_a_person_has_so_many_streams_and_no_more(board, settings):
    settings.GATEWAY_STREAMS_PER_USER = 2
    with get_stream(board) as one, listen(board, {}) as other:
        assert (one.status, other.status) == (200, 200)
        with listen(board, {}) as third, get_stream(board) as fourth:
            assert (third.status, fourth.status) == (429, 429)
            assert third.headers["retry-after"]
            assert b"Close one" in third.body and b"Close one" in fourth.body
    with listen(board, {}) as again:
        assert again.status == 200


def test_a_process_has_so_many_streams_and_no_more(board, settings):
    settings.GATEWAY_MAX_STREAMS = 0
    with listen(board, {}) as one, get_stream(board) as other:
        assert (one.status, other.status) == (503, 503)


@pytest.mark.parametrize("upstream", ["modern"], indirect=True)
def test_uris_of_several_upstreams_are_told_by_their_public_names(
    ada, upstream, make_virtual_mcp, make_token, wire
):
    with FakeUpstream(era="legacy").serve() as other:
        make_virtual_mcp("team", {"alpha": upstream.url, "beta": other.url})
        client = wire("team", make_token(ada, "team"))
        wanted = {"resourceSubscriptions": ["alpha+" + NOTE, "beta+" + NOTE, "gamma+" + NOTE]}
        with listen(client, wanted) as stream:
            assert stream.wait(lambda reader: bool(reader.events))
            honoured = stream.messages[0]["params"]["notifications"]
            assert honoured == {"resourceSubscriptions": ["alpha+" + NOTE, "beta+" + NOTE]}
            other.announce(UPDATED, {"uri": NOTE + "#part"})
            assert stream.heard(UPDATED)
            assert stream.messages[1]["params"]["uri"] == "beta+" + NOTE + "#part"


@pytest.mark.parametrize("era", ERAS)
def test_a_notice_on_a_calls_stream_reaches_who_listens(board, upstream, era, monkeypatch):
    if upstream.era == "modern":
        pytest.skip("a stateless upstream has no such notices")
    upstream.get_stream = False

    async def changing(call):
        call.upstream.tools = [t for t in call.upstream.tools if t["name"] != "hang"]
        await call.emit(TOOLS, {})
        return {"content": []}

    monkeypatch.setitem(mcp_catalogue.TOOLS, "echo", changing)
    list_tools(board, era)
    with reader(board, era) as stream:
        assert upstream.wait(lambda up: any(seen.http == "GET" for seen in up.requests))
        answer = messages(board.legacy("tools/call", {"name": "echo", "arguments": {}}))
        assert [list(message)[-1] for message in answer] == ["result"]
        assert stream.heard(TOOLS)


@pytest.mark.parametrize("era", ERAS)
def test_an_administrators_choice_is_told_to_who_sees_another_list(board, upstream, era):
    list_tools(board, era)
    with reader(board, era) as stream:
        assert upstream.wait(lambda up: up.listening == 1)
        choice = UpstreamChoice.objects.get()
        choice.tool_mode, choice.chosen_tools = "chosen", ["echo"]
        choice.save()
        announce("configuration")
        assert stream.heard(TOOLS)
        assert [tool["name"] for tool in list_tools(board, era)] == ["echo"]


def test_an_account_that_is_connected_or_ended_changes_the_persons_lists(
    ada, bob, upstream, make_virtual_mcp, make_token, wire
):

    upstream.tokens = {"key-of-ada"}
    row = make_virtual_mcp("board", {"fake": upstream.url})
    Upstream.objects.update(
        credential_kind="user_key", credential_name="Authorization", credential_prefix="Bearer "
    )
    clients = [wire("board", make_token(user, "board")) for user in (ada, bob)]
    wanted = {"toolsListChanged": True}
    with listen(clients[0], wanted) as hers, listen(clients[1], wanted) as his:
        assert hers.wait(lambda r: bool(r.events)) and his.wait(lambda r: bool(r.events))
        assert upstream.listening == 0
        accounts.save_user_key(ada, row.upstreams.get(), "key-of-ada", actor=ada)
        assert hers.heard(TOOLS)
        assert upstream.wait(lambda up: up.listening == 1)
        UpstreamAccount.objects.all().delete()
        announce("credential", f"{ada.pk}:{Upstream.objects.get().pk}")
        assert upstream.wait(lambda up: up.listening == 0)
        assert his.methods == [ACKNOWLEDGED]


def test_an_account_that_comes_while_it_is_looked_for_is_listened_to(
    ada, upstream, make_virtual_mcp, make_token, wire, monkeypatch
):
    upstream.tokens = {"key-of-ada"}
    row = make_virtual_mcp("board", {"fake": upstream.url})
    Upstream.objects.update(
        credential_kind="user_key", credential_name="Authorization", credential_prefix="Bearer "
    )
    looking, real = threading.Event(), change_streams.subscribe

    async def slowly(*args):
        if not looking.is_set():
            looking.set()
            await asyncio.Event().wait()
        return await real(*args)

    with listen(wire("board", make_token(ada, "board")), {"toolsListChanged": True}) as hers:
        assert hers.wait(lambda reader: bool(reader.events))
        monkeypatch.setattr(change_streams, "subscribe", slowly)
        announce("credential", f"{ada.pk}:{row.upstreams.get().pk}")
        assert looking.wait(PATIENCE)
        accounts.save_user_key(ada, row.upstreams.get(), "key-of-ada", actor=ada)
        assert hers.heard(TOOLS)
        assert upstream.wait(lambda up: up.listening == 1)


def announce(kind, key=""):
    """Change something as the rooms do."""
    change_feed.announce(kind, key)


@pytest.mark.parametrize("era", ERAS)
def test_a_stream_ends_with_the_access_to_its_server(ada, board, era, monkeypatch):
    # Being told ends it, at once; not the next look at all streams, which never comes here.
    monkeypatch.setattr(open_streams, "TICK_SECONDS", 3600.0)
    with reader(board, era) as stream:
        assert stream.status == 200
        ada.is_active = False
        ada.save()
        assert stream.wait(lambda reader: reader.ended)
    # Other nodes hear of it after this long at most, so within the second that is promised.
    assert change_feed.POLL_SECONDS <= 0.5


def test_an_upstream_that_can_not_be_asked_keeps_no_stream_open(ada, board, monkeypatch):
    asked = threading.Event()

    async def never(listener, server, holder):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ChangeListener, "update", never)
    with listen(board, {"toolsListChanged": True}) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        announce("configuration")
        assert asked.wait(PATIENCE)
        ada.is_active = False
        ada.save()
        assert stream.wait(lambda reader: reader.ended)


def test_a_stream_ends_with_its_token(board, monkeypatch):
    monkeypatch.setattr(open_streams, "RECHECK_SECONDS", 0.1)
    with listen(board, {}) as stream:
        assert stream.wait(lambda reader: bool(reader.events))
        from oauth2_provider.models import get_access_token_model

        get_access_token_model().objects.all().delete()
        bearer_tokens.forget()
        assert stream.wait(lambda reader: reader.ended)
        assert stream.messages[-1]["result"]["_meta"][SUBSCRIPTION_ID] == "listen-1"


def test_a_silent_stream_is_kept_alive(board, monkeypatch):
    monkeypatch.setattr(open_streams, "KEEP_ALIVE_SECONDS", 0.2)
    with listen(board, {}) as stream:
        assert stream.wait(lambda reader: reader.comments >= 2)


def test_a_process_that_stops_ends_its_streams_as_their_revision_says(board, gateway):
    try:
        with listen(board, {}, id=3) as modern, get_stream(board) as legacy:
            assert modern.wait(lambda reader: bool(reader.events))
            keeper = next(k for k in open_streams._keepers.values() if k.streams)
            keeper.loop.call_soon_threadsafe(draining.begin)
            assert modern.wait(lambda reader: reader.ended)
            assert legacy.wait(lambda reader: reader.ended)
            assert modern.messages[-1]["id"] == 3
            assert modern.messages[-1]["result"]["resultType"] == "complete"
            assert modern.messages[-1]["result"]["_meta"][SUBSCRIPTION_ID] == 3
            assert legacy.retries[-1] == "1000"
        with listen(board, {}) as refused:
            assert refused.status == 503
    finally:
        draining.reset()


# The GET stream of stateful clients -----------------------------------------------------------
def test_only_the_newest_clients_get_a_priming_event(board):
    with get_stream(board) as stream:
        assert stream.wait(lambda reader: bool(reader.primed))
        assert stream.primed[0][0].endswith(".0") and stream.primed[0][1] == "1000"
    board.initialize("2025-06-18")
    with get_stream(board) as stream:
        assert stream.wait(lambda reader: reader.comments == 1)
        assert stream.primed == []


def test_who_comes_back_to_a_get_stream_is_told_that_anything_may_have_changed(board):
    board.legacy("resources/subscribe", {"uri": NOTE})
    with get_stream(board) as stream:
        assert stream.wait(lambda reader: bool(reader.primed))
        last = stream.primed[0][0]
    with get_stream(board, last_event_id=last) as again:
        assert again.heard(TOOLS) and again.heard(UPDATED)
        assert again.events[0][0].endswith(".1") and not again.events[0][0].startswith(last[:-2])


def test_of_several_get_streams_one_gets_each_notice(board, upstream):
    board.legacy("resources/subscribe", {"uri": NOTE})
    with get_stream(board) as first, get_stream(board) as second:
        assert upstream.wait(lambda up: up.listening == 1)
        settle(upstream)
        upstream.announce(UPDATED, {"uri": NOTE})
        assert second.heard(UPDATED)
        assert first.methods == []
        second.close()
        assert until(lambda: open_streams.count() == 1)
        upstream.announce(UPDATED, {"uri": NOTE})
        assert first.heard(UPDATED)


def test_a_session_goes_on_hearing_if_its_first_stream_leaves_while_it_begins(
    board, upstream, monkeypatch
):
    begun, go = threading.Event(), threading.Event()

    async def slowly(listener, uris):
        begun.set()
        while not go.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)

    monkeypatch.setattr(ChangeListener, "_resolve", slowly)
    monkeypatch.setattr(session_notices, "AGREE_SECONDS", 30)
    list_tools(board, "legacy")
    with get_stream(board) as first, get_stream(board) as second:
        assert begun.wait(PATIENCE)
        first.close()
        assert until(lambda: open_streams.count() == 1)
        go.set()
        assert upstream.wait(lambda up: up.listening == 1)
        upstream.tools.clear()
        upstream.announce(TOOLS)
        assert second.heard(TOOLS)


def settle(upstream):
    """Wait until the upstream was asked for the resource."""
    asked = "subscriptions/listen" if upstream.era == "modern" else "resources/subscribe"
    assert upstream.wait(lambda up: bool(up.calls(asked)))


def test_a_subscription_that_comes_later_and_ends(board, upstream):
    told = "subscriptions/listen" if upstream.era == "modern" else "resources/unsubscribe"
    with get_stream(board) as stream:
        assert upstream.wait(lambda up: up.listening == 1)
        board.legacy("resources/subscribe", {"uri": NOTE})
        upstream.announce(UPDATED, {"uri": NOTE})
        assert stream.heard(UPDATED)
        assert SessionSubscription.objects.count() == 1
        heard_before = len(upstream.calls(told))
        board.legacy("resources/unsubscribe", {"uri": NOTE})
        assert SessionSubscription.objects.count() == 0
        # The upstream hears of it a moment later; until then a notice may still be on its way.
        assert upstream.wait(lambda up: len(up.calls(told)) > heard_before)
        upstream.announce(UPDATED, {"uri": NOTE})
        upstream.tools.clear()
        upstream.announce(TOOLS)
        assert stream.heard(TOOLS)
        assert stream.methods.count(UPDATED) == 1


def test_what_cannot_be_subscribed_to_is_refused(board, upstream):
    upstream.refused_uris.add(NOTE)
    with get_stream(board):
        assert upstream.wait(lambda up: up.listening == 1)
        error = messages(board.legacy("resources/subscribe", {"uri": NOTE}))[0]["error"]
        assert error["code"] == -32602 and "Read it again" in error["message"]
        assert SessionSubscription.objects.count() == 0
    assert messages(board.legacy("resources/subscribe", {}))[0]["error"]["code"] == -32602


def test_a_get_stream_needs_its_session_and_event_streams(board, http):
    headers = board.headers(**board.session_headers(), accept="application/json")
    assert http.get(board.path, headers=headers).status_code == 406
    stranger = {**headers, "accept": "text/event-stream", "mcp-session-id": "x"}
    assert http.get(board.path, headers=stranger).status_code == 404
    del stranger["mcp-session-id"]
    assert http.get(board.path, headers=stranger).status_code == 405


def test_delete_ends_the_sessions_streams_and_subscriptions(board, http, upstream):
    board.legacy("resources/subscribe", {"uri": NOTE})
    with get_stream(board) as stream:
        assert stream.status == 200
        http.delete(board.path, headers=board.headers(**board.session_headers()))
        assert stream.wait(lambda reader: reader.ended)
        assert SessionSubscription.objects.count() == 0
    with get_stream(board) as stream:
        assert stream.status == 404
