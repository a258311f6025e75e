"""What a second worker brings, with the load generator's share accounted for.

Load generator, upstream and gateway share the cores here, so two workers never have two cores to
themselves, and calls a second against one worker (which has) would say more about the load than
about the gateway. So the same is given to both: first one worker with its load and its upstream
on *one* core, then two workers with theirs on *two* cores. A second core that is used as well as
the first gives 2.
"""

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from load import Load, Target, process_tree, run


@dataclass(frozen=True)
class Scaling:
    """Medians: calls a second and CPU microseconds a call."""

    one: float
    two: float
    one_cpu: float
    two_cpu: float

    @property
    def times(self) -> float:
        """How many times as many calls two workers take."""
        return self.two / self.one


def every_thread(pid: int) -> Iterator[int]:
    """Yield the threads of a process and its children."""
    for one in process_tree(pid):
        for thread in Path(f"/proc/{one}/task").iterdir():
            yield int(thread.name)


def put_on(cores: set[int], pids: tuple[int, ...]) -> None:
    """Let processes with all their threads run on these cores only."""
    for pid in pids:
        for thread in every_thread(pid) if pid else (0,):
            # A thread of the start may just have ended.
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cores)


@contextmanager
def confined(cores: set[int], pids: tuple[int, ...]) -> Iterator[None]:
    """Keep processes, and what this one starts, on some cores until the block ends."""
    before = os.sched_getaffinity(0)
    put_on(cores, (0, *pids))
    try:
        yield
    finally:
        put_on(before, (0, *pids))


def measure(
    one: Target, two: Target, load: Load, upstream: tuple[int, ...], rounds: int, seconds: int
) -> Scaling | None:
    """Compare a gateway of one worker with one of two, in turns; None on a single core."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    half = replace(load, concurrency=load.concurrency // 2)
    alone, both = [], []
    for _ in range(rounds):
        with confined(set(cores[:1]), (*one.pids, *upstream)):
            alone.append(run(one, half, seconds))
        with confined(set(cores[:2]), (*two.pids, *upstream)):
            both.append(run(two, load, seconds))
    middle = statistics.median
    return Scaling(
        middle(seen.calls_per_second for seen in alone),
        middle(seen.calls_per_second for seen in both),
        middle(seen.cpu_us for seen in alone),
        middle(seen.cpu_us for seen in both),
    )
