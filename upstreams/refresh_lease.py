"""Who may renew an account's tokens now: a lease on its row, by the database's clock (R37, R38)."""

from datetime import timedelta
from typing import Any, Final

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from upstreams.models import UpstreamAccount

LEASE: Final = timedelta(seconds=10)
# The holder extends it while it waits for a slow server; one that died does not.
HEARTBEAT_SECONDS: Final = 3.0


def _later() -> "models.ExpressionWrapper[Any]":
    return models.ExpressionWrapper(Now() + LEASE, output_field=models.DateTimeField())


def take(account_id: int, version: int, owner: str) -> bool:
    """Take the lease unless somebody holds it or the row moved on (blocking)."""
    free = Q(refresh_lease_until__isnull=True) | Q(refresh_lease_until__lt=Now())
    return (
        UpstreamAccount.objects.filter(
            free, pk=account_id, version=version, status=UpstreamAccount.Status.CONNECTED
        ).update(refresh_lease_owner=owner, refresh_lease_until=_later())
        == 1
    )


def extend(account_id: int, owner: str) -> bool:
    """Hold the lease for longer; returns whether it was still held (blocking)."""
    held = UpstreamAccount.objects.filter(pk=account_id, refresh_lease_owner=owner)
    return held.update(refresh_lease_until=_later()) == 1


def unchanged(account: UpstreamAccount) -> models.QuerySet[UpstreamAccount]:
    """Return the row if it is still the one that was read, else nothing."""
    return UpstreamAccount.objects.filter(
        pk=account.pk, version=account.version, grant_id=account.grant_id
    )


def give_back(account: UpstreamAccount) -> None:
    """End the lease without a result (blocking)."""
    unchanged(account).update(refresh_lease_until=None, refresh_lease_owner="")
