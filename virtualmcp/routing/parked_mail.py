"""What the holder of a parked call and the nodes of its retries write to each other (2.4.3).

Shared notes of a call: who holds it (a lease), what it asked (for whoever takes it over), which
questions were answered (once each, and with what, until the upstream has it), how it ended (for a
retry that comes twice).
"""

import hashlib
from typing import Final

import msgspec

from virtualmcp.errors import INTERNAL_ERROR
from virtualmcp.routing.client_request import Answer, WireError

# How long an unanswered call is kept, and its outcome afterwards, in seconds.
PARK_SECONDS: Final = 600.0
# The holder renews its lease this often; a dead one is noticed when the lease has run out.
LEASE_SECONDS: Final = 6.0
RENEW_SECONDS: Final = 1.5


# The answer to a call that ended because its process did, or because its client hung up.
INTERRUPTED: Final = Answer(
    error=WireError(
        INTERNAL_ERROR,
        "The call was cancelled before it came to a result. Make the request anew if you still "
        "want it.",
    )
)


class Question(msgspec.Struct, frozen=True):
    """A question of the upstream as the client reads it; ``id`` is the upstream's raw id."""

    id: bytes
    method: str
    params: bytes


class Held(msgspec.Struct, frozen=True):
    """What another process needs to take a call over.

    ``last_event_id`` is ``None`` where the upstream's stream can't be resumed; ``task_id`` is that
    of the task whose result the call fetches, if it is one.
    """

    session_id: bytes
    revision: str
    request_id: str
    last_event_id: bytes | None
    questions: dict[str, Question]
    task_id: str = ""


class Answers(msgspec.Struct, frozen=True, tag=True):
    """To the holder: a retry waits at ``reply`` and brings these answers, by key."""

    reply: str
    answers: dict[str, bytes]


class Left(msgspec.Struct, frozen=True, tag=True):
    """To the holder: the client of the retry hung up, which cancels the call (2.3.4)."""

    reply: str


class Notice(msgspec.Struct, frozen=True, tag=True):
    """To a retry: an interim message of the call."""

    method: str
    params: bytes


class Ended(msgspec.Struct, frozen=True, tag=True):
    """To a retry: the answer to send, which is final or asks again."""

    result: bytes
    error: tuple[int, str, bytes, int] | None


ToHolder = Answers | Left
ToRetry = Notice | Ended
_to_holder: msgspec.msgpack.Decoder[ToHolder] = msgspec.msgpack.Decoder(ToHolder)
_to_retry: msgspec.msgpack.Decoder[ToRetry] = msgspec.msgpack.Decoder(ToRetry)
_ended = msgspec.msgpack.Decoder(Ended)
_held = msgspec.msgpack.Decoder(Held)
encode = msgspec.msgpack.encode


def to_holder(body: bytes) -> ToHolder:
    """Read a message to the holder."""
    return _to_holder.decode(body)


def to_retry(body: bytes) -> ToRetry:
    """Read a message to a retry."""
    return _to_retry.decode(body)


def held(body: bytes) -> Held:
    """Read the note for whoever takes a call over."""
    return _held.decode(body)


def ended(answer: Answer) -> Ended:
    """Return an answer as it travels."""
    fault = answer.error
    return Ended(
        answer.whole(),
        None if fault is None else (fault.code, fault.message, fault.data, fault.http_status),
    )


def answer_of(message: Ended) -> Answer:
    """Return the answer that travelled."""
    error = None if message.error is None else WireError(*message.error)
    return Answer(result=message.result, error=error)


def outcome(body: bytes) -> Answer:
    """Read the note of how a call ended."""
    return answer_of(_ended.decode(body))


def address(call_id: str) -> str:
    """Return where the holder of a call gets its mail."""
    return f"parked:{call_id}"


def lease_key(call_id: str) -> str:
    """Return the name of the lease on a call."""
    return f"parked-holder:{call_id}"


def held_key(call_id: str) -> str:
    """Return the name of the note for whoever takes a call over."""
    return f"parked-call:{call_id}"


def outcome_key(call_id: str) -> str:
    """Return the name of the note of how a call ended."""
    return f"parked-outcome:{call_id}"


def answered_key(call_id: str, question: str) -> str:
    """Return the name of the note that a question was answered: written once, by who posts the
    answer. It holds the answer, and nothing once the upstream has it."""
    return f"parked-answered:{call_id}:{hashlib.sha256(question.encode()).hexdigest()[:32]}"
