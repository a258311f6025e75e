"""What a token endpoint may answer (security.md #145)."""

import pytest
from django.utils import timezone

from tests.upstreams.connecting import (
    account_of,
    browser_of,
    connect,
    person,
    upstream_at,
)
from upstreams.models import (
    UpstreamAccount,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("changes", "lives"),
    [
        ({"expires_in": "3600"}, 3600),
        ({"expires_in": 1e12}, 365 * 24 * 3600),
        ({"expires_in": -1}, None),
        ({"expires_in": 0}, None),
        ({"expires_in": "soon"}, None),
        ({"expires_in": True}, None),
        ({"expires_in": None}, None),
        ({"expires_in": 1}, 10),
        ({"token_type": "bearer"}, 3600),
        ({"token_type": None}, 3600),
        ({"refresh_token": None}, 3600),
        ({"scope": 7}, 3600),
        ({"id_token": "a.b.c"}, 3600),
        ({"id_token": "x" * 20_000}, 3600),
    ],
)
def test_145_odd_answers_are_clamped(server, protected, changes, lives) -> None:
    server.reply_changes = changes
    if "expires_in" in changes:
        server.expires_in = changes["expires_in"]
    alice, upstream = person(), upstream_at(protected.url)
    assert connect(browser_of(alice), upstream).status_code == 303
    expires = account_of(alice, upstream).expires_at
    if lives is None:
        assert expires is None
    else:
        assert abs((expires - timezone.now()).total_seconds() - lives) < 10


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": value}
        for value in ("a\r\nX: y", "a b", "", None, 7, "x" * 16_384, "é", "a\x00", 'a"b', ["x"])
    ]
    + [{"refresh_token": value} for value in ("a\r\nb", "x" * 16_384, 7)]
    + [{"token_type": value} for value in ("DPoP", "mac", 7)],
)
def test_145_hostile_answers_are_refused(server, protected, changes) -> None:
    server.reply_changes = changes
    answer = connect(browser_of(person()), upstream_at(protected.url))
    assert answer.status_code == 502
    assert not UpstreamAccount.objects.exists()
