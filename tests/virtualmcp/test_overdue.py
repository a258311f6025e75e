"""One timer for many deadlines: told once, in time, and never because another one failed."""

import asyncio

from tests.patience import PATIENCE
from virtualmcp.transport.overdue import Deadlines

SOON = 0.02


class Waiter:
    """Notes that its deadline passed."""

    def __init__(self, fails: bool = False) -> None:
        self.passed = asyncio.Event()
        self.times = 0
        self._fails = fails

    def overdue(self) -> None:
        self.times += 1
        self.passed.set()
        if self._fails:
            raise RuntimeError("a deadline that could not be heard")


async def told(waiter: Waiter) -> None:
    async with asyncio.timeout(PATIENCE):
        await waiter.passed.wait()


async def test_each_deadline_is_told_once_in_order_and_a_discarded_one_never():
    deadlines = Deadlines(every=0.005)
    first, gone, last = Waiter(), Waiter(), Waiter()
    for waiter in (first, gone, last):
        deadlines.add(waiter, SOON)
    deadlines.discard(gone)
    await told(last)
    assert (first.times, gone.times, last.times) == (1, 0, 1)


async def test_waiting_goes_on_after_a_pause_without_deadlines():
    deadlines = Deadlines(every=0.005)
    for _ in range(3):
        waiter = Waiter()
        deadlines.add(waiter, SOON)
        await told(waiter)
        assert waiter.times == 1


async def test_one_that_fails_takes_no_other_along():
    deadlines = Deadlines(every=0.005)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    broken, sound = Waiter(fails=True), Waiter()
    deadlines.add(broken, SOON)
    deadlines.add(sound, SOON)
    await told(sound)
    assert (broken.times, sound.times) == (1, 1)


def test_each_loop_of_a_thread_has_deadlines_of_its_own():
    deadlines = Deadlines(every=0.005)

    async def once() -> int:
        waiter = Waiter()
        deadlines.add(waiter, SOON)
        await told(waiter)
        return waiter.times

    assert [asyncio.run(once()) for _ in range(2)] == [1, 1]
