"""Sessions of stateful clients: bound, ended, remembered, and readable by any node."""

import json

import pytest
from django.db import OperationalError

from gateway_site import change_feed
from oauthserver.bearer_tokens import TokenHolder
from virtualmcp.eras import era_in, log_levels
from virtualmcp.eras.era_in import ClientTooTalkative, SessionUnknown
from virtualmcp.models import EndedSession
from virtualmcp.routing import shared_notes
from virtualmcp.signals import changed

pytestmark = pytest.mark.django_db(transaction=True)


def holder(user_id: int = 1, client_id: str = "c1") -> TokenHolder:
    return TokenHolder(user_id, "ada", client_id, "C", frozenset(), "", 0.0, frozenset(), "digest")


def opened(revision: str = "2025-11-25", info: bytes = b'{"name":"x"}') -> bytes:
    session_id, _ = era_in.open_session("board", holder(), revision, b'{"roots":{}}', info)
    return session_id.encode()


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2024-11-05"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ],
)
def test_initialize_is_answered_with_a_revision_both_know(asked, answered):
    assert era_in.negotiated(asked) == answered


async def test_a_session_id_holds_what_the_client_said():
    session = await era_in.find(opened("2024-11-05"), "board", holder())
    assert session.revision == "2024-11-05"
    assert session.facts.revision == "2025-03-26"
    assert session.facts.capabilities == b'{"roots":{}}'
    assert session.facts.client_info == b'{"name":"x"}'
    assert session.facts.fingerprint


async def test_any_node_opens_what_another_one_sealed():
    session_id = opened()
    era_in.forget()
    assert (await era_in.find(session_id, "board", holder())).revision == "2025-11-25"


@pytest.mark.parametrize(
    ("slug", "who"),
    [("other", holder()), ("board", holder(user_id=2)), ("board", holder(client_id="c2"))],
)
async def test_a_session_of_another_server_person_or_client_is_unknown(slug, who):
    session_id = opened()
    await era_in.find(session_id, "board", holder())
    assert era_in.remembered(session_id, slug, who) is None
    with pytest.raises(SessionUnknown):
        await era_in.find(session_id, slug, who)


@pytest.mark.parametrize("guess", [b"", b"x", b"\x00\xff", b"v1.aa.bb", b"v1." + b"a" * 10_240])
async def test_a_guessed_session_is_unknown(guess):
    with pytest.raises(SessionUnknown):
        await era_in.find(guess, "board", holder())


async def test_an_ended_session_is_unknown_here_at_once_and_elsewhere_by_the_database():
    heard = []

    def hear(sender, kind, key, **_):
        heard.append((kind, key))

    changed.connect(hear)
    session_id = opened()
    session = await era_in.find(session_id, "board", holder())
    await era_in.end(session)
    changed.disconnect(hear)
    assert heard == [("session", era_in.digest_of(session_id))]
    assert era_in.remembered(session_id, "board", holder()) is None
    era_in.forget()
    with pytest.raises(SessionUnknown):
        await era_in.find(session_id, "board", holder())
    await era_in.end(session)


async def test_hearing_that_a_session_ended_elsewhere_drops_it():
    one, other = opened(), opened()
    for session_id in (one, other):
        await era_in.find(session_id, "board", holder())
    era_in.forget(era_in.digest_of(one))
    assert era_in.remembered(one, "board", holder()) is None
    assert era_in.remembered(other, "board", holder()) is not None


async def test_storage_holds_no_session_id():
    session_id = opened()
    await era_in.end(await era_in.find(session_id, "board", holder()))
    row = await EndedSession.objects.aget()
    assert session_id.decode() not in row.digest


async def test_the_log_level_is_shared_by_the_nodes():
    session_id = opened()
    here = await era_in.find(session_id, "board", holder())
    assert era_in.log_level(here) == "info"
    era_in.hear_level(f"{era_in.digest_of(session_id)} error")
    assert era_in.log_level(here) == "error"
    era_in.hear_level("another debug")
    assert era_in.log_level(here) == "error"
    era_in.forget()
    there = await era_in.find(session_id, "board", holder())
    await era_in.set_log_level(there, "warning")
    era_in.forget()
    assert (await era_in.find(session_id, "board", holder())).log_level == "warning"


async def test_a_log_level_that_can_not_be_shared_does_not_end_sessions(monkeypatch):
    async def away(*_):
        raise OperationalError("away")

    monkeypatch.setattr(shared_notes, "get", away)
    monkeypatch.setattr(shared_notes, "put", away)
    session = await era_in.find(opened(), "board", holder())
    await era_in.set_log_level(session, "debug")
    assert era_in.log_level(session) == "debug"


async def test_setting_a_level_waits_for_other_processes_only_where_there_are_any(monkeypatch):
    waited = []

    async def wait(seconds):
        waited.append(seconds)

    monkeypatch.setattr(log_levels.asyncio, "sleep", wait)
    session = await era_in.find(opened(), "board", holder())
    await era_in.set_log_level(session, "debug")
    assert waited == []
    mine = shared_notes.PROCESS
    monkeypatch.setattr(shared_notes, "PROCESS", "another")
    log_levels.forget()
    await era_in.find(opened(), "board", holder())
    monkeypatch.setattr(shared_notes, "PROCESS", mine)
    await era_in.set_log_level(session, "error")
    assert waited == [log_levels.SETTLE_SECONDS]
    # A process hears of it, or knows that it may not have heard, before the others are answered.
    assert log_levels.SETTLE_SECONDS >= 2 * change_feed.POLL_SECONDS


async def test_a_level_that_changes_while_a_session_is_looked_up_is_not_missed(monkeypatch):
    session_id = opened()
    read = log_levels.kept

    async def reading(digest):
        level = await read(digest)
        era_in.hear_level(f"{digest} error")
        return level

    monkeypatch.setattr(log_levels, "kept", reading)
    await era_in.find(session_id, "board", holder())
    assert era_in.remembered(session_id, "board", holder()) is None


async def test_a_talkative_client_keeps_its_name_and_a_session_id_of_bearable_length():
    info = {"name": "x" * 500, "version": "1", "icons": [{"src": "data:," + "a" * 5_000}]}
    session_id = opened(info=json.dumps(info).encode())
    assert len(session_id) < 1_000
    session = await era_in.find(session_id, "board", holder())
    assert json.loads(session.facts.client_info) == {"name": "x" * 200, "version": "1"}


def test_capabilities_beyond_measure_open_no_session():
    capabilities = json.dumps({"experimental": {str(n): {} for n in range(1_000)}}).encode()
    with pytest.raises(ClientTooTalkative):
        era_in.open_session("board", holder(), "2025-11-25", capabilities, b"")
