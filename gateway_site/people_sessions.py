"""The browser sessions of people: who is signed in where, and ending that.

A session is the database's row of Django plus allauth's note of who, from where and with what.
Ending one deletes both, so the browser is signed out with its next request, on every node.
"""

from dataclasses import dataclass
from datetime import datetime
from importlib import import_module

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from gateway_site.browser_names import browser_name


@dataclass(frozen=True, slots=True)
class SessionView:
    """One browser session as its person sees it; ``id`` is no secret, unlike the session's key."""

    id: int
    browser: str
    address: str
    since: datetime
    last_seen: datetime
    current: bool


def sessions_of(user: User, current_key: str | None = None) -> list[SessionView]:
    """Return a person's live sessions, the current one first, then the latest seen."""
    rows = UserSession.objects.purge_and_list(user)
    views = [
        SessionView(
            id=row.pk,
            browser=browser_name(row.user_agent),
            address=row.ip,
            since=row.created_at,
            last_seen=row.last_seen_at,
            current=row.session_key == current_key,
        )
        for row in rows
    ]
    return sorted(views, key=lambda view: (not view.current, -view.last_seen.timestamp()))


@transaction.atomic
def end_one(user: User, session_id: int) -> bool:
    """End one of a person's sessions; False if it is not theirs or already over."""
    row = UserSession.objects.filter(user=user, pk=session_id).first()
    if row is None:
        return False
    row.end()
    return True


@transaction.atomic
def end_all(user: User, *, keep: str = "") -> int:
    """End every session of a person but the one with the key ``keep``; return how many."""
    rows = UserSession.objects.filter(user=user).exclude(session_key=keep)
    keys = list(rows.values_list("session_key", flat=True))
    store = import_module(settings.SESSION_ENGINE).SessionStore
    for key in keys:
        store().delete(key)
    rows.delete()
    return len(keys)
