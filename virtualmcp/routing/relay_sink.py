"""What a running call's interim messages pass through on their way to the client."""

import contextlib
from collections.abc import Callable

from upstreams.canonical_call import CallSink, Origin, Outcome
from upstreams.change_interest import LIST_METHODS, UPDATED
from virtualmcp.raw_members import NotAnObject
from virtualmcp.result_mapping import ResultMapping
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import question_policy
from virtualmcp.routing.client_request import ClientRequest


class RelaySink:
    """Maps URIs in questions of one upstream, and passes on what it tells beside its answer."""

    __slots__ = ("_asker", "_choice", "_key", "_request", "_sink", "_told")

    def __init__(
        self,
        request: ClientRequest,
        choice: ChoiceFacts,
        sink: CallSink,
        told: Callable[[str, bytes], None],
    ) -> None:
        facts = choice.upstream
        self._request = request
        self._choice = choice
        self._key = "" if request.server.transparent else facts.key
        self._asker = "" if request.server.transparent else facts.title
        self._sink = sink
        self._told = told

    async def notify(self, method: str, params: bytes) -> None:
        """Pass a notification on; waits until the client took it."""
        if method in LIST_METHODS or method == UPDATED:
            # It concerns whoever listens and not this request (a20, a24).
            self._told(method, params)
            return
        await self._sink.notify(method, params)

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Put a question to the client; in an aggregate it says who asks.

        Raises:
            QuestionNotPossible: this client can't be asked, or not by this upstream.
            TimeoutError: nobody answered in time.
        """
        question_policy.check(self._request, self._choice, method, params)
        if self._key and params:
            with contextlib.suppress(NotAnObject):
                params = ResultMapping(self._key).question(params, asker=self._asker)
        return await self._sink.ask(method, params, origin)
