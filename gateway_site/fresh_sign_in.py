"""Pages that change who may come in ask for a sign-in that is not long ago.

A browser left open does not make administrators, providers or tokens of directories. Reading
stays possible.
"""

import time
from typing import Any
from urllib.parse import urlencode

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse


def signed_in_at(request: HttpRequest) -> float:
    """Return when the person last proved who they are, in seconds since 1970."""
    user = request.user
    assert isinstance(user, User)
    times = [float(r["at"]) for r in get_authentication_records(request, user) if "at" in r]
    if times:
        return max(times)
    return user.last_login.timestamp() if user.last_login else 0.0


def is_fresh(request: HttpRequest) -> bool:
    """Tell whether the sign-in is recent enough for sensitive changes."""
    minutes = settings.GATEWAY_SENSITIVE_MINUTES
    return not minutes or time.time() - signed_in_at(request) < minutes * 60


def way_to_freshness(request: HttpRequest) -> str:
    """Return where the person proves again who they are, and comes back from."""
    going_to = request.get_full_path() if request.method == "GET" else request.path
    query = urlencode({"next": going_to})
    if get_reauthentication_flows(request.user):
        return f"{reverse('account_reauthenticate')}?{query}"
    account = SocialAccount.objects.filter(user_id=request.user.pk).order_by("-last_login").first()
    if account is not None and SocialApp.objects.filter(provider_id=account.provider).exists():
        address = reverse("openid_connect_login", kwargs={"provider_id": account.provider})
        return f"{address}?{query}"
    return f"{reverse('account_login')}?{query}"


class FreshSignInMixin:
    """For admin pages of what decides who may come in."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Ask for a fresh sign-in first."""
        if not is_fresh(request):
            return HttpResponseRedirect(way_to_freshness(request))
        answer: HttpResponse = super().changeform_view(request, *args, **kwargs)  # type: ignore[misc]
        return answer

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Ask for a fresh sign-in first."""
        if not is_fresh(request):
            return HttpResponseRedirect(way_to_freshness(request))
        answer: HttpResponse = super().delete_view(request, *args, **kwargs)  # type: ignore[misc]
        return answer
