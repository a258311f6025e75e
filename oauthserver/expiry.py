"""Removing what is over: run every few minutes by whichever process does the housekeeping.

What recognises a replay stays as long as a replay could do harm; a client that somebody
approved stays for good (ChatGPT registers once and keeps its client, clients.md 1.3 row 8),
unless an administrator sets a number of days without any use. Every use starts the time anew.
A client that was refused or switched off stays for good too.
"""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils import timezone
from oauth2_provider.models import (
    get_access_token_model,
    get_grant_model,
    get_id_token_model,
    get_refresh_token_model,
)

from oauthserver import actions
from oauthserver.models import (
    ClientPolicy,
    IssuedCode,
    OAuthClient,
    RotationAnswer,
    UsedAssertion,
)
from oauthserver.token_policy import REFRESH_IDLE

UNAPPROVED_CLIENT = timedelta(days=1)
CLIENT_IN_REVIEW = timedelta(days=30)
# A flood of registrations leaves at most so many rows behind, whatever it comes from.
MOST_UNAPPROVED = 20_000
BATCH = 500


def remove_expired() -> dict[str, int]:
    """Delete what has expired; returns how many rows of each kind were chosen.

    Works in small batches, so that nobody waits long for a lock. Safe to run anywhere, at any
    time, any number of times at once.
    """
    now = timezone.now()
    tokens = get_refresh_token_model().objects
    access = get_access_token_model().objects
    orphaned = Q(refresh_token__isnull=True) | Q(refresh_token__revoked__isnull=False)
    chosen: dict[str, QuerySet[Any]] = {
        "codes": get_grant_model().objects.filter(expires__lt=now),
        "records of codes": IssuedCode.objects.filter(issued_at__lt=now - REFRESH_IDLE),
        "rotation answers": RotationAnswer.objects.filter(until__lt=now),
        "used assertions": UsedAssertion.objects.filter(until__lt=now),
        "revoked refresh tokens": tokens.filter(revoked__lt=now - REFRESH_IDLE),
        "idle refresh tokens": tokens.filter(created__lt=now - REFRESH_IDLE, revoked=None),
        "access tokens": access.filter(orphaned, expires__lt=now),
        # An access token goes with its ID token, so those still in use stay.
        "ID tokens": get_id_token_model().objects.filter(expires__lt=now, access_token=None),
        **_unused_clients(now),
    }
    removed = {kind: _delete(rows) for kind, rows in chosen.items()}
    return removed | {"clients out of use": _forget_clients(now)}


def _unused_clients(now: datetime) -> dict[str, QuerySet[Any]]:
    reviews = OAuthClient.Review
    unapproved = _came_itself().filter(approved_at=None)
    found = {
        "unapproved clients": unapproved.filter(
            review=reviews.NONE, last_seen__lt=now - UNAPPROVED_CLIENT
        ),
        "clients nobody reviewed": unapproved.filter(
            review=reviews.WAITING, last_seen__lt=now - CLIENT_IN_REVIEW
        ),
    }
    waiting = unapproved.filter(review=reviews.NONE).order_by("-last_seen")
    surplus = waiting.values_list("last_seen", flat=True)[MOST_UNAPPROVED : MOST_UNAPPROVED + 1]
    for newest in surplus:
        found["surplus clients"] = unapproved.filter(review=reviews.NONE, last_seen__lte=newest)
    return found


def _forget_clients(now: datetime) -> int:
    """Forget clients that people approved and that are out of use, if the policy wants that."""
    days = ClientPolicy.current().forget_after_days
    if not days:
        return 0
    alive = get_refresh_token_model().objects.filter(revoked=None, application=OuterRef("pk"))
    rows = (
        _came_itself()
        .filter(~Exists(alive), last_seen__lt=now - timedelta(days=days))
        .exclude(approved_at=None)
    )
    forgotten = 0
    for client in rows[:BATCH]:
        with transaction.atomic():
            # The conditions once more: it may have come back into use since it was listed.
            if rows.filter(pk=client.pk).delete()[0]:
                actions.tell("client.forgotten", client, unused_days=days)
                forgotten += 1
    return forgotten


def _came_itself() -> QuerySet[OAuthClient]:
    # An administrator's no has to be remembered: who is forgotten may come back as if new.
    found: QuerySet[OAuthClient] = (
        OAuthClient.objects.filter(enabled=True)
        .exclude(registration_source=OAuthClient.RegistrationSource.MANUAL)
        .exclude(review=OAuthClient.Review.REFUSED)
        .annotate(last_seen=Coalesce("last_used_at", "created"))
    )
    return found


def _delete(rows: QuerySet[Any]) -> int:
    total = 0
    while batch := list(rows.values_list("pk", flat=True)[:BATCH]):
        # The conditions once more: a row may have come back into use since it was listed.
        rows.filter(pk__in=batch).delete()
        total += len(batch)
        if len(batch) < BATCH:
            break
    return total
