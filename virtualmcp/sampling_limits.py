"""How much an upstream may ask of a person's own model (protocol.md 3.6: rate and token budget).

Sampling spends what the person pays their model provider, whatever the upstream says it is for. So
each upstream may ask each person so often a minute, and for so many tokens a day. Counted is what
it asks for (``maxTokens``): clients do not say what an answer cost. The counters are rows of the
database, exact over all processes; only calls that ask such a question come here.
"""

import logging
import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final

import msgspec
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import Error as DatabaseFailure
from django.db import IntegrityError, transaction
from django.db.models import F

from upstreams.canonical_call import QuestionNotPossible
from upstreams.database_calls import in_thread
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import raw_members
from virtualmcp.eras import question_fields
from virtualmcp.models import SamplingUse
from virtualmcp.raw_members import NotAnObject
from virtualmcp.signals import audit

logger = logging.getLogger(__name__)

# What a question counts that does not say how long the answer may be, which it has to.
UNSAID_TOKENS: Final = 4_096
TOLD_AGAIN_AFTER_SECONDS: Final = 3_600
_MINUTE, _DAY = 60, 86_400
_MOST_COUNTED = 10_000
# Questions of tasks, which clients read again and again, that this process has counted.
_counted: OrderedDict[bytes, None] = OrderedDict()


class SamplingRefused(QuestionNotPossible):
    """The upstream has asked as much of this person's model as it may for now."""


async def take(
    user_id: int, facts: UpstreamFacts, method: str, params: bytes, *, may_refuse: bool = True
) -> None:
    """Count a question, if it is one to the model, before it is put to the client.

    Without ``may_refuse`` it is counted as far as there is room, and never refused.

    Raises:
        SamplingRefused: it is one too many; says of which limit, and when there is room again.
    """
    if method == question_fields.SAMPLE:
        await _take(user_id, facts, [_tokens(params)], may_refuse=may_refuse)


async def take_all(user_id: int, facts: UpstreamFacts, raw: bytes) -> None:
    """Count the questions that an ``input_required`` result of an upstream asks at once.

    Raises:
        SamplingRefused: as ``take``; then none of them is counted.
    """
    asked = [_tokens(params) for _, params in _samples(raw)]
    if asked:
        await _take(user_id, facts, asked)


async def take_once(user_id: int, facts: UpstreamFacts, raw: bytes) -> None:
    """Count the questions of a task, each once however often the client is told of it.

    Raises:
        SamplingRefused: as ``take``.
    """
    fresh: dict[bytes, int] = {}
    for key, params in _samples(raw):
        # Keys can be used again for another question, and one be written in several ways.
        told = repr((user_id, facts.id, _task_id(raw), key, raw_members.value(params))).encode()
        name = blake2b(told, digest_size=16).digest()
        if name not in _counted:
            fresh[name] = _tokens(params)
    if not fresh:
        return
    await _take(user_id, facts, list(fresh.values()))
    _counted.update(dict.fromkeys(fresh))
    while len(_counted) > _MOST_COUNTED:
        _counted.popitem(last=False)


def asks(raw: bytes) -> bool:
    """Tell whether a result or notice may hold a question to the model."""
    return question_fields.SAMPLE.encode() in raw


def remove_old() -> None:
    """Forget windows that are over (blocking)."""
    SamplingUse.objects.filter(expires_at__lt=datetime.now(UTC)).delete()


def forget() -> None:
    """Begin as a process that was just started."""
    _counted.clear()


def _samples(raw: bytes) -> list[tuple[str, bytes]]:
    """Return key and params of each question to the model in a result or notice."""
    if not asks(raw):
        return []
    try:
        asked = raw_members.read(raw_members.read(raw).get("inputRequests", msgspec.Raw(b"{}")))
        found = [(key, raw_members.read(question)) for key, question in asked.items()]
    except NotAnObject:
        # Whoever reads it says so.
        return []
    return [
        (key, bytes(members.get("params", b"{}")))
        for key, members in found
        if raw_members.text(members.get("method")) == question_fields.SAMPLE
    ]


