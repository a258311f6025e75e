"""The tokens of people's sign-ins at the company's identity providers, sealed.

Kept only while an upstream of the kind ``enterprise`` needs them, since the provider vouches for
a person at that upstream with them, or where the provider is asked from time to time whether the
person may still come in (``identity_recheck``). What has run out is renewed at the provider, by one
process at a time, where the sign-in left a refresh token.
"""

import base64
import json
import logging
import time
from datetime import datetime, timedelta
from typing import Any, Final

from allauth.account.signals import user_logged_in
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from gateway_site import token_renewal
from gateway_site.identity.provider import OpenIdProvider
from gateway_site.identity.provider_facts import facts_of
from gateway_site.models import IdentityGrant
from gateway_site.token_renewal import Outcome, Renewal, RenewalRequest
from upstreams import token_vault
from upstreams.enterprise_identity import (
    SignInWay,
    SubjectToken,
    register_sign_in_ways,
    register_subject_source,
)
from upstreams.models import CredentialKind, Upstream

logger = logging.getLogger(__name__)

USUAL_SECONDS: Final = 3600
# A token has to live a little longer than the exchange it is shown in.
MARGIN_SECONDS: Final = 30
# Longer than a renewal and UserInfo can take, so that no two ask with one refresh token.
LEASE: Final = timedelta(seconds=65)
WAIT_SECONDS: Final = 32.0
_KINDS: Final = ("id_token", "access_token", "refresh_token")


def connect() -> None:
    """Register with sign-in and with the upstreams; called once at start."""
    user_logged_in.connect(_signed_in, dispatch_uid="identity_grants.signed_in")
    register_subject_source(subject_token, providers)
    register_sign_in_ways(sign_in_ways)


def _owner(user_id: int, provider: str, kind: str) -> str:
    return f"identity-grant/user:{user_id}/provider:{provider}/{kind}"


def _signed_in(sender: Any, user: Any, sociallogin: Any = None, **_: Any) -> None:
    raw = getattr(sociallogin, "raw_id_token", "")
    wanted = Upstream.objects.filter(credential_kind=CredentialKind.ENTERPRISE, enabled=True)
    minutes = facts_of(sociallogin.provider.app).recheck_minutes if raw else 0
    if not raw or not (minutes or wanted.exists()):
        return
    token, claims = sociallogin.token, claims_in(raw)
    now = int(time.time())
    ends = token.expires_at.timestamp() if token and token.expires_at else now + USUAL_SECONDS
    remember(
        user.pk,
        sociallogin.provider.app.provider_id,
        str(claims.get("sub", "")),
        {
            "id_token": raw,
            "access_token": token.token if token else "",
            "refresh_token": token.token_secret if token else "",
        },
        {"id_token": _end(claims, now), "access_token": int(ends)},
        timezone.now() + timedelta(minutes=minutes) if minutes else None,
    )


def claims_in(token: str) -> dict[str, Any]:
    """Return the claims of an ID token whose origin is known (checked, or from a token answer)."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def _end(claims: dict[str, Any], now: int) -> int:
    end = claims.get("exp")
    return int(end) if isinstance(end, int | float) else now + USUAL_SECONDS


def remember(
    user_id: int,
    provider: str,
    subject: str,
    tokens: dict[str, str],
    ends: dict[str, int],
    recheck_at: datetime | None = None,
) -> None:
    """Keep the tokens of a sign-in in the place of those of the one before (blocking)."""
    values = {
        "recheck_at": recheck_at,
        "subject": subject,
        "sealed_tokens": _sealed(user_id, provider, tokens),
        "ends": ends,
        "renewing_until": None,
        "answer_lost": False,
        "sign_in_asked": False,
    }
    found = IdentityGrant.objects.filter(user_id=user_id, provider=provider)
    if not found.update(**values, version=F("version") + 1):
        IdentityGrant.objects.create(user_id=user_id, provider=provider, **values)


def _sealed(user_id: int, provider: str, tokens: dict[str, str]) -> dict[str, str]:
    return {
        kind: token_vault.seal(tokens[kind].encode(), _owner(user_id, provider, kind))
        for kind in _KINDS
        if tokens.get(kind)
    }


def forget(user_id: int) -> None:
    """Drop what a person's sign-ins left, when their access ends (blocking)."""
    IdentityGrant.objects.filter(user_id=user_id).delete()


def forget_provider(provider: str) -> None:
    """Drop what sign-ins at a provider left, when it goes or is another one from now on (blocking).

    What one provider gave is shown to no other, which may have the same id; and what it gave to
    another client it refuses, which would say of people that they had left.
    """
    IdentityGrant.objects.filter(provider=provider).delete()


def subject_token(user_id: int, kind: str, provider: str) -> SubjectToken | None:
    """Return what ``upstreams.enterprise_identity`` asks for (blocking).

    A refresh token serves until the provider says no, the others until they run out. Where no
    provider is named, the only one is meant: the token of another one is none of its business.
    """
    if not provider:
        known = providers()
        if len(known) != 1:
            return None
        provider = known[0]
    current = IdentityGrant.objects.filter(
        user_id=user_id, user__is_active=True, provider=provider
    ).first()
    if current is not None and kind != "refresh_token" and not _alive(current, kind):
        current = _renewed(current, kind)
    token = opened(current, kind) if current is not None else ""
    return SubjectToken(token, kind) if token else None


def providers() -> list[str]:
    """Return the ids of the providers whose sign-ins leave tokens (blocking)."""
    found = SocialApp.objects.filter(provider="openid_connect").order_by("provider_id")
    return list(found.values_list("provider_id", flat=True))


