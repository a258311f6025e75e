"""The canonical call: the one form in which a request travels between the rooms.

It is the stateless revision's form (protocol.md 2.1). ``virtualmcp`` makes it from
what a client of either era sent; ``upstreams.mcp_client`` turns it into what an
upstream of either era understands. Payloads stay raw JSON bytes throughout, so that
members the gateway does not know survive byte for byte.
"""

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from upstreams.result_heads import ResultHead
from upstreams.revisions import MODERN


@dataclass(slots=True, frozen=True)
class ClientFacts:
    """What the client said about itself, per request (modern) or at ``initialize`` (legacy).

    ``capabilities`` and ``client_info`` are raw JSON objects. ``fingerprint`` is a short
    digest of ``capabilities``: legacy upstream sessions are pooled by it (protocol.md D9).
    """

    revision: str = MODERN
    capabilities: bytes = b"{}"
    client_info: bytes = b""
    fingerprint: str = ""


class CanonicalCall(msgspec.Struct, eq=False):
    """One request to one upstream, in the upstream's own names and URIs.

    Attributes:
        method: JSON-RPC method of the inner (modern) form.
        params: raw JSON object, or ``b""`` for none.
        params_are_modern: ``params._meta`` holds the client's modern keys already, so that a
            modern upstream can be sent ``params`` as it is.
        facts: the client's revision, capabilities and name.
        name: tool or prompt name or resource URI for the ``Mcp-Name`` header, in the
            upstream's terms; ``""`` where the method has none.
        progress_token: the client's raw progress token, ``b""`` for none. The upstream is given
            one of ours instead.
        log_level: level the client wants, ``""`` for none.
        principal: opaque id of the person; part of every pool key.
        owner: opaque name of the client behind the call, that of its session if it has one;
            ``""`` where the gateway itself asks. Who may be asked outside of calls (2.3.5).
        timeout: seconds the whole call may take; 0 takes the upstream's default.
        param_headers: ``Mcp-Param-*`` headers for a modern upstream, made from the tool's schema.
    """

    method: str
    params: bytes = b""
    params_are_modern: bool = False
    facts: ClientFacts = ClientFacts()
    name: str = ""
    progress_token: bytes = b""
    log_level: str = ""
    principal: str = ""
    owner: str = ""
    timeout: float = 0.0
    param_headers: tuple[tuple[str, str], ...] = ()


class Outcome(msgspec.Struct):
    """How a call ended: exactly one of ``result`` and ``error``, each a raw JSON value.

    ``error`` is the upstream's JSON-RPC error object (application error). Failures of
    transport or protocol are raised as ``UpstreamError`` instead. ``modern`` tells which
    era the result was written for (whether ``resultType`` and caching hints are in it).
    ``head`` is that of the result where it has been read already.
    """

    result: bytes = b""
    error: bytes = b""
    modern: bool = True
    head: ResultHead | None = None


class HandOver:
    """Whether another process goes on with a call: then nothing more is said for it here, also not
    that it is cancelled. There is one for each call."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False


@dataclass(slots=True, frozen=True)
class QuestionOrigin:
    """Where a stateful upstream's question came from: what another process needs in order to
    take the call over when this one dies (protocol.md 2.4.3).

    ``question_id`` is the raw id of the upstream's request, ``b""`` where it asked nothing but the
    call can be taken over all the same; ``request_id`` that of our call,
    ``session_id`` and ``revision`` those of the session, ``last_event_id`` where the stream can be
    resumed (``None`` where it can't), ``upstream_id`` whose all of that is. ``task_id`` is that of
    the task whose result was waited for, where it was one.
    """

    question_id: bytes
    request_id: str
    session_id: bytes = field(repr=False)
    revision: str
    last_event_id: bytes | None
    upstream_id: int = 0
    task_id: str = ""
    hand_over: HandOver = field(default_factory=HandOver, compare=False, repr=False)


@dataclass(slots=True, frozen=True)
class RoundOrigin:
    """Which round of a stateless upstream's questions one belongs to: what another process needs
    in order to end the round when this one dies (protocol.md 2.4.2).

    ``result`` is the raw ``input_required`` result, ``key`` the question's in it, ``questions``
    how many there are, ``upstream_id`` who asks; ``task_id`` is that of the task that does.
    """

    key: str
    result: bytes = field(repr=False)
    questions: int
    upstream_id: int
    task_id: str = ""
    hand_over: HandOver = field(default_factory=HandOver, compare=False, repr=False)


Origin = QuestionOrigin | RoundOrigin


class CallSink(Protocol):
    """Where a running call's interim messages go.

    Awaiting ``notify`` is the back-pressure: the upstream is not read on until the
    client took the message.
    """

    async def notify(self, method: str, params: bytes) -> None:
        """Pass on a notification: ``params`` is its raw object, with *our* progress token
        already replaced by the client's own."""

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Put a question to the client and wait for the answer; ``origin`` is where the upstream
        asked it.

        Raises:
            QuestionNotPossible: this client cannot be asked.
            TimeoutError: nobody answered in time.
            CallTakenOver: the call is another process's now.
        """

    async def answered(self, question_id: bytes) -> None:
        """The upstream has the answer to a question, named by its raw id; never raises."""

    async def resumable(self, origin: QuestionOrigin | None) -> None:
        """Another process could go on with the call from here: what came so far was passed on.
        Told of a stream's first event with an id, and of one that was resumed. ``None``: it can't
        any more, since the call goes on otherwise."""


class QuestionNotPossible(Exception):
    """The client cannot be asked this; the upstream is told so and the call goes on."""


class CallTakenOver(Exception):
    """Another process goes on with this call: nothing more may be said for it here, neither to
    the client nor to the upstream."""


class SilentSink:
    """A sink for calls that nobody watches, such as catalogue reads."""

    async def notify(self, method: str, params: bytes) -> None:
        """Drop the notification."""

    async def ask(self, method: str, params: bytes, origin: Origin | None = None) -> Outcome:
        """Refuse every question."""
        raise QuestionNotPossible(method)

    async def answered(self, question_id: bytes) -> None:
        """There was no answer."""

    async def resumable(self, origin: QuestionOrigin | None) -> None:
        """Nobody would."""
