"""What a running call's interim messages pass through on their way to the client."""

import contextlib
from collections.abc import Callable

from upstreams.canonical_call import CallSink, Outcome, QuestionOrigin
from upstreams.revisions import Era
from virtualmcp.raw_members import NotAnObject
from virtualmcp.result_mapping import ResultMapping
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import question_policy
from virtualmcp.routing.client_request import ClientRequest

_UPDATED = "notifications/resources/updated"
_LISTS = frozenset(
    f"notifications/{name}/list_changed" for name in ("tools", "prompts", "resources")
)


class RelaySink:
    """Maps URIs in notices and questions of one upstream, and notes that its lists changed."""

    __slots__ = ("_asker", "_choice", "_key", "_lists_changed", "_modern", "_request", "_sink")

    def __init__(
        self,
        request: ClientRequest,
        choice: ChoiceFacts,
        sink: CallSink,
        lists_changed: Callable[[], None],
    ) -> None:
        facts = choice.upstream
        self._request = request
        self._choice = choice
        self._modern = request.era is Era.MODERN
        self._key = "" if request.server.transparent else facts.key
        self._asker = "" if request.server.transparent else facts.title
        self._sink = sink
        self._lists_changed = lists_changed

    async def notify(self, method: str, params: bytes) -> None:
        """Pass a notification on; waits until the client took it."""
        if method in _LISTS:
            self._lists_changed()
            if self._modern:
                # A stateless client's stream carries only what belongs to its request (a20).
                return
        elif method == _UPDATED and self._key:
            try:
                params = ResultMapping(self._key).updated(params)
            except NotAnObject:
                return
        await self._sink.notify(method, params)

    async def ask(
        self, method: str, params: bytes, origin: QuestionOrigin | None = None
    ) -> Outcome:
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
