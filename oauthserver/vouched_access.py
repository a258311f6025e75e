"""What trusted issuers let clients do for people: written down, shown, and ended.

No person was asked, so no consent says it. Ending it ends the tokens there are; the company's
policy decides whether the client may come again, which dropping the issuer or refusing the client
settles.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from allauth.socialaccount.models import SocialApp
from django.db import transaction
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from oauthserver import token_families
from oauthserver.models import OAuthClient, TrustedIssuer, VouchedAccess
from oauthserver.signals import audit


def note(user: Any, client: OAuthClient, resource: str, issuer: str, scopes: str) -> None:
    """Write down that an issuer let a client in. Call in the transaction of the token."""
    now = timezone.now()
    facts = {"issuer": issuer, "scopes": scopes, "last_at": now, "ended_at": None}
    VouchedAccess.objects.update_or_create(
        user=user, client=client, resource=resource, defaults=facts
    )


def standing(user: Any) -> list[VouchedAccess]:
    """Return what issuers let clients do for a person and nobody has ended, the latest first."""
    rows = VouchedAccess.objects.filter(user=user, ended_at=None)
    return list(rows.select_related("client", "user"))


def provider_names(issuers: set[str]) -> dict[str, str]:
    """Return what each issuer's identity provider is called on the sign-in page, else its host."""
    ids = dict(TrustedIssuer.objects.filter(issuer__in=issuers).values_list("issuer", "provider"))
    names = dict(
        SocialApp.objects.filter(provider_id__in=ids.values()).values_list("provider_id", "name")
    )
    return {one: names.get(ids.get(one, "")) or urlsplit(one).netloc for one in issuers}


def end(rows: Iterable[VouchedAccess], *, actor: Any, address: str = "") -> int:
    """End the tokens that came of it, at once; returns how many accesses were ended."""
    count = 0
    with transaction.atomic():
        wanted = VouchedAccess.objects.filter(pk__in=[row.pk for row in rows], ended_at=None)
        locked = wanted.select_for_update(of=("self",)).select_related("client", "user")
        for row in locked.order_by("pk"):
            _end_tokens(row)
            row.ended_at = timezone.now()
            row.save(update_fields=["ended_at"])
            details = {"client_id": row.client.client_id, "person": row.user.get_username()}
            audit.send(
                sender=VouchedAccess,
                kind="client.vouched_access_ended",
                user=actor,
                target=row.slug,
                details={**details, "issuer": row.issuer},
                address=address,
            )
            count += 1
        if count:
            token_families.tell_everyone()
    return count


def end_of_issuer(issuer: str, *, actor: Any) -> int:
    """End all that an issuer led to; the caller holds its row, so that nothing comes after."""
    return end(VouchedAccess.objects.filter(issuer=issuer, ended_at=None), actor=actor)


def _end_tokens(row: VouchedAccess) -> None:
    # Tokens that a person's own consent led to have a refresh token beside them, and stay.
    tokens = get_access_token_model().objects.filter(
        user=row.user, application=row.client, resource=[row.resource], refresh_token=None
    )
    tokens.delete()
