"""The gateway's own keys as OAuth client (``private_key_jwt``): made, published, used, retired.

A key stands in the JWKS for a day before it signs, so that servers which cached the set
have it, and for a day after its successor signs. Until a first key of this kind signs, one
derived from the vault's ring does, so that a new gateway needs no preparation.

    made ──a day──▶ signs ──successor signs──▶ a day ──▶ gone
"""

from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from jwcrypto import jwk

from upstreams import signing_keys, token_vault
from upstreams.models import ClientKey
from upstreams.signals import audit

OVERLAP: Final = timedelta(days=1)
LIFE: Final = timedelta(days=90)


def _owner(kid: str) -> str:
    return f"client-key/{kid}"


def _opened(row: ClientKey) -> jwk.JWK:
    pem = token_vault.open_sealed(row.sealed_key, _owner(row.kid))
    return signing_keys.key_from_pem(pem)


def _rows() -> list[ClientKey]:
    return list(ClientKey.objects.order_by("-signs_from", "-pk"))


def signing_key() -> jwk.JWK:
    """Return the key that signs now (blocking).

    Raises:
        VaultError: it cannot be opened with the configured keys.
    """
    now = timezone.now()
    for row in _rows():
        if row.signs_from <= now:
            return _opened(row)
    return signing_keys.derived_keys()[0]


def public_keys() -> dict[str, Any]:
    """Return the JWKS (RFC 7517): what signs, what will, what did until lately (blocking)."""
    now, rows = timezone.now(), _rows()
    keys = [_opened(row) for row in rows]
    if not any(row.signs_from <= now - OVERLAP for row in rows):
        keys += signing_keys.derived_keys()
    return {"keys": [key.export_public(as_dict=True) for key in keys]}


def rotate(*, actor: Any = None, at_once: bool = False) -> str:
    """Make the next key and return its id (blocking).

    ``at_once`` is for a key that leaked: the new one signs now, and every other one is
    taken back. Servers that cached the old set refuse the gateway until they fetch it again.
    """
    pem = signing_keys.new_key()
    kid, now = str(signing_keys.key_from_pem(pem)["kid"]), timezone.now()
    with transaction.atomic():
        if at_once:
            ClientKey.objects.all().delete()
        # Signing since so long ago, it also ends the derived key's place in the set.
        signs_from = now - OVERLAP if at_once else now + OVERLAP
        sealed = token_vault.seal(pem, _owner(kid))
        ClientKey.objects.create(kid=kid, sealed_key=sealed, signs_from=signs_from)
        audit.send(
            sender=ClientKey,
            kind="upstream.client_key_rotated",
            user=actor,
            target=kid,
            details={"at_once": at_once},
            address="",
        )
    return kid


def keep_rotating() -> None:
    """Make the next key when the present one is old, and drop those that are over (blocking).

    Only where servers can see our keys at all; several processes at once do no harm.
    """
    if not settings.SERVED_OVER_TLS:
        return
    now, rows = timezone.now(), _rows()
    if not rows or (rows[0].signs_from <= now - LIFE):
        rotate()
        return
    signing = [row for row in rows if row.signs_from <= now]
    # The first of them signs; the second signed until then.
    if signing and signing[0].signs_from <= now - OVERLAP:
        ClientKey.objects.filter(pk__in=[row.pk for row in signing[1:]]).delete()
