"""What one stateless client is told of its tasks: ``notifications/tasks`` (protocol.md 2.3.8).

The client names tasks by the ids that we sealed for it; only those that open for it are listened
to, at the upstreams they are of. A stream that broke is opened again, and then each task that has
not ended is looked at once, since what happened meanwhile was not heard.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from upstreams import authorized_call, change_streams, credentials, task_listening
from upstreams.canonical_call import CanonicalCall, SilentSink
from upstreams.change_interest import TASK_CHANGED, task_in
from upstreams.errors import UpstreamError
from virtualmcp import raw_members, sampling_limits
from virtualmcp.errors import RequestRefused
from virtualmcp.raw_members import NotAnObject
from virtualmcp.route_table import ChoiceFacts, VirtualMcpFacts
from virtualmcp.routing import question_policy, questions, sealed_tasks, task_results
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.routing.question_policy import CapabilityMissing
from virtualmcp.routing.questions import QuestionUnanswered

if TYPE_CHECKING:
    from oauthserver.bearer_tokens import TokenHolder

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
_OVER: Final = frozenset({"completed", "failed", "cancelled"})

# Called on the event loop with method, raw params and what tells this task's news from others'.
Tell = Callable[[str, bytes, str], None]


class TaskListener:
    """Keeps one client informed of its tasks.

    Args:
        request: whose view of which server; its params are not looked at.
    """

    def __init__(self, request: ClientRequest, tell: Tell) -> None:
        self._request = request
        self._tell = tell
        self._parts: dict[int, _Part] = {}

    async def open(self, task_ids: Iterable[str], seconds: float) -> frozenset[str]:
        """Begin to listen; returns the ids that upstreams agreed to tell of within so long."""
        found: dict[int, tuple[ChoiceFacts, dict[str, str]]] = {}
        for public in task_ids:
            try:
                choice, own = sealed_tasks.opened(self._request, public)
            except RequestRefused:
                continue
            found.setdefault(choice.upstream.id, (choice, {}))[1][own] = public
        loop = asyncio.get_running_loop()
        for upstream_id, (choice, names) in found.items():
            part = self._parts[upstream_id] = _Part(self._request, choice, names, self._tell)
            part.begin()
        answered = [loop.create_task(part.answered.wait()) for part in self._parts.values()]
        if answered:
            _, late = await asyncio.wait(answered, timeout=seconds)
            for waiting in late:
                waiting.cancel()
        agreed = [part.first_agreed() for part in self._parts.values()]
        return frozenset[str]().union(*agreed)

    def update(self, server: VirtualMcpFacts, holder: "TokenHolder") -> None:
        """Take in that configuration, access or accounts may have changed."""
        before = self._request
        self._request = ClientRequest(
            server, holder, before.era, before.method, client=before.client
        )
        for upstream_id, part in list(self._parts.items()):
            choice = server.choice_of(upstream_id)
            # Somewhere else nobody knows these tasks.
            if choice is None or choice.upstream.url != part.choice.upstream.url:
                part.close()
                del self._parts[upstream_id]
            else:
                part.update(self._request, choice)

    def close(self) -> None:
        """Listen no more."""
        for part in self._parts.values():
            part.close()
        self._parts.clear()


class _Part:
    """One upstream; ``names`` lead from its own ids of tasks to those the client has."""

    def __init__(
        self, request: ClientRequest, choice: ChoiceFacts, names: dict[str, str], tell: Tell
    ) -> None:
        self.choice = choice
        self.answered = asyncio.Event()
        self.credential_id = ""
        self._task: asyncio.Task[None] | None = None
        self._request = request
        self._names = names
        self._tell = tell
        self._stands = False
        self._counting: set[asyncio.Task[None]] = set()

    def first_agreed(self) -> frozenset[str]:
        """Return the public ids of what the upstream agreed to; what it agrees to later is not
        listened to."""
        if not self.answered.is_set():
            self._names.clear()
            self.close()
        return frozenset(self._names.values())

    def update(self, request: ClientRequest, choice: ChoiceFacts) -> None:
        """Speak and listen as the configuration says now; anew where the upstream is concerned."""
        before = self._reached_by()
        self._request, self.choice = request, choice
        if not self._keep_what_may_be_seen():
            return
        known = credentials.cached_credential(request.holder.user_id, choice.upstream)
        if known is None or known.id != self.credential_id or self._reached_by() != before:
            self.begin()

    def _keep_what_may_be_seen(self) -> bool:
        """Drop the tasks of tools that this person may not call any more; tells if some stay."""
        for own, public in list(self._names.items()):
            try:
                sealed_tasks.opened(self._request, public)
            except RequestRefused:
                del self._names[own]
        if not self._names:
            self.close()
        return bool(self._names)

    def _reached_by(self) -> tuple[object, ...]:
        declared = question_policy.declared_to(self._request, self.choice)
        return (*change_streams.address_of(self.choice.upstream), declared)

    def begin(self) -> None:
        """Listen, anew if it does so already."""
        self.close()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Listen for as long as a task is left whose end was not heard."""
        failures = 0
        try:
            while self._names:
                self._stands = False
                try:
                    await self._listen()
                except UpstreamError as error:
                    logger.info("listening to tasks of %s ended: %s", self._key, error)
                if not self.answered.is_set():
                    return
                failures = 0 if self._stands else failures + 1
                await asyncio.sleep(_pause(failures))
        except Exception:
            logger.exception("tasks of %s can't be listened to", self._key)
        finally:
            if not self.answered.is_set():
                self._names.clear()
                self.answered.set()

    @property
    def _key(self) -> str:
        return self.choice.upstream.key

    async def _listen(self) -> None:
        """Follow one stream, and look at the tasks beside it where it is not the first."""
        looking: asyncio.Task[None] | None = None

        def acknowledged(agreed: frozenset[str]) -> None:
            nonlocal looking
            again, self._stands = self.answered.is_set(), True
            for own in self._names.keys() - agreed:
                del self._names[own]
            self.answered.set()
            if again:
                looking = asyncio.get_running_loop().create_task(self._look())

        user_id, facts = self._request.holder.user_id, self.choice.upstream
        credential = await credentials.credential_for(user_id, facts)
        self.credential_id = credential.id
        client = question_policy.declared_to(self._request, self.choice)
        tasks = frozenset(self._names)
        try:
            await task_listening.listen(
                user_id, facts, credential, client, tasks, acknowledged, self._heard
            )
        finally:
            if looking is not None:
                looking.cancel()

    async def _look(self) -> None:
        user_id, facts = self._request.holder.user_id, self.choice.upstream
        for own in list(self._names):
            call = CanonicalCall(
                method="tasks/get",
                params=raw_members.write({"taskId": own}),
                facts=question_policy.declared_to(self._request, self.choice),
                name=own,
                principal=str(user_id),
                timeout=facts.call_timeout,
            )
            try:
                outcome = await authorized_call.call_as(user_id, facts, call, SilentSink())
            except UpstreamError:
                continue
            if outcome.result and len(outcome.result) <= task_listening.MOST_NOTICE_BYTES:
                self._heard(outcome.result)

    def _heard(self, params: bytes) -> None:
        """Pass on the state of a task, once what it asks of the client's model is counted."""
        if not sampling_limits.asks(params):
            self._pass_on(params)
            return
        task = asyncio.get_running_loop().create_task(self._counted(params))
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def _counted(self, params: bytes) -> None:
        try:
            await questions.counted(self._request, self.choice, params, once=True)
        except (QuestionUnanswered, NotAnObject) as refused:
            logger.info("a notice about a task of %s was left out: %s", self._key, refused)
            return
        self._pass_on(params)

    def _pass_on(self, params: bytes) -> None:
        """Pass on the state of a task, in the client's terms."""
        own = task_in(params)
        public = self._names.get(own)
        if public is None:
            return
        try:
            mapped = task_results.notice(self._request, self.choice, public, params)
            status = raw_members.text(raw_members.read(params).get("status"))
        except (NotAnObject, CapabilityMissing, QuestionUnanswered) as unusable:
            # What can't be told can be asked for; then the client is told why not.
            logger.info("a notice about a task of %s was left out: %s", self._key, unusable)
            return
        self._tell(TASK_CHANGED, mapped, public)
        if status in _OVER:
            del self._names[own]
            if not self._names:
                self.close()


def _pause(failures: int) -> float:
    longest = min(FIRST_PAUSE * float(1 << min(failures, 12)), LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