def sign_in_ways(user_id: int, provider: str) -> list[SignInWay]:
    """Return the provider that is named, else the one the person came by last, else all of them.

    Only OpenID providers give tokens that vouch for somebody elsewhere (blocking).
    """
    apps = SocialApp.objects.filter(provider=OpenIdProvider.id).order_by("name", "provider_id")
    if provider:
        apps = apps.filter(provider_id=provider)
    offered = {app.provider_id: app.name or app.provider_id for app in apps}
    theirs = SocialAccount.objects.filter(user_id=user_id, provider__in=offered)
    last = theirs.order_by("-last_login").values_list("provider", flat=True).first()
    if last is not None:
        offered = {last: offered[last]}
    return [
        SignInWay(name, reverse("openid_connect_login", kwargs={"provider_id": key}))
        for key, name in offered.items()
    ]


def _alive(grant: IdentityGrant, kind: str) -> bool:
    return float(grant.ends.get(kind, 0)) > time.time() + MARGIN_SECONDS


def opened(grant: IdentityGrant, kind: str) -> str:
    """Return one token of a grant, "" if there is none or it cannot be opened any more."""
    sealed = grant.sealed_tokens.get(kind)
    if not sealed:
        return ""
    try:
        owner = _owner(grant.user_id, grant.provider, kind)
        return token_vault.open_sealed(sealed, owner).decode()
    except token_vault.VaultError:
        logger.warning("what a sign-in left cannot be opened any more")
        return ""


def _renewed(grant: IdentityGrant, kind: str) -> IdentityGrant | None:
    """Renew the sign-in at its provider; one process asks, the others wait for the row."""
    request = token_renewal.request_for(grant.provider, opened(grant, "refresh_token"))
    if request is None:
        return None
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if lease(grant):
            redeem(grant, request)
        fresh = IdentityGrant.objects.filter(pk=grant.pk).first()
        if fresh is None or fresh.version != grant.version or fresh.renewing_until is None:
            return fresh if fresh is not None and _alive(fresh, kind) else None
        time.sleep(0.05)
    return None


def lease(grant: IdentityGrant) -> bool:
    """Take the right to renew a grant, unless another process has it or it was renewed."""
    free = Q(renewing_until__isnull=True) | Q(renewing_until__lt=timezone.now())
    mine = IdentityGrant.objects.filter(free, pk=grant.pk, version=grant.version)
    return bool(mine.update(renewing_until=timezone.now() + LEASE))


def redeem(grant: IdentityGrant, request: RenewalRequest) -> Renewal | None:
    """Redeem the refresh token of a leased grant; keep what came, or give the lease back.

    A sign-in that came meanwhile, or the end of the person's access, is stronger than what the
    renewal brings: None then, and nothing is kept. A refresh token that is refused after an answer
    was lost says nothing of the person: the provider may have given another one in its place.
    """
    held = IdentityGrant.objects.filter(pk=grant.pk, version=grant.version)
    # A lease that ran out is that of a process which did not live to see the answer.
    left = grant.renewing_until is not None and grant.renewing_until < timezone.now()
    renewal = token_renewal.with_userinfo(request, token_renewal.ask(request))
    if renewal.answer is not None and not _is_anothers(grant, renewal):
        return renewal if _keep(grant, request, renewal.answer) else None
    if renewal.answer is not None:
        logger.warning("%s answered a renewal with another person's token", grant.provider)
        renewal = Renewal(Outcome.LOST)
    lost = grant.answer_lost or left or renewal.outcome is Outcome.LOST
    if renewal.outcome is Outcome.REFUSED and lost:
        renewal = Renewal(Outcome.SIGN_IN)
    return renewal if held.update(renewing_until=None, answer_lost=lost) else None


def _is_anothers(grant: IdentityGrant, renewal: Renewal) -> bool:
    """Tell whether a renewal is for somebody else (OpenID Connect Core 12.2, 5.3.2)."""
    raw = str((renewal.answer or {}).get("id_token") or "")
    said = [claims_in(raw)] if raw else []
    said += [renewal.userinfo] if renewal.userinfo is not None else []
    return any(str(claims.get("sub", "")) != grant.subject for claims in said)


def _keep(grant: IdentityGrant, request: RenewalRequest, answer: dict[str, Any]) -> bool:
    """Keep what a renewal brought in the place of what it renewed; False if that is gone."""
    now, life = int(time.time()), answer.get("expires_in")
    raw = str(answer.get("id_token") or "")
    tokens = {
        "id_token": raw or opened(grant, "id_token"),
        "access_token": str(answer.get("access_token") or ""),
        "refresh_token": str(answer.get("refresh_token") or "") or request.form["refresh_token"],
    }
    ends = {
        "id_token": _end(claims_in(raw), now) if raw else int(grant.ends.get("id_token", 0)),
        "access_token": now + (int(life) if isinstance(life, int) else USUAL_SECONDS),
    }
    sealed = _sealed(grant.user_id, grant.provider, tokens)
    held = IdentityGrant.objects.filter(pk=grant.pk, version=grant.version)
    fresh = {"sealed_tokens": sealed, "ends": ends, "renewing_until": None, "answer_lost": False}
    return bool(held.update(**fresh, version=F("version") + 1))


def reseal() -> int:
    """Seal every kept token with the current key; returns how many (blocking)."""
    count = 0
    for grant in IdentityGrant.objects.all():
        fresh = {kind: token_vault.reseal(value) for kind, value in grant.sealed_tokens.items()}
        unchanged = IdentityGrant.objects.filter(pk=grant.pk, version=grant.version)
        count += len(fresh) * unchanged.update(sealed_tokens=fresh)
    return count
