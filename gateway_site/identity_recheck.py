"""Asks identity providers from time to time whether people may still come in.

A provider that gave a refresh token is asked with it, in the background and never while a client
waits. Its word is final: a sign-in that is over there ends the person's access here, and groups
follow what it says now (OpenID Connect Core 12). A provider that cannot be asked changes nothing:
how long that may go on is for *Sign in again after … days*.
"""

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from allauth.socialaccount.models import SocialApp
from allauth.usersessions.models import UserSession
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone
from oauth2_provider.models import get_access_token_model

from gateway_site import (
    audit_trail,
    identity_grants,
    people_actions,
    people_sessions,
    token_renewal,
)
from gateway_site.identity import arrival, discovery, outbound
from gateway_site.identity.admission import groups_are_unknown, refusal_on_renewal
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.id_tokens import Expected
from gateway_site.identity.provider import OpenIdProvider, together
from gateway_site.identity.provider_facts import ProviderFacts, facts_of
from gateway_site.models import IdentityGrant
from gateway_site.token_renewal import Outcome

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 30
# A provider that could not be asked is asked again so much later.
AGAIN: Final = timedelta(minutes=2)
MOST_AT_ONCE: Final = 100
# Providers that the log already says of that they name no groups.
_told: set[str] = set()


@dataclass(frozen=True, slots=True)
class _Over:
    """The provider no longer lets somebody in; ``reason`` is for the audit trail."""

    reason: str


async def keep_asking() -> None:
    """Ask for as long as the process runs; grants are leased, so no two processes ask at once."""
    while True:
        await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
        await database_sync_to_async(ask_due, thread_sensitive=False)()


def ask_due() -> int:
    """Ask about everybody who is due; returns how many (blocking)."""
    count = 0
    for app in SocialApp.objects.filter(provider=OpenIdProvider.id):
        facts = facts_of(app)
        if not facts.recheck_minutes:
            continue
        for grant in _due(facts):
            try:
                count += _ask(app, facts, grant)
            except Exception:
                logger.exception("asking %s about somebody failed", facts.id)
                _later(grant, AGAIN)
    return count


def _due(facts: ProviderFacts) -> list[IdentityGrant]:
    """Return the grants of who uses the gateway now: by a client, or in a browser."""
    now, mine = timezone.now(), {"user": OuterRef("user")}
    tokens = get_access_token_model().objects.filter(expires__gt=now, **mine)
    since = now - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    sessions = UserSession.objects.filter(last_seen_at__gt=since, **mine)
    # Sign-ins from before the provider was to be asked have no date; they have tokens only where
    # an upstream needed them.
    due = Q(recheck_at__lte=now) | Q(recheck_at__isnull=True)
    grants = IdentityGrant.objects.filter(
        due, provider=facts.id, user__is_active=True, sign_in_asked=False
    )
    live = grants.filter(Exists(tokens) | Exists(sessions)).select_related("user")
    return list(live.order_by(F("recheck_at").asc(nulls_first=True))[:MOST_AT_ONCE])


def _later(grant: IdentityGrant, after: timedelta) -> None:
    IdentityGrant.objects.filter(pk=grant.pk).update(
        recheck_at=timezone.now() + after, renewing_until=None
    )


def _ask(app: SocialApp, facts: ProviderFacts, grant: IdentityGrant) -> bool:
    """Ask about one person; False if another process does."""
    token = identity_grants.opened(grant, "refresh_token")
    request = token_renewal.request_for(grant.provider, token)
    if request is None:
        # Nothing to ask with, which the next sign-in may bring; or the provider is out of reach.
        _later(grant, AGAIN if token else timedelta(minutes=facts.recheck_minutes))
        return False
    if not identity_grants.lease(grant):
        return False
    renewal = identity_grants.redeem(grant, request)
    if renewal is None:
        return True
    if renewal.outcome is Outcome.SIGN_IN:
        _ask_for_sign_in(grant, facts)
        return True
    try:
        said = _verdict(app, facts, grant, renewal)
    except ProviderFault as fault:
        logger.warning("%s could not be asked about somebody: %s", facts.id, fault)
        said = None
    version = grant.version + (1 if renewal.outcome is Outcome.RENEWED else 0)
    if not IdentityGrant.objects.filter(pk=grant.pk, version=version).exists():
        # A sign-in came meanwhile, which says more, or the person's access ended.
        return True
    if isinstance(said, _Over):
        _end(grant.user, facts, said)
        return True
    if said is not None:
        arrival.follow(grant.user, app, said)
    _later(grant, AGAIN if said is None else timedelta(minutes=facts.recheck_minutes))
    return True


def _verdict(
    app: SocialApp, facts: ProviderFacts, grant: IdentityGrant, renewal: token_renewal.Renewal
) -> dict[str, Any] | _Over | None:
    """Return what the provider says of the person now, None if nothing could be learnt.

    Raises:
        ProviderFault: what it says is not to be believed.
    """
    if renewal.outcome is Outcome.REFUSED:
        return _Over("refused")
    if renewal.answer is None:
        return None
    data = _claims(app, facts, grant, renewal.answer)
    if not data:
        # The sign-in is good; of groups and domain it says nothing.
        return {}
    groups = arrival.group_claim(facts, data)
    refusal = refusal_on_renewal(facts, data, together(data), groups)
    if refusal is not None:
        return _Over(refusal.reason)
    if groups_are_unknown(facts, data, groups):
        if facts.id not in _told:
            _told.add(facts.id)
            logger.warning(
                "%s names no groups when it renews a sign-in: they change at the next sign-in only",
                facts.id,
            )
        return {}
    return data


def _claims(
    app: SocialApp, facts: ProviderFacts, grant: IdentityGrant, answer: dict[str, Any]
) -> dict[str, Any]:
    metadata = discovery.metadata_of(facts.issuer)
    access, raw = str(answer.get("access_token") or ""), answer.get("id_token")
    data: dict[str, Any] = {}
    if isinstance(raw, str) and raw:
        expected = Expected(metadata["issuer"], app.client_id, None, access)
        data["id_token"] = discovery.verified_claims(metadata, raw, expected)
    address = metadata.get("userinfo_endpoint")
    if facts.fetch_userinfo and address and access:
        data["userinfo"] = outbound.fetch_json(address, what="UserInfo", token=access)
    if any(claims.get("sub") != grant.subject for claims in data.values()):
        # Core 12.2 and 5.3.2.
        raise ProviderFault("The provider answered about another person.")
    return data


def _ask_for_sign_in(grant: IdentityGrant, facts: ProviderFacts) -> None:
    """Have a person sign in again of whom the provider said neither yes nor no without them.

    Their clients get no new tokens before that (``sign_in_age``), but keep what was granted.
    """
    held = IdentityGrant.objects.filter(pk=grant.pk, version=grant.version)
    if not held.update(sealed_tokens={}, ends={}, sign_in_asked=True, version=F("version") + 1):
        return
    audit_trail.record(
        "person.sign_in_asked",
        user=grant.user,
        target=grant.user.get_username(),
        details={"provider": facts.id},
    )
    people_sessions.end_all(grant.user)


def _end(person: User, facts: ProviderFacts, over: _Over) -> None:
    audit_trail.record(
        "person.recheck_refused",
        user=person,
        target=person.get_username(),
        details={"provider": facts.id, "reason": over.reason},
    )
    people_actions.end_access(person, actor=None)
