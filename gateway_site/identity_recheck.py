"""Asks identity providers from time to time whether people may still come in.

A provider that gave a refresh token is asked with it, in the background and never while a client
waits. Its word is final: a sign-in that is over there ends the person's access here, and groups
follow what it says now (OpenID Connect Core 12). A provider that cannot be asked changes nothing:
how long that may go on is for *Sign in again after … days*.
"""

import asyncio
import logging
import random
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from allauth.socialaccount.models import SocialApp
from allauth.usersessions.models import UserSession
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
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
from gateway_site.identity.errors import OutOfReach, ProviderFault
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
# A provider that answers slowly is asked about the rest in its next turn.
TURN_SECONDS: Final = 60.0
# At a shutdown: for an answer that is almost there.
FINISH_SECONDS: Final = 0.8
# Providers that the log already says of that they name no groups.
_told: set[str] = set()


@dataclass(frozen=True, slots=True)
class _Over:
    """The provider no longer lets somebody in; ``reason`` is for the audit trail."""

    reason: str


async def keep_asking() -> None:
    """Ask for as long as the process runs; grants are leased, so no two processes ask at once.

    Each provider has its own thread while there is somebody to ask it about, so that one that
    does not answer delays none of the others. A cancel asks nobody further and waits for what is
    under way no longer than ``FINISH_SECONDS``: the threads do not outlive the process.
    """
    turns: dict[str, _Turn] = {}
    try:
        while True:
            await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
            apps = await database_sync_to_async(providers_to_ask, thread_sensitive=False)()
            turns = {name: turn for name, turn in turns.items() if turn.is_alive()}
            for app in apps:
                if app.provider_id not in turns:
                    turns[app.provider_id] = _Turn(app)
                    turns[app.provider_id].start()
    finally:
        await asyncio.to_thread(_end_turns, list(turns.values()))


class _Turn(threading.Thread):
    """Asks one provider about everybody who is due."""

    def __init__(self, app: SocialApp) -> None:
        super().__init__(name=f"recheck-{app.provider_id}", daemon=True)
        self._app, self.over = app, threading.Event()

    def run(self) -> None:
        """Ask, and give the thread's database connection back."""
        try:
            ask_due(self._app, self.over)
        except Exception:
            logger.exception("asking %s failed", self._app.provider_id)
        finally:
            connections.close_all()


def _end_turns(turns: list[_Turn]) -> None:
    for turn in turns:
        turn.over.set()
    until = time.monotonic() + FINISH_SECONDS
    for turn in turns:
        turn.join(max(0.0, until - time.monotonic()))


def providers_to_ask() -> list[SocialApp]:
    """Return the providers that are asked from time to time (blocking)."""
    apps = SocialApp.objects.filter(provider=OpenIdProvider.id)
    return [app for app in apps if facts_of(app).recheck_minutes]


def ask_due(app: SocialApp, over: threading.Event | None = None) -> int:
    """Ask a provider about everybody who is due; returns how many (blocking).

    Ends after ``TURN_SECONDS``, when ``over`` is set, and when the provider does not answer: who
    was not asked about stays due.
    """
    facts, count, until = facts_of(app), 0, time.monotonic() + TURN_SECONDS
    for grant in _due(facts):
        if time.monotonic() > until or (over is not None and over.is_set()):
            break
        try:
            count += _ask(app, facts, grant)
        except OutOfReach:
            logger.warning("%s does not answer; it is asked again soon", facts.id)
            return count + 1
        except Exception:
            logger.exception("asking %s about somebody failed", facts.id)
            _later(grant, AGAIN)
    return count


def out_of_reach(facts: ProviderFacts) -> tuple[int, int]:
    """Return how many people of a provider use the gateway now, and of how many of them it can't be
    asked, since their sign-in left no refresh token (blocking).
    """
    people = User.objects.filter(is_active=True, socialaccount__provider=facts.id)
    people = people.filter(_uses_the_gateway(OuterRef("pk"))).distinct()
    mine = IdentityGrant.objects.filter(user=OuterRef("pk"), provider=facts.id)
    # Who is asked to sign in is not let in any more without.
    known = mine.filter(Q(sealed_tokens__has_key="refresh_token") | Q(sign_in_asked=True))
    return people.count(), people.exclude(Exists(known)).count()


def _uses_the_gateway(user: OuterRef) -> Q:
    """Return the condition that somebody uses the gateway now: by a client, or in a browser."""
    now = timezone.now()
    tokens = get_access_token_model().objects.filter(expires__gt=now, user=user)
    since = now - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    sessions = UserSession.objects.filter(last_seen_at__gt=since, user=user)
    return Q(Exists(tokens)) | Q(Exists(sessions))


def _due(facts: ProviderFacts) -> list[IdentityGrant]:
    """Return the grants of who uses the gateway now."""
    # Sign-ins from before the provider was to be asked have no date; they have tokens only where
    # an upstream needed them.
    due = Q(recheck_at__lte=timezone.now()) | Q(recheck_at__isnull=True)
    grants = IdentityGrant.objects.filter(
        due, provider=facts.id, user__is_active=True, sign_in_asked=False
    )
    live = grants.filter(_uses_the_gateway(OuterRef("user"))).select_related("user")
    return list(live.order_by(F("recheck_at").asc(nulls_first=True))[:MOST_AT_ONCE])


def _later(grant: IdentityGrant, after: timedelta) -> None:
    IdentityGrant.objects.filter(pk=grant.pk).update(
        recheck_at=timezone.now() + after, renewing_until=None
    )


def _ask(app: SocialApp, facts: ProviderFacts, grant: IdentityGrant) -> bool:
    """Ask about one person; False if another process does, or there is nothing to ask with.

    Raises:
        OutOfReach: the provider did not answer; the person is asked about a little later.
    """
    token = identity_grants.opened(grant, "refresh_token")
    request = token_renewal.request_for(grant.provider, token)
    if request is None:
        # The next sign-in may bring a token; what else is missing, the others miss too.
        _later(grant, AGAIN if token else timedelta(minutes=facts.recheck_minutes))
        if token:
            raise OutOfReach("There is nothing to make a request with.")
        return False
    if not identity_grants.lease(grant):
        return False
    renewal = identity_grants.redeem(grant, request)
    if renewal is None:
        return True
    if renewal.outcome is Outcome.SIGN_IN:
        _ask_for_sign_in(grant, facts)
        return True
    silent = renewal.outcome in (Outcome.LOST, Outcome.NOT_REACHED)
    try:
        said = _verdict(app, facts, grant, renewal)
    except ProviderFault as fault:
        logger.warning("%s could not be asked about somebody: %s", facts.id, fault)
        said, silent = None, isinstance(fault, OutOfReach)
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
    if silent:
        raise OutOfReach("The provider did not answer.")
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
    data = _claims(app, facts, grant, renewal)
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
    app: SocialApp, facts: ProviderFacts, grant: IdentityGrant, renewal: token_renewal.Renewal
) -> dict[str, Any]:
    metadata, answer = discovery.metadata_of(facts.issuer), renewal.answer or {}
    access, raw = str(answer.get("access_token") or ""), answer.get("id_token")
    data: dict[str, Any] = {}
    if isinstance(raw, str) and raw:
        expected = Expected(metadata["issuer"], app.client_id, None, access)
        data["id_token"] = discovery.verified_claims(metadata, raw, expected)
    address = metadata.get("userinfo_endpoint")
    if renewal.userinfo is not None:
        data["userinfo"] = renewal.userinfo
    elif facts.fetch_userinfo and address and access:
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
