"""Single logout with a SAML provider (SAML Profiles 4.4): begun here, or begun there.

Whoever signs out here is signed out here at once, whatever the provider answers then; the answer
only decides what the sign-in page says. A request of the provider ends the sessions that stand on
the sign-ins it names, in whatever browser they are.
"""

import time
from typing import Any
from xml.sax.saxutils import escape

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from onelogin.saml2.logout_response import OneLogin_Saml2_Logout_Response

from gateway_site import audit_trail
from gateway_site.identity import arrival, provider_sessions
from gateway_site.identity.arrival import SIGN_OUT_ASKED
from gateway_site.identity.errors import ProviderFault
from gateway_site.saml.logout_messages import (
    LIFETIME,
    LogoutRequest,
    LogoutResponse,
    conversation,
    read,
)
from gateway_site.saml.provider import under_public_address
from oauthserver import signed_claims


def address_to_sign_out(request: HttpRequest, provider: Any, name: dict[str, str]) -> str:
    """Return where to send the browser to end the provider's session, "" if it offers no logout.

    Args:
        name: what the sign-in's assertion called person and session.

    Raises:
        ProviderFault: its metadata can't be had, or makes no request.
    """
    if not provider.metadata()["idp"].get("singleLogoutService"):
        return ""
    under_public_address(request)
    try:
        talk = conversation(request, provider)
        address = talk.logout(
            return_to="",
            name_id=name.get("name_id") or None,
            session_index=escape(name.get("session_index") or "") or None,
            nq=name.get("name_qualifier") or None,
            name_id_format=name.get("format") or None,
            spnq=name.get("sp_name_qualifier") or None,
        )
    except Exception as failure:
        # The library raises whatever it meets; its text may quote what was sent.
        raise ProviderFault(
            f"No sign-out request can be made of its metadata ({type(failure).__name__})."
        ) from failure
    asked = {"provider": provider.app.provider_id, "id": talk.get_last_request_id()}
    request.session[SIGN_OUT_ASKED] = asked
    return str(address)


def receive(request: HttpRequest, provider: Any) -> HttpResponse:
    """Take a provider's message: a request to sign out, or the answer to ours.

    Raises:
        ProviderFault: a request is not to be believed; nothing was changed.
    """
    if "SAMLResponse" in request.GET or "SAMLResponse" in request.POST:
        return _answered(request, provider)
    message = read(request, provider)
    assert isinstance(message, LogoutRequest)
    name = provider.app.provider_id
    try:
        until = time.time() + 2 * LIFETIME
        signed_claims.use_once(f"saml-logout:{name}", {"jti": message.id}, until)
    except signed_claims.NotAcceptable:
        raise ProviderFault("This sign-out request was already used.") from None
    _end(request, name, message)
    return _confirmed(request, provider, message)


def _end(request: HttpRequest, name: str, message: LogoutRequest) -> None:
    ended = provider_sessions.end(name, subject=message.name_id, sids=message.session_indexes)
    for person in User.objects.filter(pk__in=ended):
        details = {"sessions": ended[person.pk], "by": f"saml:{name}"}
        audit_trail.record(
            "person.session_ended", user=None, target=person.get_username(), details=details
        )
    key = request.session.session_key
    if key and not request.session.exists(key):
        request.session.flush()


def _confirmed(request: HttpRequest, provider: Any, message: LogoutRequest) -> HttpResponse:
    """Tell the provider, which goes on to the next of its applications."""
    talk = conversation(request, provider)
    address = talk.get_slo_response_url()
    if not address:
        return HttpResponseRedirect(reverse("account_login"))
    answer = OneLogin_Saml2_Logout_Response(talk.get_settings())
    answer.build(message.id)
    parameters = {"SAMLResponse": answer.get_response()}
    if message.relay_state is not None:
        parameters["RelayState"] = message.relay_state
    talk.add_response_signature(
        parameters, talk.get_settings().get_security_data()["signatureAlgorithm"]
    )
    return HttpResponseRedirect(talk.redirect_to(address, parameters))


def _answered(request: HttpRequest, provider: Any) -> HttpResponse:
    pending = request.session.get(SIGN_OUT_ASKED) or {}
    app = provider.app
    if request.user.is_authenticated:
        # Whoever asked for a sign-out is signed out here; a link to this page must not claim it.
        raise ProviderFault("The answer belongs to no sign-out of this browser.")
    try:
        message = read(request, provider)
        assert isinstance(message, LogoutResponse)
        asked = pending.get("id") if pending.get("provider") == app.provider_id else None
        if not asked or message.in_response_to != asked:
            raise ProviderFault("The answer belongs to no sign-out of this browser.")
        del request.session[SIGN_OUT_ASKED]
        if not message.succeeded:
            raise ProviderFault("The provider says that it did not sign out everywhere.")
    except ProviderFault as fault:
        arrival.note_failed_sign_out(app, fault)
        messages.warning(
            request,
            f"You are signed out here. {app.name} did not confirm that you are signed out there: "
            "if others use this browser, sign out there too, or close it.",
        )
    else:
        messages.success(request, f"You are signed out here and at {app.name}.")
    return HttpResponseRedirect(reverse("account_login"))
