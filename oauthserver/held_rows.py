"""Rows held until a transaction ends, so that granting and withdrawing never pass each other.

Whoever makes a code or token without a row of its own to lock holds, *shared*, what it is made
for: first the policy, then the issuer, the person and the client. Whoever withdraws one of them
changes or takes that row first and ends tokens after. So a request under way is either seen, and
what it made ends too, or it waits and then sees that it may not. SQLite runs one such transaction
at a time anyway; what is read here is read inside it.
"""

from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.db import connections
from django.db.models import Model, QuerySet

from oauthserver.models import ClientPolicy, OAuthClient, TrustedIssuer

_Row = TypeVar("_Row", bound=Model)


def shared_policy() -> ClientPolicy:
    """Read the client policy, which then stays as it is, or its defaults."""
    held = _shared(ClientPolicy.objects.order_by("pk")[:1])
    return held[0] if held else ClientPolicy()


def shared_issuer(known: TrustedIssuer) -> TrustedIssuer | None:
    """Read a trusted issuer as it is now and stays.

    Returns:
        None: it is trusted no longer, or something else is known of it than ``known`` says.
    """
    held = _shared(TrustedIssuer.objects.filter(pk=known.pk, enabled=True))
    return held[0] if held and _facts(held[0]) == _facts(known) else None


def shared_issuers_of(provider: str) -> list[TrustedIssuer]:
    """Read the issuers whose people sign in with a provider; they stay as they are."""
    return _shared(TrustedIssuer.objects.filter(provider=provider).order_by("pk"))


def shared_person(pk: int) -> Any:
    """Read a person as they are now and stay; None: gone or switched off."""
    held = _shared(get_user_model()._default_manager.filter(pk=pk, is_active=True))
    return held[0] if held else None


def shared_client(client: OAuthClient) -> OAuthClient | None:
    """Read a client as it is now and stays.

    Returns:
        None: it is gone, switched off or refused, or has other keys than ``client`` had.
    """
    held = _shared(OAuthClient.objects.filter(pk=client.pk))
    if not held or not held[0].is_usable(None):
        return None
    return held[0] if _keys(held[0]) == _keys(client) else None


def take(row: Model) -> None:
    """Wait for everybody who holds a row shared, and let nobody hold it until the end.

    Not for the whole row: who only refers to it, in a transaction of their own, need not wait,
    because the one who takes it may have to wait for them.
    """
    manager = type(row)._default_manager
    list(manager.select_for_update(no_key=True).filter(pk=row.pk).values_list("pk"))


def hold_live(tokens: QuerySet[Any]) -> None:
    """Hold every refresh token of ``tokens`` that is not revoked, and those that replace them.

    A rotation under way holds its token and brings a successor, which may be rotated in turn
    before anybody else sees it. When all that live are held here, none can be replaced.
    """
    live = tokens.filter(revoked__isnull=True).order_by("pk")
    held: set[int] = set()
    while not held.issuperset(live.values_list("pk", flat=True)):
        held.update(live.select_for_update().values_list("pk", flat=True))


def _facts(issuer: TrustedIssuer) -> list[Any]:
    return [getattr(issuer, field.attname) for field in TrustedIssuer._meta.concrete_fields]


def _keys(client: OAuthClient) -> tuple[Any, str]:
    return client.jwks, client.jwks_uri


def _shared(rows: QuerySet[_Row]) -> list[_Row]:
    connection = connections[rows.db]
    if connection.vendor != "postgresql":
        return list(rows.select_for_update())
    # The ORM has no FOR SHARE; an exclusive lock would let a client's people in one by one.
    statement, values = rows.query.sql_with_params()
    return list(rows.model._default_manager.raw(f"{statement} FOR SHARE", values))
