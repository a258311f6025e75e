"""What changes in one process is forgotten in all others within a second."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.utils import timezone

from consent.signals import changed
from gateway_site import change_feed
from gateway_site.models import ChangeNotice
from tests.patience import PATIENCE

ANOTHER_PROCESS = """
import django; django.setup()
from oauthserver.signals import changed
changed.send(sender=None, kind={kind!r}, key={key!r})
"""


@pytest.fixture
def heard(monkeypatch):
    """Collect what caches are told, in place of the real caches."""
    calls: list[tuple[str, str]] = []
    kinds = ("token", "configuration", "credential", "session", "access")
    forgetters = {kind: [lambda key, kind=kind: calls.append((kind, key))] for kind in kinds}
    monkeypatch.setattr(change_feed, "_forgetters", forgetters)
    return calls


def change_in_another_process(kind: str, key: str) -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "gateway_site.settings",
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "PYTHONPATH": str(settings.BASE_DIR),
    }
    code = ANOTHER_PROCESS.format(kind=kind, key=key)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=2 * PATIENCE)


async def until(condition, seconds: float = PATIENCE) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.skipif(os.environ.get("DATABASE_URL", "") != "", reason="shares the SQLite file")
async def test_a_change_made_by_another_process_is_heard_within_a_second(transactional_db, heard):
    following = asyncio.create_task(change_feed.follow_changes())
    try:
        assert await until(lambda: ("token", "") in heard)
        heard.clear()
        await asyncio.to_thread(change_in_another_process, "token", "abc")
        assert await until(lambda: ("token", "abc") in heard)
        assert change_feed.POLL_SECONDS < 1
        # Twice where Redis tells it before the table does; forgetting twice does no harm.
        assert set(heard) == {("token", "abc")}
    finally:
        following.cancel()


def test_what_is_cached_here_is_forgotten_at_once(transactional_db, heard):
    changed.send(sender=None, kind="configuration", key="team")
    assert ("configuration", "team") in heard


def test_a_change_that_is_rolled_back_is_not_told_to_others(transactional_db, heard):
    with pytest.raises(RuntimeError), transaction.atomic():
        changed.send(sender=None, kind="token", key="x")
        raise RuntimeError
    assert not ChangeNotice.objects.exists()


async def test_a_change_announced_on_an_event_loop_is_written_too(transactional_db, heard):
    changed.send(sender=None, kind="session", key="gone")
    assert await until(lambda: not change_feed._pending)
    assert await ChangeNotice.objects.filter(kind="session", key="gone").aexists()


def test_a_notice_that_commits_late_is_still_read(transactional_db):
    """Transactions may commit in another order than their ids were given out."""
    reader = change_feed.NoticeReader()
    reader.start()
    later = ChangeNotice.objects.create(pk=1_000_002, kind="token", key="later")
    assert reader.read() == [("token", "later")]
    ChangeNotice.objects.create(pk=1_000_001, kind="token", key="earlier id")
    assert reader.read() == [("token", "earlier id")]
    assert reader.read() == []
    assert later.pk == 1_000_002


def test_after_a_long_silence_everything_is_forgotten(transactional_db, monkeypatch):
    reader = change_feed.NoticeReader()
    reader.start()
    monkeypatch.setattr(reader, "last_read", time.monotonic() - 120)
    assert reader.read() == [("", "")]


def test_old_notices_are_removed(transactional_db):
    ChangeNotice.objects.create(kind="token", key="new")
    old = ChangeNotice.objects.create(kind="token", key="old")
    ChangeNotice.objects.filter(pk=old.pk).update(at=timezone.now() - timedelta(hours=1))
    change_feed.remove_old_notices()
    assert list(ChangeNotice.objects.values_list("key", flat=True)) == ["new"]


def test_switching_a_person_off_reaches_every_process(transactional_db, heard):
    person = User.objects.create_user("ada")
    heard.clear()
    person.is_active = False
    person.save()
    assert ("access", str(person.pk)) in heard
    assert ChangeNotice.objects.filter(kind="access", key=str(person.pk)).exists()


def test_leaving_a_group_reaches_every_process(transactional_db, heard):
    person, group = User.objects.create_user("ada"), Group.objects.create(name="staff")
    person.groups.add(group)
    heard.clear()
    person.groups.remove(group)
    assert ("access", "") in heard


def test_a_sign_in_is_not_a_change_of_access(transactional_db, heard, client):
    person = User.objects.create_user("ada", password="correct horse battery")
    heard.clear()
    client.force_login(person, backend=settings.AUTHENTICATION_BACKENDS[0])
    assert heard == []


def test_one_cache_that_fails_does_not_keep_others_from_forgetting(heard, caplog):
    def broken(key: str) -> None:
        raise RuntimeError

    change_feed._forgetters["token"].insert(0, broken)
    change_feed.forget_here("token", "a")
    assert ("token", "a") in heard
