"""Handing a question of an upstream over to the process that runs the call it is about."""

import pytest

from tests.upstreams.relaying import NO_CREDENTIAL, facts_for
from upstreams.canonical_call import QuestionNotPossible
from upstreams.json_rpc import Message, Raw
from upstreams.session_opening import LegacySession, SessionKey
from virtualmcp.models import SharedNote
from virtualmcp.routing import shared_questions

pytestmark = pytest.mark.django_db(transaction=True)

QUESTION = Message("2.0", 7, "elicitation/create", Raw(b"{}"))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> LegacySession:
    """A session that processes share; another one is not waited for."""
    monkeypatch.setattr(shared_questions, "ANSWER_SECONDS", 0.05)
    facts = facts_for("http://127.0.0.1:9/mcp", era="legacy")
    key = SessionKey(facts.id, facts.url, "none", "person-1", b"{}")
    opened = LegacySession(key, facts, NO_CREDENTIAL, b"s", "2025-11-25", b"{}", ())
    opened.shared = "shared"
    return opened


async def test_a_question_that_was_refused_for_nobody_took_it_can_not_be_taken_later(
    session: LegacySession,
) -> None:
    with pytest.raises(QuestionNotPossible):
        await shared_questions.hand_over(session, "gone", QUESTION)
    assert await SharedNote.objects.acount() == 0


async def test_a_question_that_was_taken_is_not_refused_though_its_taker_is_slow_to_say_so(
    session: LegacySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = shared_questions.shared_notes.put

    async def taken_at_once(key: str, value: bytes, seconds: float) -> None:
        await put(key, value, seconds)
        assert await shared_questions.shared_notes.discard(key, value)

    monkeypatch.setattr(shared_questions.shared_notes, "put", taken_at_once)
    await shared_questions.hand_over(session, "slow", QUESTION)
