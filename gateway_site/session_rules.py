"""What every request of a signed-in person passes: the note of their session, the second factor.

The note (who, from where, with what browser, seen when) is what lists and ends sessions. It is
renewed every few minutes, not with every request.
"""

import time

from allauth.account.authentication import get_authentication_records
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from asgiref.sync import sync_to_async
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from gateway_site.fresh_sign_in import may_add_factors, way_to_freshness
from gateway_site.identity.arrival import SIGN_IN_UNTIL
from gateway_site.page_context import second_factor_required
from gateway_site.security_headers import PUBLIC_PATHS
from gateway_site.two_way_middleware import TwoWayMiddleware

NOTE_EVERY = 300.0
_NOTED = "session_noted_at"
# Where somebody without the required second factor may go: to add one, or to leave.
_FACTOR_PATHS = "/accounts/2fa/"
_OPEN_PATHS = (_FACTOR_PATHS, "/accounts/logout/", "/accounts/reauthenticate/", "/static/")


class SessionRulesMiddleware(TwoWayMiddleware):
    """Notes sessions, and sends people whose second factor is missing to add one."""

    def answer(self, request: HttpRequest) -> HttpResponse:
        """Apply the rules, then answer the request."""
        return _apply(request) or self.get_response(request)

    async def answer_async(self, request: HttpRequest) -> HttpResponse:
        """The same in the asynchronous chain."""
        answer: HttpResponse | None = None
        if request.COOKIES:
            answer = await sync_to_async(_apply)(request)
        return answer or await self.get_response(request)


def _apply(request: HttpRequest) -> HttpResponse | None:
    if request.path.startswith(PUBLIC_PATHS):
        # Caches may keep these for everybody: no answer of theirs may carry anybody's cookie.
        return None
    if not request.session.session_key or not request.user.is_authenticated:
        return None
    until = request.session.get(SIGN_IN_UNTIL)
    if until is not None and until < time.time():
        logout(request)
        return None
    noted = request.session.get(_NOTED)
    if not isinstance(noted, int | float) or abs(time.time() - noted) > NOTE_EVERY:
        request.session[_NOTED] = time.time()
        UserSession.objects.create_from_request(request)
    if needs_second_factor(request) and not request.path.startswith(_OPEN_PATHS):
        return HttpResponseRedirect(reverse("mfa_activate_totp"))
    adds = request.path.startswith(_FACTOR_PATHS) and request.path != _FACTOR_PATHS
    if adds and not may_add_factors(request):
        return HttpResponseRedirect(way_to_freshness(request))
    return None


def needs_second_factor(request: HttpRequest) -> bool:
    """Tell whether a person who came with a password still lacks the required second factor.

    Who comes by an identity provider has their second factor there.
    """
    if not second_factor_required():
        return False
    methods = {record.get("method") for record in get_authentication_records(request, request.user)}
    if methods and "password" not in methods:
        return False
    real = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)
    return not Authenticator.objects.filter(user_id=request.user.pk, type__in=real).exists()
