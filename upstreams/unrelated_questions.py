"""What a stateful upstream asks outside of its calls' streams, and whom it is put to (2.3.5).

Such a question names no call. It is put to a client only where there is one that it can belong
to: while calls run in the session, the client they all are of, on the stream of the newest; else
the one client that used the session of late, on a stream of its own (``ask_by``). A session may be
shared by clients of one person, so with several of them nobody is asked, but that ``roots/list``
after a client's notice of changed roots is that client's. Whatever happens the upstream gets an
answer: the client's, or an error that says why there is none.

The session may be shared with other processes too, of which one holds its stream. That one asks the
others whose calls run there, and hands the question to the process that runs the newest.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from upstreams import json_rpc, legacy_sessions, relay_client
from upstreams.canonical_call import CallSink, CallTakenOver, Outcome, QuestionNotPossible
from upstreams.errors import UpstreamError
from upstreams.json_rpc import Message, NotJsonRpc
from upstreams.session_opening import LegacySession

log = logging.getLogger(__name__)

ROOTS: Final = "roots/list"
COMPLETE: Final = "notifications/elicitation/complete"
SIDE_SECONDS: Final = 5.0
# The sides that ask the person wait ten minutes; this only ends what they forget.
PERSON_SECONDS: Final = 630.0
MOST_OPEN: Final = 8
# For so long a client that made calls in a session is one that the upstream may mean.
OWNER_SECONDS: Final = 600.0
MOST_OWNERS: Final = 64
# So soon after a notice of changed roots, the upstream asks because of it.
ROOTS_SECONDS: Final = 30.0
MOST_PAGES: Final = 64


class RunningCall(Protocol):
    """A client's call that runs in a session; ``owner`` is whose it is."""

    owner: str
    sink: CallSink

    async def ask_beside(self, message: Message) -> Outcome | None:
        """Put a question to the client on the call's stream; None if the call ended first.

        Raises:
            QuestionNotPossible: it can't be asked.
            TimeoutError: nobody answered in time.
            CallTakenOver: the call, and the answer, are another process's now.
        """

    def withdrawn(self, request_id: object) -> None:
        """The upstream takes a question back."""

    def person_asked(self) -> None:
        """The upstream waits for a person, and the call perhaps for that."""

    def person_answered(self, seconds: float) -> None:
        """It has waited so long."""


# Asks one of the clients, by their owners' names; raises as ``RunningCall.ask_beside``.
Ask = Callable[[Sequence[str], int, str, bytes], Awaitable[Outcome]]
# Tells an owner's client something: of which upstream, method and params.
Tell = Callable[[str, int, str, bytes], Awaitable[None]]


class Standing(msgspec.Struct, array_like=True):
    """What another process that shares a session knows of its clients.

    ``calls`` and ``owners``: whose calls run, and who used it, with the seconds since;
    ``listeners``: whose clients listen; ``roots``: who last told of changed roots, and the seconds
    since.
    """

    process: str
    calls: list[tuple[str, float]]
    owners: list[tuple[str, float]]
    listeners: list[str]
    roots: tuple[str, float]


class Others(Protocol):
    """The other processes that share a session; ``virtualmcp.routing.shared_questions``."""

    async def standings(self, session: LegacySession, /) -> list[Standing]:
        """Return what each of them says."""

    async def hand_over(self, session: LegacySession, process: str, message: Message, /) -> None:
        """Leave a question to one of them.

        Raises:
            QuestionNotPossible: it did not take it.
        """

    def withdraw(self, session: LegacySession, request_id: object, /) -> None:
        """Tell them that the upstream takes a question back."""

    def page_done(self, session: LegacySession, params: bytes, /) -> None:
        """Tell them that a page is done."""


class _HandedOver(Exception):
    """Another process sees to the question."""


# How the questions of each upstream ended in this process.
ended: Counter[tuple[str, str]] = Counter()
_ask: Ask | None = None
_tell: Tell | None = None
_others: Others | None = None


def ask_by(ask: Ask | None, tell: Tell | None) -> None:
    """Have clients asked in this way that run no call."""
    global _ask, _tell
    _ask, _tell = ask, tell


def share_by(others: Others | None) -> None:
    """Have the processes that share sessions see to their questions together."""
    global _others
    _others = others


