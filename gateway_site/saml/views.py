"""Going to a SAML provider and coming back from it, always under the public address."""

import logging
from typing import Any, Final

from allauth.account.internal.decorators import login_not_required
from allauth.socialaccount.providers.saml import views as library
from allauth.socialaccount.providers.saml.utils import build_auth
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from onelogin.saml2.errors import OneLogin_Saml2_Error

from gateway_site.identity import arrival, stranger_limits
from gateway_site.identity.errors import ProviderFault
from gateway_site.identity.views import failed_at
from gateway_site.saml import single_logout
from gateway_site.saml.provider import under_public_address

logger = logging.getLogger(__name__)

MOST_OF_AN_ANSWER: Final = 256 * 1024
KEPT_SECONDS: Final = 600
# What the library's parser raises of what is no SAML.
CHOKED: Final = (SyntaxError, ValueError, TypeError, KeyError)


def unusable(failure: OneLogin_Saml2_Error) -> ProviderFault:
    """Return what the library says of a provider's metadata, without what it may quote."""
    return ProviderFault(f"The provider's metadata cannot be used (error {failure.code}).")


class _Guarded:
    """What every view here has in common."""

    def dispatch(self, request: HttpRequest, organization_slug: str, **kwargs: Any) -> HttpResponse:
        """Answer, and turn what is wrong with the provider into the page that says so."""
        under_public_address(request)
        try:
            answer: HttpResponse = super().dispatch(  # type: ignore[misc]
                request, organization_slug=organization_slug, **kwargs
            )
        except ProviderFault as failure:
            fault = failure
        except PermissionDenied:
            # The library's word for an answer that no sign-in of this browser waits for.
            fault = ProviderFault("The answer belongs to no sign-in of this browser.")
        except OneLogin_Saml2_Error as failure:
            # It looks at settings and metadata as a whole, with whatever is done.
            fault = unusable(failure)
        else:
            return answer
        return failed_at(request, self.get_provider(organization_slug), fault, {})  # type: ignore[attr-defined]


@method_decorator(login_not_required, name="dispatch")
class LoginView(_Guarded, library.LoginView):  # type: ignore[misc]
    """Start signing in (POST; a GET asks first)."""

    def get_provider(self, organization_slug: str = "") -> Any:
        """Return the provider of this address."""
        app = self.get_app(organization_slug or self.kwargs["organization_slug"])
        return app.get_provider(self.request)


@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(login_not_required, name="dispatch")
class AcsView(_Guarded, library.ACSView):  # type: ignore[misc]
    """Take the provider's answer, which comes from another site without the session's cookie.

    It is put aside for the next request, which has the cookie. Anybody may send something here, so
    it is small, and kept for minutes, and few are kept that the provider does not vouch for.
    """

    def dispatch(self, request: HttpRequest, organization_slug: str, **kwargs: Any) -> HttpResponse:
        """Put the answer aside.

        Raises:
            Http404: there is no such provider.
        """
        self.get_app(organization_slug)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        size = sum(len(value) for _, values in request.POST.lists() for value in values)
        if "SAMLResponse" not in request.POST or size > MOST_OF_AN_ANSWER:
            fault = ProviderFault("There is no SAML answer here, or it is too long.")
            return failed_at(request, self.get_provider(organization_slug), fault, {})
        proven = self._is_proven(request, organization_slug)
        limit = stranger_limits.PROVEN_ANSWERS if proven else stranger_limits.UNPROVEN_ANSWERS
        stranger_limits.count(request, limit)
        # The library goes on with it.
        request.saml_acs_session = SessionStore()  # type: ignore[attr-defined]
        request.saml_acs_session.set_expiry(KEPT_SECONDS)  # type: ignore[attr-defined]
        return super().dispatch(request, organization_slug, **kwargs)

    def _is_proven(self, request: HttpRequest, organization_slug: str) -> bool:
        """Tell whether the answer is the provider's; the next request says why not."""
        under_public_address(request)
        try:
            provider = self.get_provider(organization_slug)
            provider.metadata()
            auth = build_auth(request, provider)
            auth.process_response()
        except (ProviderFault, OneLogin_Saml2_Error, *CHOKED) as failure:
            logger.debug("a SAML answer proves nothing: %s", type(failure).__name__)
            return False
        return not auth.get_errors()


@method_decorator(login_not_required, name="dispatch")
class FinishView(_Guarded, library.FinishACSView):  # type: ignore[misc]
    """Check the answer, with the session's cookie this time."""

    def dispatch(self, request: HttpRequest, organization_slug: str, **kwargs: Any) -> HttpResponse:
        """Check the answer; what the library's parser chokes on is a refusal like any other."""
        try:
            return super().dispatch(request, organization_slug, **kwargs)
        except CHOKED as failure:
            # Its name says what was wrong; its text may quote what was sent.
            fault = ProviderFault(f"The answer is not SAML ({type(failure).__name__}).")
            return failed_at(request, self.get_provider(organization_slug), fault, {})

    def get_provider(self, organization_slug: str) -> Any:
        """Return the provider, with its metadata at hand."""
        provider = super().get_provider(organization_slug)
        provider.metadata()
        return provider


@method_decorator(login_not_required, name="dispatch")
class MetadataView(_Guarded, library.MetadataView):  # type: ignore[misc]
    """Describe this gateway to a SAML provider, with the certificate of what it signs."""

    def get_provider(self, organization_slug: str) -> Any:
        """Return the provider, with its metadata at hand."""
        provider = super().get_provider(organization_slug)
        provider.metadata()
        return provider


@method_decorator(csrf_exempt, name="dispatch")
@method_decorator(login_not_required, name="dispatch")
class LogoutView(library.SAMLViewMixin, View):  # type: ignore[misc]
    """Take a provider's logout messages, by redirect (GET) or by form (POST, from another site)."""

    http_method_names = ["get", "post"]

    def dispatch(self, request: HttpRequest, organization_slug: str, **kwargs: Any) -> HttpResponse:
        """Sign out, or say why not."""
        under_public_address(request)
        provider = self.get_provider(organization_slug)
        if request.method not in ("GET", "POST"):
            return self.http_method_not_allowed(request)
        try:
            provider.metadata()
            return single_logout.receive(request, provider)
        except (ProviderFault, OneLogin_Saml2_Error) as failure:
            fault = failure if isinstance(failure, ProviderFault) else unusable(failure)
            arrival.note_failed_sign_out(provider.app, fault)
            context = {"provider_name": provider.app.name}
            return render(request, "socialaccount/sign_out_refused.html", context, status=400)
