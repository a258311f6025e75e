"""Changing anything in the administration asks for a sign-in that is not long ago.

A browser left open changes nothing, and does not open the forms that decide who may come in.
Reading stays possible. The admin site asks here before every page.
"""

import time
from typing import Final
from urllib.parse import urlencode

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.socialaccount.models import SocialAccount, SocialApp
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import reverse

# In the session: when the person proved at their provider who they are (Unix time; 0 unknown).
PROVED_AT: Final = "identity.proved_at"
_ARRIVED_SECONDS: Final = 600
_MODELS: Final = {
    "auth_user",
    "auth_group",
    "socialaccount_socialapp",
    "gateway_site_scimtoken",
    "oauthserver_trustedissuer",
    "oauthserver_serviceaccount",
    "oauthserver_clientpolicy",
    "mfa_authenticator",
}
_PAGES: Final = {"auth_user_password_change", "oauthserver_clientpolicy_changelist"}


def signed_in_at(request: HttpRequest) -> float:
    """Return when the person last proved who they are, in seconds since 1970.

    A sign-in by a provider counts from when the person signed in there: a session that is still
    open there proves nothing about who sits at this browser now.
    """
    user = request.user
    assert isinstance(user, User)
    there = request.session.get(PROVED_AT)
    times = [
        min(float(record["at"]), float(there))
        if record.get("method") == "socialaccount" and there is not None
        else float(record["at"])
        for record in get_authentication_records(request, user)
        if "at" in record
    ]
    if times:
        return max(times)
    return user.last_login.timestamp() if user.last_login else 0.0


def is_fresh(request: HttpRequest) -> bool:
    """Tell whether the sign-in is recent enough for sensitive changes."""
    minutes = settings.GATEWAY_SENSITIVE_MINUTES
    return not minutes or time.time() - signed_in_at(request) < minutes * 60


def may_add_factors(request: HttpRequest) -> bool:
    """Tell whether a person may add a second factor now: who sits at an open browser may not.

    The library asks who has a password or a factor already. Of the others a sign-in at their
    provider has to be fresh; where that does not say when it was, coming from there counts.
    """
    if get_reauthentication_flows(request.user) or is_fresh(request):
        return True
    if request.session.get(PROVED_AT) != 0:
        return False
    records = get_authentication_records(request, request.user)
    return any(time.time() - float(record.get("at", 0)) < _ARRIVED_SECONDS for record in records)


def way_to_freshness(request: HttpRequest) -> str:
    """Return where the person proves again who they are, and comes back from."""
    going_to = request.get_full_path() if request.method == "GET" else request.path
    query = urlencode({"next": going_to})
    if get_reauthentication_flows(request.user):
        return f"{reverse('account_reauthenticate')}?{query}"
    account = SocialAccount.objects.filter(user_id=request.user.pk).order_by("-last_login").first()
    app = account and SocialApp.objects.filter(provider_id=account.provider).first()
    if app and app.provider == "saml":
        return f"{reverse('saml_login', kwargs={'organization_slug': app.provider_id})}?{query}"
    if app:
        address = reverse("openid_connect_login", kwargs={"provider_id": app.provider_id})
        return f"{address}?{query}"
    return f"{reverse('account_login')}?{query}"


def asks_for_freshness(request: HttpRequest) -> bool:
    """Tell whether a page of the administration changes something or decides who may come in."""
    match = request.resolver_match
    name = (match.url_name if match is not None else "") or ""
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        return name != "logout"
    model, _, page = name.rpartition("_")
    return name in _PAGES or (model in _MODELS and page in ("add", "change", "delete"))
