"""Listening to upstreams of both eras: shared streams, acknowledgements, breaks, and their end."""

import asyncio
import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.mcp_upstream import Canned, FakeUpstream
from tests.patience import PATIENCE
from tests.upstreams.relaying import bearer, facts_for, until
from upstreams import change_streams, credentials, legacy_listening, legacy_sessions, mcp_client
from upstreams.canonical_call import ClientFacts
from upstreams.change_interest import UPDATED, Interest, from_filter, part_of
from upstreams.credentials import Credential
from upstreams.session_opening import LegacySession
from upstreams.shared_interest import Subscription

ERAS = ("modern", "legacy")
NOTE, OTHER = "file:///notes/1", "file:///notes/2"
TOOLS = "notifications/tools/list_changed"
PROMPTS = "notifications/prompts/list_changed"
ALL_LISTS = Interest(frozenset(("tools", "prompts", "resources")))
CLIENT = ClientFacts(fingerprint="f")
KNOWN_LEGACY = {"detected_era": "legacy", "detected_revision": "2025-11-25"}


@pytest.fixture(params=ERAS)
def upstream(request: pytest.FixtureRequest) -> Iterator[FakeUpstream]:
    """An upstream of each era."""
    with FakeUpstream(era=request.param).serve() as upstream:
        yield upstream


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short pauses, and nothing remembered."""
    mcp_client.forget()
    monkeypatch.setattr(change_streams, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(change_streams, "LONGEST_PAUSE", 0.1)
    yield
    mcp_client.forget()


class Ear:
    """One listener and what it heard."""

    def __init__(self, interest: Interest, user_id: int = 1) -> None:
        self.interest, self.user_id = interest, user_id
        self.heard: list[tuple[str, Any]] = []
        self.part: Subscription | None = None

    async def open(self, upstream: FakeUpstream, **changes: Any) -> Interest:
        """Listen; returns what the upstream agreed to."""
        facts = facts_for(upstream.url, **changes)
        self.part = await change_streams.subscribe(
            self.user_id, facts, CLIENT, self.interest, self.take
        )
        return await self.part.settled(PATIENCE)

    def take(self, method: str, params: bytes) -> None:
        self.heard.append((method, json.loads(params or b"{}")))

    def uris(self) -> list[str]:
        """Return the URIs of what was updated."""
        return [params["uri"] for method, params in self.heard if method == UPDATED]

    def close(self) -> None:
        """Listen no more."""
        assert self.part is not None
        self.part.close()


async def test_a_notice_reaches_who_asked_for_it(upstream: FakeUpstream) -> None:
    tools, note = Ear(Interest(frozenset({"tools"}))), Ear(Interest(uris=frozenset({NOTE})))
    assert await tools.open(upstream) == tools.interest
    assert await note.open(upstream) == note.interest
    upstream.announce(TOOLS)
    upstream.announce("notifications/prompts/list_changed")
    upstream.announce(UPDATED, {"uri": NOTE})
    await until(lambda: bool(note.heard) and bool(tools.heard))
    assert [method for method, _ in tools.heard] == [TOOLS]
    assert note.uris() == [NOTE]
    tools.close()
    note.close()
    await until(lambda: upstream.listening == 0)


async def test_one_stream_serves_everybody_with_the_same_credential() -> None:
    with FakeUpstream().serve() as upstream:
        ears = [Ear(ALL_LISTS, user_id) for user_id in range(1, 9)]
        await asyncio.gather(*(ear.open(upstream) for ear in ears))
        assert change_streams.open_streams() == 1
        assert upstream.listening == 1
        upstream.announce(TOOLS)
        await until(lambda: all(ear.heard for ear in ears))
        for ear in ears[:-1]:
            ear.close()
        assert upstream.listening == 1
        ears[-1].close()
        await until(lambda: upstream.listening == 0)


async def test_stateful_sessions_are_listened_to_apart() -> None:
    with FakeUpstream(era="legacy").serve() as upstream:
        ears = [Ear(ALL_LISTS, user_id) for user_id in (1, 2)]
        for ear in ears:
            await ear.open(upstream, detected_era="legacy", detected_revision="2025-11-25")
        assert upstream.listening == 2
        assert len(set(upstream.initialized)) == 2
        for ear in ears:
            ear.close()


async def test_only_what_the_upstream_agrees_to_is_honoured(upstream: FakeUpstream) -> None:
    upstream.refused_uris.add(OTHER)
    del upstream.capabilities["prompts"]["listChanged"]
    ear = Ear(Interest(ALL_LISTS.lists, frozenset({NOTE, OTHER})))
    honoured = await ear.open(upstream)
    assert honoured == Interest(frozenset({"tools", "resources"}), frozenset({NOTE}))
    ear.close()
    await until(lambda: upstream.listening == 0)


async def test_an_upstream_without_subscriptions_is_not_asked(upstream: FakeUpstream) -> None:
    upstream.capabilities = {"tools": {}, "resources": {}}
    ear = Ear(Interest(ALL_LISTS.lists, frozenset({NOTE})))
    assert await ear.open(upstream) == Interest()
    assert not upstream.calls("subscriptions/listen") + upstream.calls("resources/subscribe")
    ear.close()


async def test_the_old_stream_stays_until_the_new_one_is_acknowledged() -> None:
    with FakeUpstream().serve() as upstream:
        first, second = Ear(Interest(frozenset({"tools"}))), Ear(Interest(uris=frozenset({NOTE})))
        await first.open(upstream)
        await second.open(upstream)
        listens = upstream.calls("subscriptions/listen")
        assert [message["params"]["notifications"] for message in listens] == [
            {"toolsListChanged": True},
            {"toolsListChanged": True, "resourceSubscriptions": [NOTE]},
        ]
        await until(lambda: upstream.listening == 1)
        order = [e for e in upstream.events if "listening" in e]
        assert order == ["listening", "listening", "stopped listening"]
        first.close()
        second.close()


async def test_a_subscription_ends_with_its_last_listener() -> None:
    with FakeUpstream(era="legacy").serve() as upstream:
        known = {"detected_era": "legacy", "detected_revision": "2025-11-25"}
        one, other = Ear(Interest(uris=frozenset({NOTE}))), Ear(Interest(uris=frozenset({NOTE})))
        await one.open(upstream, **known)
        await other.open(upstream, **known)
        assert upstream.subscribed == [NOTE]
        one.close()
        third = Ear(Interest(uris=frozenset({OTHER})))
        await third.open(upstream, **known)
        assert upstream.subscribed == [NOTE, OTHER]
        other.close()
        await until(lambda: upstream.subscribed == [OTHER])
        third.close()
        await until(lambda: upstream.subscribed == [])


async def test_after_a_break_everything_is_said_to_have_changed(upstream: FakeUpstream) -> None:
    ear = Ear(Interest(frozenset({"tools"}), frozenset({NOTE})))
    await ear.open(upstream)
    if upstream.era == "legacy":
        upstream.forget_sessions()
    upstream.end_streams()
    await until(lambda: ear.uris() == [NOTE] and (TOOLS, {}) in ear.heard)
    await until(lambda: upstream.listening == 1)
    upstream.announce(UPDATED, {"uri": NOTE})
    await until(lambda: ear.uris() == [NOTE, NOTE])
    ear.close()
    await until(lambda: upstream.listening == 0)


async def test_an_upstream_that_is_away_is_listened_to_when_it_is_back() -> None:
    with FakeUpstream(canned={}).serve() as upstream:
        ear = Ear(Interest(frozenset({"tools"})))
        broken = {"call_timeout": 1.0}
        upstream.tokens = {"nobody has this"}
        assert await ear.open(upstream, **broken) == Interest()
        ear.close()
        upstream.tokens = set()
        assert await ear.open(upstream) == ear.interest
        ear.close()


async def test_a_token_that_is_refused_is_renewed_once_and_listened_with(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, renewals = ["old"], []

    async def stored(user_id: int, facts: Any) -> Credential:
        return bearer(tokens[-1])

    async def renew(user_id: int, facts: Any, refused: Credential) -> Credential:
        renewals.append(refused)
        tokens.append("good" if len(renewals) == 1 else "bad")
        return bearer(tokens[-1])

    monkeypatch.setattr(credentials, "credential_for", stored)
    monkeypatch.setattr(credentials, "renew", renew)
    upstream.tokens = {"good"}
    ear = Ear(Interest(frozenset({"tools"}), frozenset({NOTE})))
    await ear.open(upstream, credential_kind="user_oauth")
    await until(lambda: upstream.listening == 1)
    assert renewals == [bearer("old")]
    monkeypatch.setattr(change_streams, "REFUSED_PAUSE", 0.02)
    upstream.tokens = {"nobody has this"}
    upstream.end_streams()
    await until(lambda: len(renewals) == 2)
    seen = len(upstream.requests)
    await until(lambda: len(upstream.requests) > seen + 3)
    assert len(renewals) == 2
    ear.close()


async def test_an_upstream_without_get_streams_honours_no_subscription() -> None:
    with FakeUpstream(era="legacy", get_stream=False).serve() as upstream:
        ear = Ear(Interest(frozenset({"tools"}), frozenset({NOTE})))
        assert await ear.open(upstream) == Interest(frozenset({"tools"}))
        change_streams.deliver(1, "none", TOOLS, b"{}")
        assert ear.heard == [(TOOLS, {})]
        ear.close()


async def test_a_server_that_answers_get_with_400_is_not_taken_to_have_lost_the_session() -> None:
    with FakeUpstream(era="legacy", canned={"": Canned(400, b"only POST")}).serve() as upstream:
        ear = Ear(Interest(frozenset({"tools"}), frozenset({NOTE})))
        assert await ear.open(upstream, **KNOWN_LEGACY) == Interest(frozenset({"tools"}))
        assert len(upstream.initialized) == 1
        ear.close()


async def test_a_400_that_speaks_of_the_session_leads_to_a_new_one() -> None:
    gone = Canned(400, b"Bad Request: No valid session ID provided")
    with FakeUpstream(era="legacy", canned={"": gone}).serve() as upstream:
        ear = Ear(Interest(frozenset({"tools"})))
        assert await ear.open(upstream, **KNOWN_LEGACY) == Interest()
        upstream.canned.clear()
        await until(lambda: upstream.listening == 1)
        assert len(upstream.initialized) > 1
        ear.close()


async def test_late_unsubscribes_take_no_new_subscription_back() -> None:
    uris = frozenset({NOTE, OTHER, "file:///notes/3"})
    with FakeUpstream(era="legacy").serve() as upstream:
        ear = Ear(Interest(uris=uris))
        assert await ear.open(upstream, **KNOWN_LEGACY) == ear.interest
        # The first of the old subscriptions is taken back slowly while listening begins anew.
        upstream.script = [Canned(500, delay=0.3)]
        change_streams.restart(1)
        await until(lambda: len(upstream.calls("resources/subscribe")) == 2 * len(uris))
        await until(lambda: not legacy_sessions.sessions()._background)
        assert upstream.script == [] and len(upstream.initialized) == 1
        assert len(upstream.calls("resources/unsubscribe")) == 1
        assert set(upstream.subscribed) == uris
        ear.close()
        await until(lambda: upstream.listening == 0)


async def test_pings_are_answered_and_questions_refused_outside_of_calls() -> None:
    with FakeUpstream(era="legacy").serve() as upstream:
        ear = Ear(Interest(frozenset({"tools"})))
        await ear.open(upstream)
        upstream.announce_raw({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        upstream.announce_raw({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})

        def answers(up: FakeUpstream) -> dict[str, Any]:
            return {
                seen.message["id"]: seen.message
                for seen in up.requests
                if "method" not in seen.message and "id" in seen.message
            }

        assert await upstream.seen(lambda up: set(answers(up)) == {"p", "q"})
        assert answers(upstream)["p"]["result"] == {}
        assert answers(upstream)["q"]["error"]["code"] == -32603
        ear.close()


async def test_a_notice_that_nobody_can_read_ends_no_stream() -> None:
    with FakeUpstream(era="legacy").serve() as upstream:
        ear = Ear(Interest(frozenset({"tools"})))
        await ear.open(upstream)
        await until(lambda: upstream.listening == 1)
        for params in ([], 7, None):
            malformed: Any = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
            upstream.announce_raw({**malformed, "params": params})
        upstream.announce_raw({"jsonrpc": "2.0", "method": TOOLS, "params": None})
        await until(lambda: bool(ear.heard))
        assert [method for method, _ in ear.heard] == [TOOLS]
        assert len([seen for seen in upstream.requests if seen.http == "GET"]) == 1
        ear.close()


async def test_several_notices_may_come_in_one_array() -> None:
    with FakeUpstream(era="legacy", revision="2025-03-26").serve() as upstream:
        ear = Ear(Interest(frozenset({"tools", "prompts"})))
        await ear.open(upstream)
        await until(lambda: upstream.listening == 1)
        notices: Any = [{"jsonrpc": "2.0", "method": m} for m in (TOOLS, PROMPTS)]
        upstream.announce_raw(notices)
        await until(lambda: {method for method, _ in ear.heard} == {TOOLS, PROMPTS})
        ear.close()


def test_a_part_of_a_resource_belongs_to_it() -> None:
    assert part_of("file:///a/b", "file:///a")
    assert part_of("notes://1#x", "notes://1")
    assert not part_of("notes://10", "notes://1")
    assert not part_of("notes://1", "notes://1")


@pytest.mark.parametrize(
    "found", [None, [], {"toolsListChanged": 1}, {"resourceSubscriptions": [7]}]
)
def test_a_filter_of_the_wrong_type_is_refused(found: object) -> None:
    with pytest.raises(ValueError, match="notifications"):
        from_filter(found)


async def test_when_anything_may_have_changed_everybody_hears_of_their_own(
    upstream: FakeUpstream,
) -> None:
    note, other = (Ear(Interest(uris=frozenset({uri}))) for uri in (NOTE, OTHER))
    await note.open(upstream)
    await other.open(upstream)
    assert note.part is not None
    change_streams.make_up_anywhere(facts_for(upstream.url).id, note.part.credential_id)
    await until(lambda: bool(note.heard) and bool(other.heard))
    assert (note.uris(), other.uris()) == ([NOTE], [OTHER])
    note.close()
    other.close()


async def test_what_is_cut_off_before_it_begins_leaves_nothing_behind() -> None:
    pool = legacy_sessions.sessions()
    session = LegacySession.__new__(LegacySession)
    work = legacy_listening.unsubscribe_all(session, frozenset({NOTE}))
    pool.run(work)
    (task,) = pool._background
    task.cancel()
    await asyncio.wait((task,))
    await until(lambda: inspect.getcoroutinestate(work) == inspect.CORO_CLOSED)
    assert not pool._background
