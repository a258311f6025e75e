"""What a running call's interim messages pass through on their way to the client."""

import contextlib

from upstreams.canonical_call import CallSink, Origin, Outcome, QuestionOrigin
from upstreams.change_interest import LIST_METHODS, UPDATED
from virtualmcp import notice_feed, sampling_limits
from virtualmcp.raw_members import NotAnObject
from virtualmcp.result_mapping import ResultMapping
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import question_policy
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.secret_redaction import clean_json, secrets_of


class RelaySink:
    """Maps URIs in questions of one upstream, and passes on what it tells beside its answer."""

    __slots__ = ("_choice", "_request", "_resumed", "_sink")

    def __init__(
        self,
        request: ClientRequest,
        choice: ChoiceFacts,
        sink: CallSink,
        *,
        resumed: bool = False,
    ) -> None:
        self._request = request
        self._choice = choice
        self._sink = sink
        self._resumed = resumed

    async def notify(self, method: str, params: bytes) -> None:
        """Pass a notification on; waits until the client took it."""
        if method in LIST_METHODS or method == UPDATED:
            # It concerns whoever listens and not this request (a20, a24).
            user_id = self._request.holder.user_id
            notice_feed.heard_on_call(user_id, self._choice.upstream, method, params)
            return
        if params:
            # Log messages and progress may repeat what the call was sent with (a41, 5.2).
            secrets = secrets_of(self._request.holder.user_id, self._choice.upstream)
            params = clean_json(params, secrets)
        await self._sink.notify(method, params)

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Put a question to the client; in an aggregate it says who asks.

        Raises:
            QuestionNotPossible: this client can't be asked, or not by this upstream.
            TimeoutError: nobody answered in time.
        """
        asked, facts = params, self._choice.upstream
        params = question_of(self._request, self._choice, method, params)
        # A call that another process began may ask what its client was asked there already.
        await sampling_limits.take(
            self._request.holder.user_id, facts, method, asked, may_refuse=not self._resumed
        )
        return await self._sink.ask(method, params, origin)

    async def answered(self, question_id: bytes) -> None:
        """Say that the upstream has an answer."""
        await self._sink.answered(question_id)

    async def resumable(self, origin: QuestionOrigin | None) -> None:
        """Say whether another process could go on with the call."""
        await self._sink.resumable(origin)


def question_of(request: ClientRequest, choice: ChoiceFacts, method: str, params: bytes) -> bytes:
    """Return an upstream's question as it may be put to this client; in an aggregate it says who
    asks.

    Raises:
        QuestionNotPossible: this client can't be asked, or not by this upstream.
    """
    question_policy.check(request, choice, method, params)
    if not params:
        return params
    facts = choice.upstream
    params = clean_json(params, secrets_of(request.holder.user_id, facts))
    if not request.server.transparent:
        with contextlib.suppress(NotAnObject):
            params = ResultMapping(facts.key).question(params, asker=facts.title)
    return params
