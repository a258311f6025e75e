"""Token families: all tokens that descend from one approval, and how they end together."""

import uuid
from typing import Any

from django.core.cache import cache
from django.db import transaction
from oauth2_provider.models import get_access_token_model, get_refresh_token_model
from oauthlib.oauth2.rfc6749 import errors

from oauthserver import audience, bearer_tokens, held_rows
from oauthserver.models import IssuedCode
from oauthserver.signals import audit, changed

TOLD_AGAIN_AFTER_SECONDS = 3600


def check_person(user: Any, resources: list[str]) -> None:
    """Check that the person may still use what a grant is for.

    Raises:
        errors.InvalidGrantError: the account is closed, or the resource is gone or barred.
    """
    if not user.is_active:
        raise errors.InvalidGrantError("The account is closed.")
    resource = audience.find_resource(resources[0]) if len(resources) == 1 else None
    if resource is None or not audience.may_use(user, resource):
        raise errors.InvalidGrantError("The resource is no longer available to this person.")


def end_family(family: uuid.UUID | None) -> None:
    """Revoke every refresh token of a family and delete its access tokens."""
    if family is not None:
        members = get_refresh_token_model().objects.filter(token_family=family)
        held_rows.hold_live(members)
        get_refresh_token_model().revoke_family(family)
    tell_everyone()


def end_issued_by(record: IssuedCode) -> None:
    """End what a code issued, because the code came back; told once in a while for each code.

    Whoever repeats a used code once more, which takes no secret, makes nobody forget anything.
    """
    issued = get_access_token_model().objects.filter(token_checksum=record.access_token_checksum)
    members = get_refresh_token_model().objects.filter(token_family=record.family)
    if members.filter(revoked__isnull=True).exists() or issued.exists():
        # Refresh tokens before access tokens, everywhere: who lock in one order never deadlock.
        end_family(record.family)
        issued.delete()
    if not cache.add(f"oauthserver:replayed:{record.digest}", True, TOLD_AGAIN_AFTER_SECONDS):
        return
    audit.send(
        sender=IssuedCode,
        kind="token.code_replayed",
        user=record.user,
        target=record.application.client_id,
        details={"code": record.pk},
        address="",
    )


def end_replayed(token: Any) -> None:
    """End the family of a refresh token that came back after its successor was in use."""
    end_family(token.token_family)
    audit.send(
        sender=type(token),
        kind="token.refresh_replayed",
        user=token.user,
        target=token.application.client_id,
        details={"family": str(token.token_family)},
        address="",
    )


def tell_everyone() -> None:
    """Make every process forget the tokens it knows. Call in the transaction of the change."""
    changed.send(sender=IssuedCode, kind="token", key="")
    transaction.on_commit(bearer_tokens.forget)