def _task_id(raw: bytes) -> str:
    return raw_members.text(raw_members.read(raw).get("taskId")) or ""


def _tokens(params: bytes) -> int:
    """Return how many tokens a question asks for at most."""
    try:
        given = raw_members.value(raw_members.read(params).get("maxTokens", msgspec.Raw(b"null")))
    except NotAnObject:
        return UNSAID_TOKENS
    if isinstance(given, bool) or not isinstance(given, int | float):
        return UNSAID_TOKENS
    # As large as a column can hold, and more than any budget.
    return max(1, int(min(given, 2**62)))


async def _take(
    user_id: int, facts: UpstreamFacts, tokens: list[int], *, may_refuse: bool = True
) -> None:
    try:
        full = await in_thread(_count, user_id, facts, len(tokens), sum(tokens), time.time())
    except DatabaseFailure as failure:
        # As with other rates: a database that is away does not take more away.
        logger.warning("a question to a model is not counted: %s", type(failure).__name__)
        return
    if full and may_refuse:
        await in_thread(_tell, user_id, facts, full)
        raise SamplingRefused(_words(facts, full, sum(tokens)))


def _count(user_id: int, facts: UpstreamFacts, questions: int, tokens: int, now: float) -> str:
    """Count in both windows or in none; returns which one is full, ``""`` for neither."""
    try:
        with transaction.atomic():
            for window, seconds, amount, most in (
                ("minute", _MINUTE, questions, facts.sampling_per_minute),
                ("day", _DAY, tokens, facts.sampling_tokens_per_day),
            ):
                number = int(now) // seconds
                over = datetime.fromtimestamp((number + 1) * seconds, UTC)
                if not _add(user_id, facts.id, f"{window}:{number}", amount, most, over):
                    raise _Full(window)
    except _Full as full:
        return full.window
    return ""


class _Full(Exception):
    def __init__(self, window: str) -> None:
        super().__init__(window)
        self.window = window


def _add(
    user_id: int, upstream_id: int, window: str, amount: int, most: int, over: datetime
) -> bool:
    if amount > most:
        return False
    rows = SamplingUse.objects.filter(user_id=user_id, upstream_id=upstream_id, window=window)

    def added() -> bool:
        room = rows.filter(amount__lte=most - amount)
        return bool(room.update(amount=F("amount") + amount))

    if added():
        return True
    if rows.exists():
        return False
    try:
        with transaction.atomic():
            SamplingUse.objects.create(
                user_id=user_id,
                upstream_id=upstream_id,
                window=window,
                amount=amount,
                expires_at=over + timedelta(seconds=_MINUTE),
            )
    except IntegrityError:
        # Another process began the window in the same moment.
        return added()
    return True


def _words(facts: UpstreamFacts, window: str, tokens: int) -> str:
    now = time.time()
    if window == "minute":
        left = _MINUTE - int(now) % _MINUTE
        return (
            f"{facts.title} may ask a person's model {facts.sampling_per_minute} times a minute; "
            f"try again in {left} seconds"
        )
    return (
        f"{facts.title} may ask a person's model for {facts.sampling_tokens_per_day} tokens a day "
        f"(maxTokens), and not for {tokens} more today; a new day begins at midnight UTC"
    )


def _tell(user_id: int, facts: UpstreamFacts, window: str) -> None:
    """Have it stand in the audit trail, once an hour for each person (blocking)."""
    key = f"virtualmcp:sampling-refused:{facts.id}:{user_id}:{window}"
    if not cache.add(key, True, TOLD_AGAIN_AFTER_SECONDS):
        return
    limit = {
        "minute": {"questions_a_minute": facts.sampling_per_minute},
        "day": {"tokens_a_day": facts.sampling_tokens_per_day},
    }[window]
    audit.send(
        sender=SamplingUse,
        kind="sampling.refused",
        user=User.objects.filter(pk=user_id).first(),
        target=facts.key,
        details=limit,
        address="",
    )