class UnrelatedQuestions:
    """The questions of one session that are open, and whose they can be."""

    def __init__(self, session: LegacySession) -> None:
        self._session = session
        self._open: dict[str, asyncio.Task[None]] = {}
        self._owners: OrderedDict[str, float] = OrderedDict()
        self._roots: tuple[str, float] = ("", 0.0)
        self._pages: OrderedDict[str, str] = OrderedDict()
        # In the order in which they began, with when that was.
        self.calls: dict[RunningCall, float] = {}

    # Whose they can be --------------------------------------------------------------------------
    def begin(self, call: RunningCall) -> None:
        """A client's call begins in this session."""
        self.calls[call] = time.monotonic()
        self._owners[call.owner] = time.monotonic()
        self._owners.move_to_end(call.owner)
        if len(self._owners) > MOST_OWNERS:
            self._owners.popitem(last=False)

    def end(self, call: RunningCall) -> None:
        """It has ended."""
        self.calls.pop(call, None)

    def used_by(self, owner: str) -> bool:
        """Tell whether a client made calls in this session, or listens in it."""
        return owner in self._owners or owner in self._listeners()

    def roots_changed(self, owner: str) -> None:
        """The upstream is told of a client's changed roots, and will want to read them."""
        self._roots = (owner, time.monotonic())

    def opens_page(self, params: bytes, owner: str) -> None:
        """Keep who was asked to open a page, so that they hear when it is done (a47)."""
        page = _page_of(params) if b"elicitationId" in params else ""
        if page:
            self._pages[page] = owner
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)

    def _call(self) -> RunningCall | None:
        """Return the call on whose stream to ask, None where none runs.

        Raises:
            QuestionNotPossible: there are calls of several clients.
        """
        if len({call.owner for call in self.calls}) > 1:
            raise QuestionNotPossible("calls of several clients run, and no one is named")
        return next(reversed(self.calls), None)

    def standing(self, process: str) -> Standing:
        """Return what this process knows of the session's clients."""
        now = time.monotonic()
        return Standing(
            process,
            [(call.owner, now - at) for call, at in self.calls.items()],
            [(owner, now - at) for owner, at in self._owners.items() if now - at < OWNER_SECONDS],
            list(self._listeners()),
            (self._roots[0], now - self._roots[1]),
        )

    def _candidates(self, method: str, elsewhere: list[Standing]) -> list[str]:
        standings = [self.standing(""), *elsewhere]
        told = min((one.roots for one in standings if one.roots[0]), key=_age, default=("", 0.0))
        if method == ROOTS and told[0] and told[1] < ROOTS_SECONDS:
            return [told[0]]
        found = {owner: None for one in standings for owner, _ in one.owners}
        found.update({owner: None for one in standings for owner in one.listeners})
        return list(found)

    def _listeners(self) -> set[str]:
        stream = self._session.stream
        listeners = stream.listeners if stream is not None else ()
        return {owner for listener in listeners for owner in listener.owners()}

    async def _elsewhere(self, message: Message) -> list[Standing]:
        """Return what the other processes know, unless the question belongs to one of them.

        Raises:
            _HandedOver: it does, and was handed over.
            QuestionNotPossible: there are calls of several clients.
        """
        if _others is None or not self._session.shared:
            return []
        elsewhere = await _others.standings(self._session)
        running = {call.owner for call in self.calls}
        running.update(owner for one in elsewhere for owner, _ in one.calls)
        if len(running) > 1:
            raise QuestionNotPossible("calls of several clients run, and no one is named")
        begun = ((seconds, one.process) for one in elsewhere for _, seconds in one.calls)
        newest, process = min(begun, default=(float("inf"), ""))
        own = min((time.monotonic() - at for at in self.calls.values()), default=float("inf"))
        if not process or own <= newest:
            return elsewhere
        await _others.hand_over(self._session, process, message)
        raise _HandedOver

    # Their course -------------------------------------------------------------------------------
    def asked(self, message: Message, *, handed: bool = False) -> None:
        """Answer a request of the upstream, whoever can; or one that another process ``handed``
        over."""
        key = str(message.id)
        if message.method == "ping":
            self._run(self._post(json_rpc.response(message.id)))
        elif key in self._open:
            return
        elif len(self._open) >= MOST_OPEN:
            self._run(self._post(json_rpc.refusal(message.id, "too many questions at once")))
        else:
            task = asyncio.get_running_loop().create_task(self._answer(message, handed))
            self._open[key] = task
            task.add_done_callback(lambda _: self._open.pop(key, None))

    def withdrawn(self, request_id: object, *, told: bool = False) -> None:
        """The upstream takes a question back, also one that it asked on a call's stream; or
        another process ``told`` so."""
        if _others is not None and self._session.shared and not told:
            _others.withdraw(self._session, request_id)
        task = self._open.get(str(request_id))
        if task is not None:
            task.cancel()
        for call in list(self.calls):
            call.withdrawn(request_id)

    def page_done(self, params: bytes, *, told: bool = False) -> None:
        """A page is done that a client was asked to open; or another process ``told`` so."""
        page = _page_of(params)
        owner = self._pages.pop(page, "")
        if not owner:
            if _others is not None and self._session.shared and not told:
                _others.page_done(self._session, params)
            return
        calls = [call for call in self.calls if call.owner == owner]
        if calls:
            self._run(calls[-1].sink.notify(COMPLETE, params))
        elif _tell is not None:
            self._run(_tell(owner, self._session.facts.id, COMPLETE, params))

    def close(self) -> None:
        """The session ends, and its questions with it."""
        for task in list(self._open.values()):
            task.cancel()

    async def _answer(self, message: Message, handed: bool) -> None:
        key, how, call = self._session.facts.key, "refused", None
        try:
            outcome, call = await self._outcome(message, handed)
            answer = json_rpc.response(message.id, result=outcome.result, error=outcome.error)
            how = "answered"
        except QuestionNotPossible as impossible:
            why = str(impossible) or "the client cannot be asked this"
            answer = json_rpc.refusal(message.id, why)
        except TimeoutError:
            answer, how = json_rpc.refusal(message.id, "nobody answered in time"), "timed_out"
        except _HandedOver:
            return
        except CallTakenOver:
            ended[key, "taken_over"] += 1
            return
        except asyncio.CancelledError:
            ended[key, "withdrawn"] += 1
            raise
        except Exception:  # whatever went wrong on the client's side, the upstream must not hang
            log.exception("a question of %s could not be put to a client", key)
            answer = json_rpc.refusal(message.id, "the client could not be asked")
        ended[key, how] += 1
        await _quietly(self._bring(answer, call, message))

    async def _bring(self, answer: bytes, call: RunningCall | None, message: Message) -> None:
        """Post an answer; ``call`` is the one on whose stream it was given, if it was on one."""
        # An answer that comes twice is dropped: nobody waits for its id any more.
        status = await self._post(answer, resend=True)
        if call is not None and status < 300:
            await call.sink.answered(json_rpc.encode(message.id))

    async def _outcome(self, message: Message, handed: bool) -> tuple[Outcome, RunningCall | None]:
        """Ask on a call's stream for as long as calls run, else on one of the client's own;
        returns the answer and that call.

        Raises:
            QuestionNotPossible, TimeoutError: as ``RunningCall.ask_beside``.
            _HandedOver: another process does that.
        """
        session, method = self._session, str(message.method)
        params = bytes(message.params) or b"{}"
        async with asyncio.timeout(PERSON_SECONDS):
            elsewhere = [] if handed else await self._elsewhere(message)
            while (call := self._call()) is not None:
                self.opens_page(params, call.owner)
                outcome = await self._beside(call, message)
                if outcome is not None:
                    return outcome, call
            owners = self._candidates(method, elsewhere)
            if not owners or _ask is None:
                raise QuestionNotPossible("no client can be asked outside of a call")
            if len(owners) == 1:
                self.opens_page(params, owners[0])
            return await _ask(owners, session.facts.id, method, params), None

    async def _beside(self, call: RunningCall, message: Message) -> Outcome | None:
        waiting, began = list(self.calls), time.monotonic()
        for one in waiting:
            one.person_asked()
        try:
            return await call.ask_beside(message)
        finally:
            for one in waiting:
                one.person_answered(time.monotonic() - began)

    def _run(self, work: Awaitable[Any]) -> None:
        legacy_sessions.sessions().run(_quietly(work))

    async def _post(self, body: bytes, *, resend: bool = False) -> int:
        session = self._session
        async with relay_client.post(
            session.facts,
            session.credential,
            session.headers,
            body,
            timeout=SIDE_SECONDS,
            resend=resend,
        ) as answer:
            await answer.read(64 * 1024)
            return answer.status


async def _quietly(work: Awaitable[Any]) -> None:
    try:
        await work
    except UpstreamError as error:
        log.debug("an answer could not be posted: %s", error.detail)
    except Exception:
        log.exception("what an upstream says outside of calls could not be passed on")


def questions_of(session: LegacySession) -> UnrelatedQuestions:
    """Return what a session was asked outside of calls."""
    if session.questions is None:
        session.questions = UnrelatedQuestions(session)
    return session.questions


def _age(told: tuple[str, float]) -> float:
    return told[1]


def _page_of(params: bytes) -> str:
    try:
        found = json_rpc.members_of(params or b"{}").get("elicitationId")
        page = None if found is None else json_rpc.plain(found)
    except NotJsonRpc:
        return ""
    return page if isinstance(page, str) else ""
