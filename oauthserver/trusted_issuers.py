"""Which identity providers may vouch for people: check, change and audit in one place."""

from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction

from oauthserver import held_rows, vouched_access
from oauthserver.client_facts import checked_jwks, checked_jwks_uri
from oauthserver.errors import ProtocolError
from oauthserver.models import TrustedIssuer
from oauthserver.signals import audit

FIELDS = ("provider", "jwks_uri", "jwks", "enabled")


def trust(issuer: str, values: dict[str, Any], *, actor: Any) -> list[str]:
    """Trust an issuer, or change what is known of it; returns the names of what changed.

    A change of any of it, switching it off above all, ends the access it led to before.

    Raises:
        ValidationError: by field.
    """
    with transaction.atomic():
        found = TrustedIssuer.objects.select_for_update().filter(issuer=issuer).first()
        row = found or TrustedIssuer(issuer=issuer)
        before = {name: getattr(row, name) for name in FIELDS}
        for name in FIELDS:
            if name in values:
                setattr(row, name, values[name])
        check(row)
        changed = [n for n in FIELDS if found is None or before[n] != getattr(row, n)]
        if changed:
            row.save()
            # Who was vouched for with other keys, or as somebody else's person, is not any more.
            if found is not None:
                vouched_access.end_of_issuer(issuer, actor=actor)
            details = {"members": changed, "enabled": row.enabled, "provider": row.provider}
            _tell("client.issuer_trusted", issuer, actor, details)
    return changed


def drop(row: TrustedIssuer, *, actor: Any) -> None:
    """Trust an issuer no longer; the access it led to ends at once."""
    with transaction.atomic():
        held_rows.take(row)
        vouched_access.end_of_issuer(row.issuer, actor=actor)
        row.delete()
        _tell("client.issuer_dropped", row.issuer, actor, {})


def check(row: TrustedIssuer) -> None:
    """Check an issuer before it is saved.

    Raises:
        ValidationError: by field.
    """
    parts = urlsplit(row.issuer)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise ValidationError({"issuer": "Give the https address that stands in 'iss'."})
    if not row.provider:
        raise ValidationError({"provider": "Name the identity provider people sign in with."})
    if bool(row.jwks_uri) == bool(row.jwks):
        raise ValidationError({"jwks_uri": "Give either the key set's URL or the keys."})
    for name, checked, value in (
        ("jwks_uri", checked_jwks_uri, row.jwks_uri or None),
        ("jwks", checked_jwks, row.jwks),
    ):
        try:
            checked(value)
        except ProtocolError as error:
            raise ValidationError({name: error.description}) from error


def _tell(kind: str, issuer: str, actor: Any, details: dict[str, Any]) -> None:
    audit.send(
        sender=TrustedIssuer, kind=kind, user=actor, target=issuer, details=details, address=""
    )
