"""Going to an OpenID provider and coming back from it."""

from typing import Any

from allauth.account.internal.decorators import login_not_required
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.internal.flows.signup import get_pending_signup
from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from allauth.socialaccount.views import signup as library_signup
from django.http import Http404, HttpRequest, HttpResponse

from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.openid_adapter import OpenIdAdapter


class CallbackView(OAuth2CallbackView):  # type: ignore[misc]
    """Hands the kept state, with its nonce, to the adapter that checks the ID token."""

    def _get_state(self, request: HttpRequest, provider: Any) -> Any:
        state, response = super()._get_state(request, provider)
        self.adapter.state = state or {}
        return state, response


@login_not_required  # type: ignore[untyped-decorator]
def login(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Start signing in with a provider (POST; a GET asks first).

    Raises:
        Http404: there is no such provider.
    """
    adapter = OpenIdAdapter(request, provider_id)
    try:
        answer: HttpResponse = OAuth2LoginView.adapter_view(adapter)(request)
    except SocialApp.DoesNotExist as failure:
        raise Http404 from failure
    except ProviderFault as fault:
        return _failed(request, adapter, fault)
    return answer


@login_not_required  # type: ignore[untyped-decorator]
def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Finish signing in.

    Raises:
        Http404: there is no such provider.
    """
    adapter = OpenIdAdapter(request, provider_id)
    try:
        answer: HttpResponse = CallbackView.adapter_view(adapter)(request)
    except SocialApp.DoesNotExist as failure:
        raise Http404 from failure
    except ProviderFault as fault:
        return _failed(request, adapter, fault)
    return answer


@login_not_required  # type: ignore[untyped-decorator]
def signup(request: HttpRequest) -> HttpResponse:
    """Show why a new account cannot be made by itself, unless it exists by now.

    Who came at the same moment by another browser has taken the address; that is no conflict.
    """
    from gateway_site import sign_in

    pending = get_pending_signup(request)
    if pending is not None and sign_in.SocialAccountAdapter(request).is_known(pending):
        return sign_in.arrive_again(request, pending)
    answer: HttpResponse = library_signup(request)
    return answer


def _failed(request: HttpRequest, adapter: OpenIdAdapter, fault: ProviderFault) -> HttpResponse:
    return failed_at(request, adapter.get_provider(), fault, adapter.state)


def failed_at(
    request: HttpRequest, provider: Any, fault: ProviderFault, state: dict[str, Any]
) -> HttpResponse:
    """Show that signing in at a provider did not work, and write down why."""
    answer: HttpResponse = render_authentication_error(
        request, provider, exception=fault, extra_context={"state": state}
    )
    return answer
