"""When to stop asking an upstream that keeps failing, and when to try again (pure but for time).

    closed ──3 failures in a row──▶ open ──its time is over──▶ half-open: one trial
       ▲                              ▲                             │ fails: twice the time
       └──────── succeeds ────────────┴─────────────────────────────┘

While it is open a call fails at once instead of after a time-out, so that a server that is
down costs neither its callers their patience nor the others their lists.
"""

import random
import time
from typing import Final, Literal

from upstreams.errors import (
    EgressRefused,
    UpstreamAnswerInvalid,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from upstreams.exchange_faults import Dropped

CircuitState = Literal["closed", "open", "half_open"]
FAILURES: Final = 3
FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 120.0
# A trial that was let through and never came back (its caller left) does not block for ever.
TRIAL_SECONDS: Final = 15.0


def speaks_against(error: UpstreamError, method: str) -> bool:
    """Return whether a failure says that the server itself is in trouble.

    A refusal of one person's credential or of one request does not. Nor does a tool that
    takes too long: others of the same server may be quick.
    """
    if isinstance(error, EgressRefused):
        return False
    if isinstance(error, UpstreamTimeout):
        return method != "tools/call"
    if isinstance(error, UpstreamAnswerInvalid):
        return error.detail.startswith("HTTP 5") or isinstance(error.__cause__, Dropped)
    return isinstance(error, UpstreamUnreachable)


class CircuitBreaker:
    """The breaker of one upstream in one process; ``troubled`` is False while all is well."""

    __slots__ = ("_pause", "_retry_at", "_trial_until", "failures", "opened", "troubled")

    def __init__(self) -> None:
        self.troubled = False
        self.failures = 0
        self.opened = False
        self._pause = FIRST_PAUSE
        self._retry_at = 0.0
        self._trial_until = 0.0

    @property
    def state(self) -> CircuitState:
        """The state as administrators read it."""
        if not self.opened:
            return "closed"
        return "open" if time.monotonic() < self._retry_at else "half_open"

    def wait(self) -> float:
        """Return 0.0 if a call may go out now, else in how many seconds to come back.

        In the half-open state the first caller goes out as the trial.
        """
        if not self.opened:
            return 0.0
        now = time.monotonic()
        if now < self._retry_at:
            return self._retry_at - now
        if now < self._trial_until:
            return 1.0
        self._trial_until = now + TRIAL_SECONDS
        return 0.0

    def failed(self) -> bool:
        """Note a failure; return whether it opened the circuit."""
        self.troubled = True
        self.failures += 1
        if not self.opened and self.failures < FAILURES:
            return False
        again = self.opened
        if again and time.monotonic() < self._retry_at:
            return False  # began before it opened
        self._pause = min(self._pause * 2, LONGEST_PAUSE) if again else FIRST_PAUSE
        self._retry_at = time.monotonic() + self._pause * random.uniform(0.8, 1.2)  # noqa: S311
        self._trial_until = 0.0
        self.opened = True
        return not again

    def succeeded(self) -> bool:
        """Note that it works; return whether that closed the circuit."""
        closed, self.opened = self.opened, False
        self.troubled, self.failures, self._pause = False, 0, FIRST_PAUSE
        return closed

    def end_trial(self) -> None:
        """Give back a trial that did not ask the server; the next call may be one."""
        self._trial_until = 0.0

    def suspect(self) -> None:
        """Take another process's word that the server is failing: one failure more opens."""
        if not self.opened:
            self.troubled = True
            self.failures = max(self.failures, FAILURES - 1)

    def try_soon(self) -> None:
        """Take another process's word that the server works again: the next call is a trial."""
        if self.opened:
            self._retry_at = self._trial_until = 0.0
