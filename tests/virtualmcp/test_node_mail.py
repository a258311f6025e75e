"""Mail between processes and facts they share; two event loops stand for two processes."""

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from tests.patience import PATIENCE
from virtualmcp.models import NodeMail, SharedNote
from virtualmcp.routing import node_mail, shared_notes

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    """Run a coroutine on another event loop: what it knows in memory is not known here."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    yield run

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


async def received(address: str, count: int = 1, opened: threading.Event | None = None) -> Any:
    async with node_mail.mailbox(address) as box:
        if opened is not None:
            opened.set()
        return [await box.receive(10) for _ in range(count)]


async def test_mail_within_a_process_touches_no_database() -> None:
    async with node_mail.mailbox("here") as box:
        await node_mail.send("here", b"one")
        await node_mail.send("here", b"two")
        assert await box.receive(1) == b"one"
        assert await box.receive(1) == b"two"
        with pytest.raises(TimeoutError):
            await box.receive(0.01)
    assert not node_mail.waits_here("here")


async def test_mail_reaches_another_process_in_the_order_it_was_sent(elsewhere: Any) -> None:
    opened = threading.Event()
    waiting = elsewhere(received("there", 3, opened))
    assert await asyncio.to_thread(opened.wait, 10)
    for body in (b"1", b"2", b"3"):
        await node_mail.send("there", body)
    assert await waiting == [b"1", b"2", b"3"]
    assert await NodeMail.objects.acount() == 0


async def test_mail_waits_for_whoever_opens_the_mailbox_later(elsewhere: Any) -> None:
    await node_mail.send("later", b"early")
    row = await NodeMail.objects.aget()
    assert "early" not in row.body
    assert await elsewhere(received("later")) == [b"early"]


@pytest.mark.redis
async def test_with_redis_mail_is_there_before_anybody_looks_for_it(
    elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_mail, "POLL_WITH_LAYER_SECONDS", 60.0)
    layers = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [os.environ["GATEWAY_TEST_REDIS_URL"]]},
        }
    }
    with override_settings(CHANNEL_LAYERS=layers):
        opened = threading.Event()

        async def told() -> Any:
            async with node_mail.mailbox("told") as box:
                async with asyncio.timeout(PATIENCE):
                    while not node_mail._offices.here()._told:  # noqa: ASYNC110, joining has no event
                        await asyncio.sleep(0.01)
                opened.set()
                return await box.receive(10)

        waiting = elsewhere(told())
        assert await asyncio.to_thread(opened.wait, 10)
        await node_mail.send("told", b"1")
        assert await waiting == b"1"


async def test_of_many_that_write_a_fact_once_exactly_one_does() -> None:
    tried = [shared_notes.set_once("answered", b"%d" % n, 60) for n in range(12)]
    assert sum(await asyncio.gather(*tried)) == 1
    assert await shared_notes.get("answered") is not None
    assert "answered" not in (await SharedNote.objects.aget()).value


async def test_a_fact_past_its_time_is_none_and_can_be_written_again() -> None:
    assert await shared_notes.set_once("old", b"1", -1)
    assert await shared_notes.get("old") is None
    assert await shared_notes.set_once("old", b"2", 60)
    assert await shared_notes.get("old") == b"2"
    await shared_notes.remove("old")
    assert await shared_notes.get("old") is None


async def test_a_fact_is_only_swapped_for_what_is_there() -> None:
    await shared_notes.put("state", b"1", 60)
    assert not await shared_notes.swap("state", b"0", b"2", 60)
    tried = [shared_notes.swap("state", b"1", b"%d" % n, 60) for n in range(5, 9)]
    assert sum(await asyncio.gather(*tried)) == 1


async def test_a_lease_has_one_holder_until_it_ends_or_expires() -> None:
    assert await shared_notes.take_lease("call", "a", 60)
    assert await shared_notes.take_lease("call", "a", 60)
    assert not await shared_notes.take_lease("call", "b", 60)
    assert await shared_notes.lease_holder("call") == "a"
    await shared_notes.end_lease("call", "b")
    assert await shared_notes.lease_holder("call") == "a"
    assert await shared_notes.extend_leases(["call", "other"], "a", -1) == {"call"}
    assert await shared_notes.lease_holder("call") == ""
    assert await shared_notes.take_lease("call", "b", 60)
    assert not await shared_notes.take_lease("call", "a", 60)
    assert await shared_notes.extend_leases(["call"], "a", 60) == set()


async def test_many_leases_and_facts_are_given_up_at_once_and_only_ones_own() -> None:
    await shared_notes.take_lease("use:1", "a", 60)
    await shared_notes.take_lease("use:2", "a", 60)
    await shared_notes.take_lease("use:3", "b", 60)
    await shared_notes.end_leases(["use:1", "use:3"], "a")
    assert await shared_notes.leases("use:") == {"use:2", "use:3"}
    await shared_notes.put("fact:1", b"1", 60)
    await shared_notes.put("fact:2", b"another", 60)
    stood = await shared_notes.discard_all({"fact:1": b"1", "fact:2": b"2", "fact:3": b"3"})
    assert stood == {"fact:1", "fact:2"}
    assert await shared_notes.get("fact:1") is None
    assert await shared_notes.get("fact:2") == b"another"
