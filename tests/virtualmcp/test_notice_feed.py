"""Upstreams that say more of changes than anybody can use: merged, bounded, no load to others."""

import asyncio
import json
import time

import pytest

from tests.patience import PATIENCE
from upstreams import change_streams
from upstreams.change_interest import LIST_METHODS, UPDATED
from virtualmcp import notice_feed
from virtualmcp.listed_entries import Collected, Kind
from virtualmcp.signals import changed
from virtualmcp.tool_catalogue import Catalogue, CatalogueKey, catalogue

CONTENT = Collected(Kind.TOOLS).content(modern=True)


def key(upstream_id, credential_id="c"):
    return CatalogueKey(upstream_id, "https://up.example/", credential_id, "f", Kind.TOOLS)


@pytest.fixture
def told():
    """What the other processes are told."""
    heard = []

    def hear(sender, kind, key="", **_):
        if kind == "notice":
            heard.append(key.split(" ", 3)[1:])

    changed.connect(hear)
    yield heard
    changed.disconnect(hear)


async def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        await asyncio.sleep(0.02)


async def test_news_of_one_upstream_leave_the_lists_of_others_alone():
    lists, go, asked = Catalogue(), asyncio.Event(), []

    async def reading():
        asked.append(1)
        await go.wait()
        return CONTENT, None

    async def quick():
        return CONTENT, None

    await lists.read(key(3), quick)
    under_way = [asyncio.create_task(lists.read(key(number), reading)) for number in (1, 2)]
    await until(lambda: len(asked) == 2)
    lists.expire(upstream_id=1, credential_id="c")
    # Who comes after the change does not share the reading from before it.
    late = asyncio.create_task(lists.read(key(1), reading))
    shared = asyncio.create_task(lists.read(key(2), reading))
    await until(lambda: len(asked) == 3)
    lists.expire(upstream_id=1, credential_id="another")
    go.set()
    await asyncio.gather(*under_way, late, shared)
    assert len(asked) == 3
    assert all(lists.peek(key(number)) is not None for number in (1, 2, 3))
    lists.expire(upstream_id=1, credential_id="c")
    assert lists.peek(key(1)) is None
    assert lists.last_good(key(1)) is not None
    assert lists.peek(key(2)) is not None


async def test_a_reading_from_before_the_news_stands_in_only_where_there_is_nothing():
    lists, go = Catalogue(), asyncio.Event()

    async def reading():
        await go.wait()
        return CONTENT, None

    under_way = asyncio.create_task(lists.read(key(1), reading))
    await asyncio.sleep(0)
    lists.expire(upstream_id=1, credential_id="c")
    go.set()
    await under_way
    assert lists.peek(key(1)) is None
    assert lists.last_good(key(1)) is not None
    lists.forget()
    assert lists.last_good(key(1)) is None
    assert not lists._own
    assert not lists._bytes


async def test_a_chatty_upstream_has_its_lists_read_again_at_the_first_and_the_last_word(
    monkeypatch,
):
    expired, delivered = [], []
    monkeypatch.setattr(catalogue, "expire", lambda **which: expired.append(which))
    monkeypatch.setattr(change_streams, "deliver", lambda *news: delivered.append(news))
    for _ in range(500):
        notice_feed.lists_changed(71, "c")
    notice_feed.lists_changed(72, "c")
    about = [{"upstream_id": number, "credential_id": "c"} for number in (71, 72)]
    assert expired == about
    await until(lambda: len(expired) > 2)
    assert expired == [*about, about[0]]
    # Who looked in between looks again.
    assert delivered == [(71, "c", method, b"{}") for method in LIST_METHODS]
    await asyncio.sleep(notice_feed.APART_SECONDS * 1.5)
    assert len(expired) == 3


async def test_a_few_updated_resources_are_passed_on_by_name_and_too_many_in_one_word(told):
    def updated(upstream_id, number):
        params = json.dumps({"uri": f"note:{number}"}).encode()
        notice_feed.pass_on(upstream_id, "c", UPDATED, params)

    for number in range(notice_feed.MOST_URIS):
        updated(81, number)
        updated(81, number)
    for number in range(2_000):
        updated(82, number)
    notice_feed.pass_on(82, "c", "notifications/tools/list_changed", b"{}")
    await until(lambda: len(told) >= notice_feed.MOST_URIS + 2)
    few = [["81", "c", f"=note:{number}"] for number in range(notice_feed.MOST_URIS)]
    assert sorted(told) == sorted([*few, ["82", "c", "*"], ["82", "c", "tools"]])


async def test_that_word_is_heard_as_anything_may_have_changed(monkeypatch):
    made_up = []
    monkeypatch.setattr(change_streams, "make_up_anywhere", lambda *whose: made_up.append(whose))
    notice_feed.hear("elsewhere.1 81 c *")
    notice_feed.hear("elsewhere.1 81 c *")
    assert made_up == [(81, "c")]
