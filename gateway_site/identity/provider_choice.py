"""Which way to sign in: by the domain of an address, or by a button.

Where several providers divide the company's domains, people enter their address and are sent to
theirs; nobody chooses from a list. Where there is one provider, there is nothing to choose.
Nothing here tells whether an account exists: only domains count.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from gateway_site.identity.claims import domain_of
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.provider_facts import facts_of
from gateway_site.identity.views import failed_at

EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the sign-in page shows.

    Attributes:
        by_address: ask for the address first.
        buttons: the providers to show.
        fold_local: the form for local accounts is there, but folded away.
    """

    by_address: bool
    buttons: list[Any]
    fold_local: bool


def choice_for(request: HttpRequest) -> Choice:
    """Decide what the sign-in page shows in this request."""
    providers = providers_of(request)
    divided = [p for p in providers if facts_of(p.app).sign_in_domains]
    everything = EVERYTHING in request.GET or request.method == "POST"
    by_address = len(providers) > 1 and bool(divided) and not everything
    buttons = [p for p in providers if not by_address or p not in divided]
    return Choice(by_address, buttons, fold_local=bool(providers) and not everything)


def providers_of(request: HttpRequest) -> list[Any]:
    """Return the configured providers by name."""
    from allauth.socialaccount.adapter import get_adapter

    return sorted(get_adapter(request).list_providers(request), key=lambda p: str(p.name).lower())


def provider_for(request: HttpRequest, address: str) -> Any:
    """Return the provider of an address's domain, None if there is none."""
    domain = domain_of(address)
    for provider in providers_of(request):
        if domain in facts_of(provider.app).sign_in_domains:
            return provider
    return None


@require_POST
def choose(request: HttpRequest) -> HttpResponse:
    """Send a person to the provider of their address, or show them every other way."""
    address = request.POST.get("address", "").strip()[:254]
    going_to = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(going_to, allowed_hosts=None):
        going_to = ""
    provider = provider_for(request, address)
    if provider is None:
        query = {EVERYTHING: "1"} | ({"next": going_to} if going_to else {})
        return HttpResponseRedirect(f"{reverse('account_login')}?{urlencode(query)}")
    hint = {"login_hint": address}
    try:
        answer: HttpResponse = provider.redirect(
            request, "login", going_to or None, auth_params=hint
        )
        return answer
    except ProviderFault as fault:
        return failed_at(request, provider, fault, {})
