"""Which identity providers may vouch for people: check, change and audit in one place."""

import re
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction

from oauthserver import held_rows, issuer_subjects, vouched_access
from oauthserver.client_facts import checked_jwks, checked_jwks_uri
from oauthserver.errors import ProtocolError
from oauthserver.models import TrustedIssuer
from oauthserver.signals import audit

FIELDS = (
    *("provider", "jwks_uri", "jwks", "enabled"),
    *("person_claim", "tenant_claim", "sign_in_claim", "sign_in_tenant_claim", "domains"),
)
LONGEST_CLAIM = 200
_LAST_PART = re.compile(r"[./:]")
_NO_NAME = {*issuer_subjects.CHANGEABLE, issuer_subjects.ADDRESS, "emailaddress"}
_DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+", re.IGNORECASE | re.ASCII)


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
        row.domains = sorted({str(domain).strip().lower() for domain in row.domains or []})
        check(row)
        changed = [n for n in FIELDS if found is None or before[n] != getattr(row, n)]
        if changed:
            row.save()
            # Who was vouched for with other keys, or as somebody else's person, is not any more.
            if found is not None:
                vouched_access.end_of_issuer(issuer, actor=actor)
            issuer_subjects.learn_all(row)
            details = {
                "members": changed,
                "enabled": row.enabled,
                "provider": row.provider,
                "person_claim": row.person_claim,
                "tenant_claim": row.tenant_claim,
            }
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
    _check_claims(row)
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


def _check_claims(row: TrustedIssuer) -> None:
    """Check by what people are known: never by what they change, or share with others."""
    if not row.person_claim:
        raise ValidationError({"person_claim": "Name the claim, which is sub as a rule."})
    for name in ("person_claim", "tenant_claim", "sign_in_claim", "sign_in_tenant_claim"):
        claim = getattr(row, name)
        if len(claim) > LONGEST_CLAIM or claim != claim.strip() or "\x00" in claim:
            raise ValidationError({name: "Give the claim's name, without blanks around it."})
    for name in ("person_claim", "sign_in_claim"):
        claim = getattr(row, name)
        if claim == issuer_subjects.ADDRESS and name == "person_claim":
            continue
        # Also as upn inside of another claim, and as the last part of a SAML attribute's name.
        if _LAST_PART.split(claim)[-1].lower() in _NO_NAME:
            text = f"{claim} can be changed, or given to somebody else, and then names another one."
            raise ValidationError({name: text})
    if row.person_claim == "oid" and not row.tenant_claim:
        text = "An oid is unique within a tenant only: name the claim with the tenant, tid."
        raise ValidationError({"tenant_claim": text})
    by_address = row.person_claim == issuer_subjects.ADDRESS
    if by_address and row.sign_in_claim:
        text = "Leave it empty for email: the address that the provider vouches for is taken."
        raise ValidationError({"sign_in_claim": text})
    if row.sign_in_tenant_claim and not row.tenant_claim:
        raise ValidationError({"tenant_claim": "Name the claim in assertions too."})
    if by_address != bool(row.domains):
        text = "Name the domains whose verified addresses name people."
        other = "Domains are for the claim email only."
        raise ValidationError({"domains": text if by_address else other})
    for domain in row.domains:
        if not _DOMAIN.fullmatch(domain):
            raise ValidationError({"domains": f"{domain[:60]} is no domain, such as contoso.com."})


def _tell(kind: str, issuer: str, actor: Any, details: dict[str, Any]) -> None:
    audit.send(
        sender=TrustedIssuer, kind=kind, user=actor, target=issuer, details=details, address=""
    )
