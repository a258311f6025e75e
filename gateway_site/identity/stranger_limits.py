"""How much of people whom nobody knows yet is kept while they are on their way to a provider.

Whoever leaves for a provider, and whatever is sent as a SAML answer, becomes a row for minutes. An
address, and everybody together, have a share of these rows; nobody who has a session here already
counts.
"""

from typing import Final

from allauth.core.exceptions import ImmediateHttpResponse
from django.http import HttpRequest

from gateway_site import error_pages
from oauthserver import request_limits
from oauthserver.errors import TooManyRequests
from oauthserver.request_limits import Limit

# A company's people often come from one address, all of them at nine o'clock.
SIGN_INS_BEGUN: Final = Limit("sign-ins-begun", 600, 6_000, 20_000)
PROVEN_ANSWERS: Final = Limit("saml-answers", 600, 6_000, 20_000)
# Each may be large, and no provider vouches for it: only what went wrong is to be told from them.
UNPROVEN_ANSWERS: Final = Limit("unproven-saml-answers", 60, 300, 600)
# Logout and ID tokens with a key that nobody knows, right after the provider's keys were fetched.
HURRIED_KEYS: Final = Limit("hurried-keys", 3, 6, 30)


def count(request: HttpRequest, limit: Limit) -> None:
    """Count what a request is about to leave here.

    Raises:
        ImmediateHttpResponse: the page (429) that says when to come again.
    """
    try:
        request_limits.count(limit, request_limits.peer_address(request))
    except TooManyRequests as refusal:
        page = error_pages.too_many_sign_ins(request, refusal.retry_after)
        raise ImmediateHttpResponse(page) from refusal


def may_hurry(request: HttpRequest) -> bool:
    """Tell whether a provider's keys may be fetched again, a moment after they were, for a request.

    A provider that has just begun to sign with a new key is let through; whoever makes keys up has
    it asked a few times in five minutes.
    """
    try:
        request_limits.count(HURRIED_KEYS, request_limits.peer_address(request))
    except TooManyRequests:
        return False
    return True
