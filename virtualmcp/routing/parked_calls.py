"""Calls of stateless clients that a stateful upstream asks a question in (protocol.md 2.4.3).

The upstream's stream is held in this process while its question travels to the client as an
``input_required`` result. The retry, on whichever node it arrives, sends its answers here by
``node_mail`` and waits for what comes next. The call itself is never made twice.

A call that asks nothing costs one task more than any other, and only where the client can be asked
and the upstream is not known to be stateless.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from django.db import Error as DatabaseFailure

from upstreams import upstream_era
from upstreams.canonical_call import (
    CallSink,
    HandOver,
    Origin,
    Outcome,
    QuestionNotPossible,
    QuestionOrigin,
)
from upstreams.json_rpc import error_object
from upstreams.revisions import Era
from upstreams.token_vault import VaultError
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp.eras import question_fields
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import node_mail, parked_mail, parking, shared_notes
from virtualmcp.routing.client_abilities import QUESTION_METHODS
from virtualmcp.routing.client_request import Answer, ClientRequest
from virtualmcp.routing.lease_keeper import keeper
from virtualmcp.routing.parked_mail import Answers, Ended, Held, Left, Notice, Question
from virtualmcp.transport import draining

logger = logging.getLogger(__name__)

# Upstreams that ask several things at once do so at once.
GATHER_SECONDS: Final = 0.03
# After the last answer was taken back, the call may still come to an end by itself for so long.
END_SECONDS: Final = 5.0

Asked = Callable[[str, dict[str, Question]], bytes]
Work = Callable[[CallSink], Coroutine[Any, Any, Answer]]


def may_be_asked(request: ClientRequest, facts: UpstreamFacts) -> bool:
    """Tell whether this call may come to be parked."""
    return (
        request.era is Era.MODERN
        and request.method in QUESTION_METHODS
        and question_fields.answers_any(request.client.capabilities)
        and upstream_era.known_era(facts) is not Era.MODERN
    )


class ParkedCall:
    """One call, its open questions, and whoever waits for what comes next. A ``CallSink``.

    Args:
        request: the request that began it.
        asked: makes the ``input_required`` result from the call's id and open questions.
        call_id: of a call that is taken over; a new one has a new id.
    """

    def __init__(self, request: ClientRequest, asked: Asked, call_id: str = "") -> None:
        self.id = call_id or secrets.token_hex(16)
        self._user_id = request.holder.user_id
        self._asked = asked
        self._open: dict[str, Question] = {}
        self._futures: dict[str, asyncio.Future[Outcome]] = {}
        self._expected: dict[bytes, asyncio.Future[Outcome]] = {}
        # The notes of answers that the upstream may not have yet, by its ids of the questions.
        self._under_way: dict[bytes, str] = {}
        self._origin: QuestionOrigin | None = None
        self._hand_over: HandOver | None = None
        self._handed_over = self._noted = False
        self._undrained: Callable[[], None] | None = None
        self._news = asyncio.Event()
        self._sink: CallSink | None = None
        self._waiting: list[str] = []
        self._task: asyncio.Task[Answer] | None = None
        self._care: asyncio.Task[None] | None = None
        self._mail: asyncio.Task[bytes] | None = None
        self._deadline = 0.0
        # A retry that takes the call over has sent the same answers to the dead holder.
        self._answering = asyncio.Lock()

    # The call's own task -------------------------------------------------------------------
    async def first_round(self, work: Work, sink: CallSink) -> Answer:
        """Make the call; returns its answer, or the first questions.

        Cancelling ends the call.
        """
        self._sink = sink
        self._task = asyncio.get_running_loop().create_task(work(self))
        try:
            if await self._ends_before_it_asks():
                return self._task.result()
            await self._park()
            return await self._round()
        except BaseException:
            await self._stop()
            raise
        finally:
            self._sink = None
            if self._care is None:
                parking.leave(self.id, self._user_id)

    async def notify(self, method: str, params: bytes) -> None:
        """Pass an interim message to whoever waits now; between rounds nobody does (2.3.4)."""
        if self._sink is not None:
            await self._sink.notify(method, params)
        elif self._waiting:
            message = parked_mail.encode(Notice(method, params))
            await node_mail.send(self._waiting[-1], message)

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Open a question; returns the answer that a retry brings.

        Raises:
            QuestionNotPossible: too many are parked.
        """
        if not isinstance(origin, QuestionOrigin):
            raise QuestionNotPossible("the call cannot be held")
        expected = self._expected.get(origin.question_id)
        if expected is not None:
            return await expected
        if not parking.holds(self.id):
            parking.enter(self.id, self, self._user_id)
        try:
            params = question_fields.for_stateless(method, params)
        except NotAnObject as error:
            raise QuestionNotPossible("the question is not well formed") from error
        key = f"q-{secrets.token_hex(6)}"
        self._origin, self._hand_over = origin, origin.hand_over
        self._open[key] = Question(origin.question_id, method, params)
        self._futures[key] = asyncio.get_running_loop().create_future()
        self._news.set()
        try:
            return await self._futures[key]
        finally:
            self._open.pop(key, None)
            self._futures.pop(key, None)

    async def answered(self, question_id: bytes) -> None:
        """The upstream has an answer: nobody who takes the call over needs to post it again."""
        note = self._under_way.pop(question_id, "")
        if not note:
            return
        try:
            await shared_notes.put(note, b"", parked_mail.PARK_SECONDS * 2)
        except (DatabaseFailure, VaultError):
            logger.exception("it could not be noted that an upstream has an answer")

    async def resumable(self, origin: QuestionOrigin | None) -> None:
        """Nothing is left for others before the upstream asks: a client that lost its connection
        then has no word to come back by."""
        if origin is not None:
            self._hand_over = origin.hand_over

    def expect(self, key: str, question: Question, answer: bytes = b"") -> None:
        """Enter a question that the upstream asked of a process that died, with the answer that
        one was about to post."""
        future = self._expected[question.id] = asyncio.get_running_loop().create_future()
        if answer:
            self._under_way[question.id] = parked_mail.answered_key(self.id, key)
            future.set_result(Outcome(result=answer))
            return
        self._open[key], self._futures[key] = question, future

    async def _ends_before_it_asks(self) -> bool:
        """Wait until there is news; True when it is the end."""
        assert self._task is not None
        news = asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait((self._task, news), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        return self._task.done()

    async def _round(self) -> Answer:
        """Return the open questions, or the end if it comes while they are gathered."""
        assert self._task is not None
        await asyncio.wait((self._task,), timeout=GATHER_SECONDS)
        self._news.clear()
        if self._task.done():
            return self._task.result()
        await self._write_note()
        return Answer(result=self._asked(self.id, self._open))

    # Parked ----------------------------------------------------------------------------------
    async def _park(self) -> None:
        """Become findable for retries on any node."""
        key = parked_mail.lease_key(self.id)
        lease = await shared_notes.take_lease(key, shared_notes.PROCESS, parked_mail.LEASE_SECONDS)
        if not lease:
            raise RuntimeError("another process holds this call")
        keeper().keep(key)
        self._deadline = asyncio.get_running_loop().time() + parked_mail.PARK_SECONDS
        opened = asyncio.Event()
        self._care = asyncio.get_running_loop().create_task(self._take_care(opened))
        await opened.wait()

    async def _write_note(self) -> None:
        """Leave what another process needs to take the call over."""
        origin = self._origin
        if origin is None:
            return
        held = Held(
            origin.session_id,
            origin.revision,
            origin.request_id,
            origin.last_event_id,
            dict(self._open),
            origin.task_id,
        )
        note = parked_mail.encode(held)
        await shared_notes.put(parked_mail.held_key(self.id), note, parked_mail.PARK_SECONDS)
        self._may_be_handed_over()

    def _may_be_handed_over(self) -> None:
        if not self._noted:
            self._noted = True
            self._undrained = draining.register(self.hand_over)

    def hand_over(self) -> None:
        """The process is about to stop: let the node of the next retry go on, if the upstream's
        stream can be resumed there. A retry that waits here waits for as long as it can."""
        if not any(node_mail.waits_here(reply) for reply in self._waiting):
            self._leave_to_others()

    def _leave_to_others(self) -> bool:
        """End the call here without a word; False if nobody else could go on with it."""
        origin, hand_over, task = self._origin, self._hand_over, self._task
        if origin is None or hand_over is None or task is None or task.done():
            return False
        if origin.last_event_id is None or not self._noted:
            return False
        self._handed_over = hand_over.done = True
        task.cancel()
        return True

    async def taken_over(self, work: Work, held: Held, answers: Answers) -> None:
        """Go on with a call of a process that died, whose lease is ours already."""
        self._origin = QuestionOrigin(
            b"",
            held.request_id,
            held.session_id,
            held.revision,
            held.last_event_id,
            task_id=held.task_id,
        )
        parking.enter(self.id, self, self._user_id)
        self._task = asyncio.get_running_loop().create_task(work(self))
        # Before mail is read: what other retries sent to the dead holder must not end this one.
        self._waiting.append(answers.reply)
        try:
            await self._park()
            self._may_be_handed_over()
            await self._take_answers(answers)
        except BaseException:
            await self._stop()
            raise

    async def _take_care(self, opened: asyncio.Event) -> None:
        """Serve retries until the call has ended, or nobody came for too long."""
        assert self._task is not None
        try:
            async with node_mail.mailbox(parked_mail.address(self.id)) as box:
                opened.set()
                self._mail = asyncio.ensure_future(box.receive())
                while not self._task.done():
                    await self._serve(box)
                await self._finish()
        except Exception:
            logger.exception("a parked call could not be served")
        finally:
            if self._mail is not None:
                self._mail.cancel()
            if not self._task.done():
                self._task.cancel()
            if self._undrained is not None:
                self._undrained()
            keeper().drop(parked_mail.lease_key(self.id))
            parking.leave(self.id, self._user_id)

    async def _serve(self, box: node_mail.Mailbox) -> None:
        """Deal with whatever comes next: a retry, questions, the end, or the end of patience."""
        assert self._task is not None
        loop = asyncio.get_running_loop()
        mail = self._mail
        assert mail is not None
        news = asyncio.ensure_future(self._news.wait())
        try:
            patience = None if self._waiting else max(self._deadline - loop.time(), 0.0)
            done, _ = await asyncio.wait(
                (self._task, mail, news), timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            if mail in done:
                self._mail = asyncio.ensure_future(box.receive())
                message = parked_mail.to_holder(mail.result())
                await self._until_done(lambda: self._hear(message))
            elif news in done and not self._task.done():
                # Between rounds the next retry is told; it has the earlier questions anyway.
                await self._until_done(self._next_round)
            elif not done:
                await self._give_up()
        finally:
            news.cancel()

    async def _until_done(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it; while the database can't be reached, again, for as long as the call is ours."""
        assert self._task is not None
        while True:
            try:
                return await act()
            except (DatabaseFailure, VaultError):
                if self._task.done() or not keeper().keeps(parked_mail.lease_key(self.id)):
                    raise
                logger.exception("a parked call waits until what is shared can be reached")
                await asyncio.wait((self._task,), timeout=parked_mail.RENEW_SECONDS)

    async def _next_round(self) -> None:
        assert self._task is not None
        answer = await self._round()
        if not self._task.done():
            await self._tell(parked_mail.ended(answer))

    async def _hear(self, message: Answers | Left) -> None:
        if isinstance(message, Left):
            if message.reply in self._waiting:
                self._waiting.remove(message.reply)
                assert self._task is not None
                # A client may have come again before its first connection was seen to be gone.
                if not self._waiting and not (draining.begun() and self._leave_to_others()):
                    self._task.cancel()
            return
        await self._take_answers(message)

    async def _take_answers(self, message: Answers) -> None:
        """Deliver answers, each question's once; ask again for what is left open (a44)."""
        async with self._answering:
            await self._deliver(message)

    async def _deliver(self, message: Answers) -> None:
        for key, answer in message.answers.items():
            future = self._futures.get(key)
            question = self._open.get(key)
            if future is None or future.done() or question is None:
                continue
            if not question_fields.answers(question.method, answer):
                continue
            once = parked_mail.answered_key(self.id, key)
            if await shared_notes.set_once(once, answer, parked_mail.PARK_SECONDS * 2):
                self._open.pop(key, None)
                self._under_way[question.id] = once
                # The call may have ended, or have taken its question back, in the meantime.
                if not future.done():
                    future.set_result(Outcome(result=answer))
        if message.reply not in self._waiting:
            self._waiting.append(message.reply)
        if self._open:
            await self._write_note()
            await self._tell(parked_mail.ended(Answer(result=self._asked(self.id, self._open))))

    async def _tell(self, message: Ended) -> None:
        """Answer every retry that waits; from now on nobody does."""
        self._deadline = asyncio.get_running_loop().time() + parked_mail.PARK_SECONDS
        for reply in list(self._waiting):
            await node_mail.send(reply, parked_mail.encode(message))
            if reply in self._waiting:
                self._waiting.remove(reply)

    async def _give_up(self) -> None:
        """Nobody came: take the questions back, then the call (2.3.4)."""
        assert self._task is not None
        for key, question in list(self._open.items()):
            refused = Outcome(error=error_object(-32603, "nobody answered in time"))
            if question.method == question_fields.ELICIT:
                refused = Outcome(result=b'{"action":"cancel"}')
            if not self._futures[key].done():
                self._futures[key].set_result(refused)
        await asyncio.wait((self._task,), timeout=END_SECONDS)
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _finish(self) -> None:
        """Keep the outcome for a retry that comes again, then tell those that wait."""
        assert self._task is not None
        if self._handed_over and self._task.cancelled():
            keeper().drop(parked_mail.lease_key(self.id))
            await shared_notes.end_lease(parked_mail.lease_key(self.id), shared_notes.PROCESS)
            return
        answer = parked_mail.INTERRUPTED if self._task.cancelled() else self._task.result()
        message = parked_mail.ended(answer)
        note = parked_mail.encode(message)
        await shared_notes.put(parked_mail.outcome_key(self.id), note, parked_mail.PARK_SECONDS)
        await self._tell(message)
        await shared_notes.remove(parked_mail.held_key(self.id))
        keeper().drop(parked_mail.lease_key(self.id))
        await shared_notes.end_lease(parked_mail.lease_key(self.id), shared_notes.PROCESS)

    async def _stop(self) -> None:
        """End the call because its client hung up, or because it could not be parked."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
        if self._care is None:
            parking.leave(self.id, self._user_id)

    async def close(self) -> None:
        """End the call because the process ends; retries are told so, unless another process can
        go on with it."""
        if not self._leave_to_others() and self._task is not None:
            self._task.cancel()
        if self._care is not None:
            await asyncio.wait((self._care,))


def _ours() -> list[ParkedCall]:
    calls, loop = parking.held(), asyncio.get_running_loop()
    return [
        call
        for call in calls
        if isinstance(call, ParkedCall) and call._task and call._task.get_loop() is loop
    ]


async def wait_for_all(seconds: float) -> None:
    """Wait so long for the parked calls of the running loop to end."""
    cares = [call._care for call in _ours() if call._care is not None]
    if cares and seconds > 0:
        await asyncio.wait(cares, timeout=seconds)


async def close_all() -> None:
    """End every parked call of the running loop, or leave it to another process; call it before
    sessions are closed."""
    ours = _ours()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await asyncio.gather(*(call.close() for call in ours), return_exceptions=True)
