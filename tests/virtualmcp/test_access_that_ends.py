"""Calls and streams that are open when their token or the access behind it ends (#124, #134)."""

# ruff: noqa: F811
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from oauthserver import bearer_tokens
from tests.virtualmcp.test_endpoint_notices import reader
from tests.virtualmcp.test_endpoint_streams import ERAS, _soon, hanging  # noqa: F401
from virtualmcp import actions, rate_limits
from virtualmcp.models import VirtualMcp
from virtualmcp.transport import open_streams, response_stream


def left_the_group(board, ada, token):
    ada.groups.clear()


def closed_to_everybody(board, ada, token):
    row = VirtualMcp.objects.get(slug="board")
    actions.update_virtual_mcp(row, {"audience": "groups"}, groups=[], actor=None)


def switched_off(board, ada, token):
    ada.is_active = False
    ada.save()


def in_its_time(board, ada, token):
    later = timezone.now() + timedelta(seconds=0.3)
    get_access_token_model().objects.filter(user=ada).update(expires=later)
    bearer_tokens.forget()


@pytest.mark.parametrize("lose", [left_the_group, closed_to_everybody, switched_off, in_its_time])
@pytest.mark.parametrize("era", ERAS)
def test_124_134_a_running_call_ends_with_the_access_or_the_tokens_time(
    board, ada, hanging, upstream, monkeypatch, lose, era
):
    leads = Group.objects.create(name="leads")
    ada.groups.add(leads)
    row = VirtualMcp.objects.get(slug="board")
    actions.update_virtual_mcp(row, {"audience": "groups"}, groups=[leads], actor=None)
    assert response_stream.RECHECK_SECONDS <= 60
    monkeypatch.setattr(response_stream, "RECHECK_SECONDS", 0.2)
    monkeypatch.setattr(response_stream, "OPEN_AFTER_SECONDS", 0.1)
    connection = hanging(era)
    assert upstream.wait(lambda seen: "started:hang" in seen.events)
    lose(board, ada, board.token)
    assert upstream.wait(lambda seen: "cancelled:hang" in seen.events, 5)
    # The stream is told why, and ends; nothing of the upstream's comes any more.
    connection.socket.settimeout(10)
    heard = b""
    while b"Authorize again" not in heard:
        part = connection.socket.recv(65_536)
        assert part, heard
        heard += part
    assert b'"result"' not in heard
    assert _soon(lambda: not rate_limits._in_flight)


@pytest.mark.parametrize("era", ERAS)
def test_134_a_stream_that_says_nothing_ends_in_its_tokens_time(board, monkeypatch, era):
    assert open_streams.RECHECK_SECONDS + open_streams.TICK_SECONDS <= 60
    monkeypatch.setattr(open_streams, "RECHECK_SECONDS", 0.1)
    with reader(board, era) as stream:
        assert stream.status == 200
        later = timezone.now() + timedelta(seconds=0.3)
        get_access_token_model().objects.update(expires=later)
        bearer_tokens.forget()
        assert stream.wait(lambda reader: reader.ended)


@pytest.mark.parametrize("era", ERAS)
def test_124_a_stream_ends_when_its_person_leaves_the_group(ada, board, monkeypatch, era):
    leads = Group.objects.create(name="leads")
    ada.groups.add(leads)
    row = VirtualMcp.objects.get(slug="board")
    actions.update_virtual_mcp(row, {"audience": "groups"}, groups=[leads], actor=None)
    monkeypatch.setattr(open_streams, "TICK_SECONDS", 3600.0)
    with reader(board, era) as stream:
        assert stream.status == 200
        ada.groups.clear()
        assert stream.wait(lambda reader: reader.ended)
