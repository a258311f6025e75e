"""Which calls of stateless clients this process holds, within bounds."""

from collections import Counter
from typing import Final

from upstreams.canonical_call import QuestionNotPossible

MOST_PARKED: Final = 500
MOST_PARKED_PER_PERSON: Final = 16

_parked: dict[str, object] = {}
_per_person: Counter[int] = Counter()


def enter(call_id: str, call: object, user_id: int) -> None:
    """Hold a call from now on.

    Raises:
        QuestionNotPossible: too many are held, of its person or at all.
    """
    if len(_parked) >= MOST_PARKED or _per_person[user_id] >= MOST_PARKED_PER_PERSON:
        raise QuestionNotPossible("too many calls are waiting for answers already")
    _parked[call_id] = call
    _per_person[user_id] += 1


def leave(call_id: str, user_id: int) -> None:
    """Hold it no more, if it was held."""
    if _parked.pop(call_id, None) is None:
        return
    _per_person[user_id] -= 1
    if _per_person[user_id] <= 0:
        del _per_person[user_id]


def holds(call_id: str) -> bool:
    """Tell whether this process has a call, whatever has become of its lease."""
    return call_id in _parked


def held() -> list[object]:
    """Return the calls that this process holds."""
    return list(_parked.values())


def count() -> int:
    """Return how many those are."""
    return len(_parked)
