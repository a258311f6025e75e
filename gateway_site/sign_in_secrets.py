"""Secrets of sign-in that are kept sealed, and sealing them again when the key ring changes."""

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialApp
from django.db import transaction

from gateway_site import identity_grants
from gateway_site.saml.signing_key import SEALED_KEY as SEALED_SAML_KEY
from gateway_site.saml.signing_key import owner as saml_key_owner
from gateway_site.sign_in import MFA_OWNER, SEALED_SECRET, secret_owner
from upstreams import token_vault


def hear_resealing(sender: Any, kind: str, **_: Any) -> None:
    """Follow ``rotate_encryption_key``: what it did for upstreams is done for sign-in too."""
    if kind == "vault.resealed":
        reseal()
        identity_grants.reseal()


@transaction.atomic
def reseal() -> int:
    """Seal client secrets of identity providers and second factors with the current key.

    Returns:
        How many secrets were sealed again.
    """
    count = 0
    for app in SocialApp.objects.select_for_update():
        owners = {
            SEALED_SECRET: secret_owner(app.provider_id),
            SEALED_SAML_KEY: saml_key_owner(app.provider_id),
        }
        for name, owner in owners.items():
            if app.settings.get(name):
                app.settings[name] = _again(app.settings[name], owner)
                app.save(update_fields=["settings"])
                count += 1
    for factor in Authenticator.objects.select_for_update():
        for name in ("secret", "seed"):
            if factor.data.get(name):
                factor.data[name] = _again(factor.data[name], MFA_OWNER)
                count += 1
        codes = factor.data.get("migrated_codes")
        if codes:
            factor.data["migrated_codes"] = [_again(code, MFA_OWNER) for code in codes]
            count += len(codes)
        factor.save(update_fields=["data"])
    return count


def _again(sealed: str, owner: str) -> str:
    return token_vault.seal(token_vault.open_sealed(sealed, owner), owner)
