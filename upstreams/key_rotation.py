"""Seal everything of this room again after the key ring changed (security.md R39).

Put the new key first, restart, run this, then remove the old key. Nothing is
interrupted: old values open for as long as the old key is in the ring, and a run that
was stopped is simply started again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.db import models

from upstreams import token_vault
from upstreams.models import (
    ClientKey,
    PendingAuthorization,
    Upstream,
    UpstreamAccount,
    UpstreamClient,
)
from upstreams.signals import audit

Progress = Callable[[int, int], None]

_COLUMNS: Final[tuple[tuple[type[models.Model], str], ...]] = (
    (Upstream, "sealed_fixed_credential"),
    (Upstream, "sealed_further_headers"),
    (Upstream, "sealed_oauth_client_secret"),
    (Upstream, "sealed_enterprise_client_secret"),
    (UpstreamClient, "sealed_client_secret"),
    (ClientKey, "sealed_key"),
    (UpstreamAccount, "sealed_secret"),
    (PendingAuthorization, "sealed_verifier"),
)


@dataclass(frozen=True, slots=True)
class RotationReport:
    """How many values were sealed again, were current already, and could not be opened."""

    resealed: int = 0
    current: int = 0
    unreadable: int = 0


def reseal_all(progress: Progress | None = None, *, actor: Any = None) -> RotationReport:
    """Seal every stored secret with the current key; ``progress(done, total)`` after each.

    Raises:
        VaultError: there is no usable key.
    """
    token_vault.current_key_id()
    rows = [
        (model, column, pk)
        for model, column in _COLUMNS
        for pk in _objects(model).exclude(**{column: ""}).values_list("pk", flat=True)
    ]
    counts = {"resealed": 0, "current": 0, "unreadable": 0}
    for done, (model, column, pk) in enumerate(rows, start=1):
        counts[_reseal_one(model, column, pk)] += 1
        if progress is not None:
            progress(done, len(rows))
    audit.send(
        sender=Upstream,
        kind="vault.resealed",
        user=actor,
        target="",
        details=dict(counts),
        address="",
    )
    return RotationReport(**counts)


def _objects(model: type[models.Model]) -> models.QuerySet[Any]:
    return model._default_manager.all()


def _reseal_one(model: type[models.Model], column: str, pk: int) -> str:
    """Seal one value, unless it was replaced meanwhile (then it is current anyway)."""
    while True:
        sealed = _objects(model).filter(pk=pk).values_list(column, flat=True).first()
        if not sealed or token_vault.is_current(sealed):
            return "current"
        try:
            fresh = token_vault.reseal(sealed)
        except token_vault.VaultError:
            return "unreadable"
        if _objects(model).filter(pk=pk, **{column: sealed}).update(**{column: fresh}):
            return "resealed"
