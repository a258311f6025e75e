"""What can go wrong around a parked call: lost connections, a lapsed lease, a database away."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from tests.patience import PATIENCE
from upstreams.canonical_call import Outcome, QuestionOrigin
from virtualmcp.models import SharedNote
from virtualmcp.routing import (
    node_mail,
    parked_mail,
    parked_retries,
    parking,
    shared_notes,
)
from virtualmcp.routing.client_request import Answer
from virtualmcp.routing.parked_calls import ParkedCall
from virtualmcp.routing.parked_mail import Answers, Held, Left, Question

pytestmark = pytest.mark.django_db(transaction=True)

ACCEPT = b'{"action":"accept","content":{}}'
ORIGIN = QuestionOrigin(b"7", "call", b"session", "2025-06-18", b"event-1")
HELD = Held(b"session", "2025-06-18", "call", b"event-1", {})


class Quiet:
    """A client's stream that is of no interest."""

    async def notify(self, method: str, params: bytes) -> None: ...

    async def ask(self, *_: Any) -> Outcome:
        raise AssertionError("a parked call asks by its result")

    async def answered(self, question_id: bytes) -> None: ...

    async def resumable(self, origin: object) -> None: ...


class Interview:
    """A call that asks once, and then goes on until it is told to end."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_end = asyncio.Event()
        self.made = 0
        self.heard: list[Outcome] = []
        self.cancelled = False
        user = SimpleNamespace(user_id=1)
        self.request: Any = SimpleNamespace(holder=user, progress_token=b"")
        self.call = ParkedCall(self.request, self.questions)

    def questions(self, call_id: str, questions: dict[str, Any]) -> bytes:
        self.asked = list(questions)
        return b'{"resultType":"input_required"}'

    async def work(self, sink: Any) -> Answer:
        self.made += 1
        params = b'{"message":"?","requestedSchema":{"type":"object","properties":{}}}'
        try:
            self.heard.append(await sink.ask("elicitation/create", params, ORIGIN))
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Answer(result=b'{"done":true}')

    async def begin(self) -> None:
        assert b"input_required" in (await self.call.first_round(self.work, Quiet())).result

    async def send(self, message: Answers | Left) -> None:
        await node_mail.send(parked_mail.address(self.call.id), parked_mail.encode(message))

    def answers(self, reply: str) -> Answers:
        return Answers(reply, {self.asked[0]: ACCEPT})


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def end_of(mail: bytes) -> bytes:
    message = parked_mail.to_retry(mail)
    assert isinstance(message, parked_mail.Ended)
    return message.result


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert parking.count() == 0
    assert not parking._per_person


async def test_a_takeover_that_fails_leaves_no_call_behind(monkeypatch: Any) -> None:
    async def away(*_: Any) -> bool:
        raise OperationalError("the database is away")

    monkeypatch.setattr(shared_notes, "take_lease", away)
    interview = Interview()
    with pytest.raises(OperationalError):
        await interview.call.taken_over(interview.work, HELD, Answers("retry", {}))
    assert parking.count() == 0


async def test_a_takeover_whose_client_hangs_up_at_once_ends_the_call(monkeypatch: Any) -> None:
    reached = asyncio.Event()

    async def slow(*_: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    interview = Interview()
    monkeypatch.setattr(interview.call, "_take_answers", slow)
    taking = asyncio.create_task(
        interview.call.taken_over(interview.work, HELD, Answers("retry", {}))
    )
    await reached.wait()
    await until(lambda: interview.made)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert interview.cancelled
    await until(lambda: not parking.count())


async def test_answers_that_were_sent_to_the_dead_holder_too_are_taken_once(
    monkeypatch: Any,
) -> None:
    """Whoever takes a call over has sent its answers to the process that died before."""
    real, asked_again = shared_notes.set_once, asyncio.Event()

    async def slow(key: str, value: bytes, seconds: float) -> bool:
        written = await real(key, value, seconds)
        if written:
            # Others see the row before its writer goes on.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked_again.wait(), 0.5)
        return written

    def asks_again(*_: Any) -> bytes:
        asked_again.set()
        return b'{"resultType":"input_required"}'

    interview = Interview()
    question = Question(ORIGIN.question_id, "elicitation/create", b"{}")
    interview.call.expect("q-1", question)
    interview.asked = ["q-1"]
    answers = interview.answers("retry")
    await interview.send(answers)
    monkeypatch.setattr(shared_notes, "set_once", slow)
    monkeypatch.setattr(interview.call, "_asked", asks_again)
    interview.may_end.set()
    async with node_mail.mailbox("retry") as box:
        await interview.call.taken_over(interview.work, HELD, answers)
        assert end_of(await box.receive(10)) == b'{"done":true}'
    assert interview.heard == [Outcome(result=ACCEPT)]
    await until(lambda: not parking.count())


async def test_a_lost_connection_does_not_end_a_call_that_a_newer_retry_waits_for() -> None:
    interview = Interview()
    await interview.begin()
    async with node_mail.mailbox("new") as box, node_mail.mailbox("old"):
        await interview.send(interview.answers("old"))
        await interview.send(Answers("new", {}))
        await interview.send(Left("old"))
        await interview.send(Left("another"))
        await until(lambda: interview.call._waiting == ["new"])
        interview.may_end.set()
        assert end_of(await box.receive(10)) == b'{"done":true}'
    await until(lambda: not parking.count())
    assert not interview.cancelled


async def test_when_the_last_retry_hangs_up_the_call_is_cancelled() -> None:
    interview = Interview()
    await interview.begin()
    await interview.send(interview.answers("old"))
    await interview.send(Answers("new", {}))
    await interview.send(Left("old"))
    await interview.send(Left("new"))
    await until(lambda: not parking.count())
    assert interview.cancelled


async def test_a_call_outlives_a_moment_without_database(monkeypatch: Any) -> None:
    monkeypatch.setattr(parked_mail, "RENEW_SECONDS", 0.05)
    real, failures = shared_notes.set_once, [OperationalError("away"), OperationalError("away")]

    async def flaky(key: str, value: bytes, seconds: float) -> bool:
        if failures:
            raise failures.pop()
        return await real(key, value, seconds)

    interview = Interview()
    await interview.begin()
    monkeypatch.setattr(shared_notes, "set_once", flaky)
    async with node_mail.mailbox("retry") as box:
        await interview.send(interview.answers("retry"))
        interview.may_end.set()
        assert end_of(await box.receive(10)) == b'{"done":true}'
    assert not failures
    assert interview.heard == [Outcome(result=ACCEPT)]
    await until(lambda: not parking.count())


async def test_a_question_taken_back_while_its_answer_is_noted_loses_nothing(
    monkeypatch: Any,
) -> None:
    real = shared_notes.set_once
    interview = Interview()
    await interview.begin()

    async def meanwhile(key: str, value: bytes, seconds: float) -> bool:
        interview.call._futures[interview.asked[0]].set_result(Outcome(result=b"{}"))
        return await real(key, value, seconds)

    monkeypatch.setattr(shared_notes, "set_once", meanwhile)
    async with node_mail.mailbox("retry") as box:
        await interview.send(interview.answers("retry"))
        interview.may_end.set()
        assert end_of(await box.receive(10)) == b'{"done":true}'
    await until(lambda: not parking.count())


async def test_a_call_whose_lease_lapsed_is_not_taken_from_its_own_process() -> None:
    interview = Interview()
    await interview.begin()
    key = parked_mail.lease_key(interview.call.id)
    past = timezone.now() - timedelta(seconds=1)
    await SharedNote.objects.filter(key=key).aupdate(expires_at=past)
    interview.may_end.set()
    nothing: Any = None
    retry = parked_retries.Retry(
        interview.request, nothing, interview.call.id, nothing, nothing, nothing
    )
    answer = await parked_retries.go_on(retry, {interview.asked[0]: ACCEPT}, Quiet())
    assert answer == Answer(result=b'{"done":true}')
    assert interview.made == 1
    await until(lambda: not parking.count())
