"""The bearer tokens of directories: made once, kept as digests, taken away at once."""

import secrets
from datetime import timedelta
from hashlib import sha256
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from gateway_site import audit_trail, rights
from gateway_site.models import ScimToken

PREFIX = "mcpgw_scim_"
SHORTEST = 32
_NOTE_EVERY = timedelta(minutes=5)


def holder_of(authorization: str) -> str | None:
    """Return the name of the token in a header, None if it is none of ours."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not SHORTEST <= len(token) <= 500:
        return None
    row = ScimToken.objects.filter(digest=_digest(token)).first()
    if row is None:
        return None
    now = timezone.now()
    if row.last_used_at is None or now - row.last_used_at > _NOTE_EVERY:
        ScimToken.objects.filter(pk=row.pk).update(last_used_at=now)
    return row.name


@transaction.atomic
def create(name: str, *, actor: Any, value: str = "") -> tuple[ScimToken, str]:
    """Make a token; return it with its value, which is shown once and kept nowhere.

    Args:
        value: a value that was chosen elsewhere, for the configuration file.

    Raises:
        ValidationError: the name is taken, or the value is too short.
        PermissionDenied: who acts is no full administrator.
    """
    rights.require_all(actor)
    if value and len(value) < SHORTEST:
        raise ValidationError({"secret": f"A token has at least {SHORTEST} characters."})
    value = value or PREFIX + secrets.token_urlsafe(32)
    row = ScimToken(name=name, digest=_digest(value))
    row.full_clean()
    row.save()
    audit_trail.record("scim.token_created", user=actor, target=name)
    return row, value


@transaction.atomic
def replace(row: ScimToken, value: str, *, actor: Any) -> None:
    """Give a token another value; the old one ends at once.

    Raises:
        ValidationError: the value is too short.
        PermissionDenied: who acts is no full administrator.
    """
    rights.require_all(actor)
    if len(value) < SHORTEST:
        raise ValidationError({"secret": f"A token has at least {SHORTEST} characters."})
    row.digest = _digest(value)
    row.save(update_fields=["digest"])
    audit_trail.record("scim.token_created", user=actor, target=row.name)


@transaction.atomic
def delete(row: ScimToken, *, actor: Any) -> None:
    """Take a token away; the directory's next request is refused.

    Raises:
        PermissionDenied: who acts is no full administrator.
    """
    rights.require_all(actor)
    row.delete()
    audit_trail.record("scim.token_deleted", user=actor, target=row.name)


def has_value(row: ScimToken, value: str) -> bool:
    """Tell whether a token has this value."""
    return secrets.compare_digest(row.digest, _digest(value))


def _digest(value: str) -> str:
    return sha256(value.encode()).hexdigest()
