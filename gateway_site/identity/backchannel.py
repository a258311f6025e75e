"""The address at which a provider says that somebody signed out there (back-channel logout).

OpenID Connect Back-Channel Logout 1.0: the provider's server posts a signed logout token; the
gateway ends the browser sessions that stand on that sign-in, on every node. Where the
administrator chose so, everything else of the person's ends too, their clients' tokens with it.
"""

import logging
from collections.abc import Callable

from allauth.account.internal.decorators import login_not_required
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.contrib.auth.models import User
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from gateway_site import audit_trail, people_actions
from gateway_site.identity import (
    discovery,
    logout_tokens,
    provider_sessions,
    stranger_limits,
)
from gateway_site.identity.errors import ProviderFault, TokenRefused
from gateway_site.identity.logout_tokens import LogoutNotice
from gateway_site.identity.provider_facts import ProviderFacts, facts_of
from oauthserver import signed_claims

logger = logging.getLogger(__name__)


@csrf_exempt
@never_cache
@require_POST
@login_not_required  # type: ignore[untyped-decorator]
def backchannel_logout(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Take a logout token: 200 once the sessions have ended, 400 if it is not acceptable (2.8).

    Raises:
        Http404: there is no such provider.
    """
    app = SocialApp.objects.filter(provider="openid_connect", provider_id=provider_id).first()
    if app is None:
        raise Http404
    facts = facts_of(app)
    try:
        take(
            facts,
            request.POST.get("logout_token", ""),
            may_hurry=lambda: stranger_limits.may_hurry(request),
        )
    except TokenRefused as refused:
        logger.warning("a logout token for %s was refused: %s", facts.id, refused)
        answer = {"error": "invalid_request", "error_description": str(refused)}
        return JsonResponse(answer, status=400)
    except ProviderFault as fault:
        logger.warning("a logout token for %s could not be checked: %s", facts.id, fault)
        text = "The provider's keys could not be fetched. Send a new token later."
        return JsonResponse(
            {"error": "temporarily_unavailable", "error_description": text}, status=400
        )
    return HttpResponse(status=200)


def take(facts: ProviderFacts, token: str, *, may_hurry: Callable[[], bool]) -> None:
    """Do what a logout token says, once.

    Args:
        may_hurry: whether new keys may be fetched right after the last ones, for this token.

    Raises:
        TokenRefused: it is not valid, or came before.
        ProviderFault: the provider's keys can't be had.
    """
    metadata = discovery.metadata_of(facts.issuer)
    notice = discovery.with_current_keys(
        metadata,
        lambda keys: logout_tokens.read(token, keys, metadata["issuer"], facts.client_id),
        may_hurry=may_hurry,
    )
    with transaction.atomic():
        try:
            signed_claims.use_once(f"logout {metadata['issuer']}", notice.claims, notice.until)
        except signed_claims.NotAcceptable as replayed:
            raise TokenRefused("The logout token came before.") from replayed
        _end(facts, notice)


def _end(facts: ProviderFacts, notice: LogoutNotice) -> None:
    """End what a provider says has ended.

    The person is known by their subject, or by the sessions that ended.
    """
    sids = [notice.sid] if notice.sid else []
    ended = provider_sessions.end(facts.id, subject=notice.subject, sids=sids)
    people = set(ended)
    if notice.subject:
        known = SocialAccount.objects.filter(provider=facts.id, uid=notice.subject)
        people |= set(known.values_list("user_id", flat=True))
    for person in User.objects.filter(pk__in=people):
        audit_trail.record(
            "person.signed_out_by_provider",
            user=person,
            target=person.get_username(),
            details={
                "provider": facts.id,
                "sessions": ended.get(person.pk, 0),
                "access_ended": facts.sign_out_ends_access,
            },
        )
        if facts.sign_out_ends_access:
            people_actions.end_access(person, actor=None)
