"""Authorization codes: issued once per approval, stored as digests, redeemed once.

A code lives 60 seconds and is for exactly one client, person, redirect URI, PKCE challenge
and resource. ``IssuedCode`` outlives it, so that a replay is recognised and ends what the
code issued (RFC 6749 4.1.2, security.md #93-#97).
"""

import base64
import re
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from secrets import compare_digest
from typing import Any

from django.utils import timezone
from oauth2_provider.models import get_grant_model
from oauthlib.oauth2.rfc6749 import errors

from oauthserver import audience, token_families
from oauthserver.audience import Resource
from oauthserver.errors import RedirectRefusal
from oauthserver.models import IssuedCode, OAuthClient
from oauthserver.token_values import digest, new_code

LIFETIME_SECONDS = 60
MAX_TRIES = 5
_VERIFIER = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


@dataclass(frozen=True)
class Redemption:
    """What a token request says about a code; ``resources`` in the order sent."""

    code: str
    redirect_uri: str | None
    code_verifier: str | None
    resources: list[str]


def issue(
    *,
    client: OAuthClient,
    user: Any,
    redirect_uri: str,
    scopes: list[str],
    resource: Resource,
    code_challenge: str,
    nonce: str,
    approval: str,
    authenticated_at: float = 0,
) -> str:
    """Store a new code and return it.

    Args:
        authenticated_at: when the person proved who they are, in seconds since 1970.

    Raises:
        IntegrityError: the approval has produced a code already.
        RedirectRefusal: the resource is not one the person may use now.
    """
    if audience.find_resource(resource.uri) is None or not audience.may_use(user, resource):
        raise RedirectRefusal("invalid_target", "The resource is not available.")
    code = new_code()
    IssuedCode.objects.create(
        digest=digest(code),
        transaction=approval,
        application=client,
        user=user,
        authenticated_at=authenticated_at,
    )
    get_grant_model().objects.create(
        application=client,
        user=user,
        code=digest(code),
        expires=timezone.now() + timedelta(seconds=LIFETIME_SECONDS),
        redirect_uri=redirect_uri,
        scope=" ".join(scopes),
        code_challenge=code_challenge,
        code_challenge_method="S256",
        nonce=nonce,
        resource=[resource.uri],
    )
    return code


def scopes_of(code: str) -> list[str]:
    """Return the scopes of a live code, or none."""
    found = get_grant_model().objects.filter(code=digest(code)).values_list("scope", flat=True)
    return (found.first() or "").split()


def check(client: OAuthClient, said: Redemption) -> tuple[Any, IssuedCode]:
    """Lock a code and check that this request may redeem it. Call inside a transaction.

    Returns:
        The library's grant row and the code's record.

    Raises:
        errors.InvalidGrantError: unknown, expired, replayed, or not this client's.
        errors.CustomOAuth2Error: ``invalid_target``.
    """
    record = (
        IssuedCode.objects.select_for_update()
        .filter(digest=digest(said.code), application=client)
        .first()
    )
    if record is None:
        raise errors.InvalidGrantError("The code is unknown or has expired.")
    if record.redeemed_at is not None:
        token_families.end_issued_by(record)
        raise errors.InvalidGrantError("The code was used already; what it issued is revoked.")
    # Locked too: whoever ends a person's tokens begins with their codes.
    grants = get_grant_model().objects.select_for_update(of=("self",)).select_related("user")
    grant = grants.filter(code=record.digest).first()
    if grant is None or grant.is_expired() or record.failed_tries >= MAX_TRIES:
        raise errors.InvalidGrantError("The code is unknown or has expired.")
    if not _redirect_uri_fits(client, grant.redirect_uri, said.redirect_uri):
        raise errors.InvalidGrantError("'redirect_uri' is not the one of the authorization.")
    if not _verifier_fits(said.code_verifier, grant.code_challenge):
        record.failed_tries += 1
        record.save(update_fields=["failed_tries"])
        raise errors.InvalidGrantError("'code_verifier' does not fit the challenge.")
    check_resource(said.resources, grant.resource)
    token_families.check_person(grant.user, grant.resource)
    return grant, record


def redeem(grant: Any, record: IssuedCode, access_token_checksum: str) -> None:
    """Use up a checked code; ``access_token_checksum`` is what it issued."""
    record.redeemed_at = timezone.now()
    record.access_token_checksum = access_token_checksum
    record.save(update_fields=["redeemed_at", "access_token_checksum"])
    grant.delete()


def check_resource(asked: list[str], granted: list[str]) -> None:
    """A token request may repeat the resource, never bring another one (RFC 8707 2.2).

    Raises:
        errors.CustomOAuth2Error: ``invalid_target``.
    """
    if len(granted) != 1:
        raise errors.InvalidGrantError("The grant is not for exactly one resource.")
    if len(asked) > 1 or (asked and audience.canonical(asked[0]) != granted[0]):
        raise errors.CustomOAuth2Error(
            "invalid_target", description="'resource' is not the one of the authorization."
        )


def _redirect_uri_fits(client: OAuthClient, authorized: str, said: str | None) -> bool:
    if authorized:
        return said == authorized
    return not said or [said] == client.redirect_uris.split()


def _verifier_fits(verifier: str | None, challenge: str) -> bool:
    if not verifier or not _VERIFIER.fullmatch(verifier):
        return False
    made = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).decode().rstrip("=")
    return compare_digest(made, challenge)
