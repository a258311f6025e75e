"""``/oauth/authorize``: every rule of the protocol, and none of the page.

A subclass brings the page. In the order they are called:

``page_context(request, details)``   what the template needs beside ``details``
``said(request, details)``           stands for what the page says of a chosen resource
``may_allow(request, details)``      "" or the reason why the person cannot allow this yet
``allowed(request, details)``        the person said yes; runs in the transaction of the code

The template posts to ``form_action`` with the CSRF token, the hidden field ``transaction``,
a button named ``allow`` (deny is a button without that name) and, where ``details.resource``
is None, a field ``resource`` with one of ``details.choices``. Sending the person to the same
address with ``resource=`` added to the query works as well.

Nothing a client sends skips the page: ``approval_prompt`` is read by nobody, and ``prompt``,
``max_age``, ``login_hint`` and ``id_token_hint`` can only ask for more (security.md #56).
"""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.generic.base import TemplateResponseMixin, View
from oauth2_provider.http import OAuth2ResponseRedirect

from oauthserver import (
    audience,
    authorization_codes,
    client_directory,
    held_rows,
    openid,
    redirect_uris,
    scopes,
    sign_in_age,
    sign_in_demands,
)
from oauthserver.actions import approve_client
from oauthserver.approval import checked_approval, new_approval
from oauthserver.audience import Resource
from oauthserver.authorization_request import (
    AuthorizationRequest,
    answer_uri,
    check_parameters,
    checked_redirect_uri,
    read_request,
)
from oauthserver.client_admission import Standing, admission
from oauthserver.client_review import ask_for_review
from oauthserver.errors import LocalRefusal, NotAdmitted, ProtocolError, RedirectRefusal
from oauthserver.models import ClientPolicy, OAuthClient
from oauthserver.request_limits import peer_address

HEADERS = {
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class AuthorizationDetails:
    """One checked request, as the page needs it.

    ``client`` may be unsaved: a client known by its metadata document gets a row when
    somebody approves it. ``client_host`` is where the client comes from; it is proven only
    if ``verified``. ``choices`` is filled when the request names no resource.
    """

    client: OAuthClient
    redirect_uri: str
    redirect_host: str
    scopes: list[str]
    resource: Resource | None
    choices: list[Resource]
    state: str
    client_host: str
    loopback_only: bool
    verified: bool


def client_host(client: OAuthClient) -> str:
    """Return the host a client comes from, or "": its document's, or the one it claims."""
    self_registered = client.registration_source == client.RegistrationSource.DCR
    home = client.client_uri if self_registered else client.client_id
    return (urlsplit(home).hostname or "") if home.startswith("https://") else ""


def _approved_by_nobody(client: OAuthClient) -> bool:
    """Whether a client is known by its own word alone: it registered itself, or waits.

    Anybody may bring one: sending a browser on to it, before a person here agreed to it,
    would lend the gateway's address to whoever wants a link that leads elsewhere (RFC 9700 4.11.2).
    """
    if client.registration_source == client.RegistrationSource.MANUAL:
        return False
    return client.approved_at is None and client.review != client.Review.APPROVED


class AuthorizationRequestView(TemplateResponseMixin, View):
    """The authorization endpoint (RFC 6749 3.1, OAuth 2.1, RFC 9207, RFC 8707)."""

    http_method_names = ["get", "post"]
    error_template_name = "oauthserver/authorize_error.html"
    not_admitted_template_name = "oauthserver/not_admitted.html"

    # Hooks --------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, details: AuthorizationDetails) -> dict[str, Any]:
        """Return what the subclass's template needs."""
        return {}

    def said(self, request: HttpRequest, details: AuthorizationDetails) -> str:
        """Return what stands for the facts that a person agrees to; another value asks again.

        ``details.resource`` is never None here.
        """
        return ""

    def may_allow(self, request: HttpRequest, details: AuthorizationDetails) -> str:
        """Return "" or the reason why the person cannot allow this yet.

        ``details.resource`` is never None here. Asked on the page and again on the button.
        """
        return ""

    def allowed(self, request: HttpRequest, details: AuthorizationDetails) -> None:
        """Take note of the person's yes. ``details.client`` is saved, the code is not yet made."""

    # Requests -----------------------------------------------------------------------------

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer with a page, a redirect to the client, or the sign-in page."""
        try:
            response = super().dispatch(request, *args, **kwargs)
        except LocalRefusal as refusal:
            response = self.refused_here(refusal)
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Show the page."""
        return self._answer(request, deciding=False)

    def post(self, request: HttpRequest) -> HttpResponseBase:
        """Carry out what the person decided on the page."""
        return self._answer(request, deciding=True)

    def _answer(self, request: HttpRequest, *, deciding: bool) -> HttpResponseBase:
        asked = read_request(request.META.get("QUERY_STRING", ""))
        silent = "none" in asked.prompt
        if not request.user.is_authenticated and not silent:
            return sign_in_demands.sign_in_page(request, asked)
        client = client_directory.for_authorization(
            asked.client_id, may_fetch=request.user.is_authenticated
        )
        redirect_uri = checked_redirect_uri(asked, client)
        if not request.user.is_authenticated and _approved_by_nobody(client):
            raise LocalRefusal(
                "login_required",
                "Nobody is signed in, and nobody here has approved this client yet. Start "
                "connecting again in your client: it has to show you the sign-in page.",
            )
        try:
            check_parameters(asked)
            self._check_admission(request, client, silent)
            if silent:
                raise self._needs_the_person(request, asked)
            if self._must_sign_in(request, asked):
                return sign_in_demands.sign_in_page(request, asked)
            details = self._details(request, asked, client, redirect_uri)
            if deciding:
                return self._decide(request, asked, details)
        except RedirectRefusal as refusal:
            return self._refused_there(refusal, redirect_uri, asked.state)
        except NotAdmitted as refusal:
            return self._not_admitted(request, refusal, client, redirect_uri)
        client_directory.note_seen(client)
        return self._page(request, details)

    def _check_admission(self, request: HttpRequest, client: OAuthClient, silent: bool) -> None:
        """Refuse a client that the administrator's policy does not let in.

        The person reads it on a page of ours; from there a button tells the client.
        """
        policy = ClientPolicy.current()
        verdict = admission(client, policy)
        if verdict.admitted:
            return
        waiting, listed = verdict.standing is Standing.WAITING, False
        if waiting and request.user.is_authenticated:
            listed = ask_for_review(client, request.user, address=peer_address(request))
        if silent or "tell" in request.POST:
            raise RedirectRefusal("unauthorized_client", verdict.reason)
        raise NotAdmitted(verdict.reason, waiting=waiting, listed=listed)

    def _must_sign_in(self, request: HttpRequest, asked: AuthorizationRequest) -> bool:
        hinted = openid.subject_of(asked.id_token_hint, asked.client_id)
        # Else the client would be given tokens that it is then refused to refresh.
        too_old = bool(sign_in_age.why_sign_in_again(request.user))
        if too_old or sign_in_demands.unmet(request, asked, hinted):
            return True
        if hinted not in ("", str(request.user.pk)):
            text = "Somebody else is signed in than the one the client asked for."
            raise RedirectRefusal("login_required", text)
        return False

    def _needs_the_person(
        self, request: HttpRequest, asked: AuthorizationRequest
    ) -> RedirectRefusal:
        if not request.user.is_authenticated:
            return RedirectRefusal("login_required", "Nobody is signed in.")
        if self._must_sign_in(request, asked):
            return RedirectRefusal("login_required", "The person has to sign in again.")
        return RedirectRefusal("consent_required", "The person decides on a page each time.")

    def _details(
        self,
        request: HttpRequest,
        asked: AuthorizationRequest,
        client: OAuthClient,
        redirect_uri: str,
    ) -> AuthorizationDetails:
        resource, choices = self._resource(request, asked)
        self_registered = client.registration_source == client.RegistrationSource.DCR
        return AuthorizationDetails(
            client=client,
            redirect_uri=redirect_uri,
            redirect_host=redirect_uris.host_for_people(redirect_uri),
            scopes=scopes.granted(asked.scopes, resource.further_scopes if resource else ()),
            resource=resource,
            choices=choices,
            state=asked.state,
            client_host=client_host(client),
            loopback_only=all(map(redirect_uris.is_loopback, client.redirect_uris.split())),
            verified=not self_registered,
        )

    def _resource(
        self, request: HttpRequest, asked: AuthorizationRequest
    ) -> tuple[Resource | None, list[Resource]]:
        if asked.resources:
            resource = audience.find_resource(asked.resources[0])
            if resource is None:
                raise RedirectRefusal("invalid_target", "There is no such resource here.")
            if not audience.may_use(request.user, resource):
                raise RedirectRefusal("access_denied", "This person may not use the resource.")
            return resource, []
        # Clients of 2025-03-26 name no resource: the person picks (protocol.md d13).
        choices = audience.resources_for(request.user)
        if not choices:
            raise RedirectRefusal("access_denied", "This person may not use any resource.")
        return (choices[0] if len(choices) == 1 else None), choices

    def _decide(
        self, request: HttpRequest, asked: AuthorizationRequest, details: AuthorizationDetails
    ) -> HttpResponseBase:
        approval = checked_approval(request)
        if "allow" not in request.POST:
            raise RedirectRefusal("access_denied", "The person said no.")
        if details.resource is not None and self.said(request, details) != approval.said:
            return self._page(request, details, status=409, changed=True)
        if details.resource is None:
            picked = request.POST.get("resource", "")
            found = [choice for choice in details.choices if choice.uri == picked]
            if not found:
                return self._page(request, details, status=400)
            given = scopes.granted(asked.scopes, found[0].further_scopes)
            details = replace(details, resource=found[0], scopes=given)
        if self.may_allow(request, details):
            return self._page(request, details, status=409)
        try:
            code = self._issue(request, asked, details, approval.identifier)
        except IntegrityError:
            raise LocalRefusal(
                "invalid_request",
                "This page was used already. Go back to your client; if it is not connected, "
                "start again there.",
            ) from None
        return self._redirect(answer_uri(details.redirect_uri, details.state, {"code": code}))

    def _issue(
        self,
        request: HttpRequest,
        asked: AuthorizationRequest,
        details: AuthorizationDetails,
        approval: str,
    ) -> str:
        with transaction.atomic():
            person = held_rows.shared_person(int(request.user.pk or 0))
            if person is None:
                raise LocalRefusal("access_denied", "Your account was closed a moment ago.")
            client = approve_client(details.client)
            details = replace(details, client=client)
            self.allowed(request, details)
            assert details.resource is not None
            return authorization_codes.issue(
                client=client,
                user=person,
                # Empty when the request left it out: the token request may leave it out too.
                redirect_uri=asked.redirect_uri,
                scopes=details.scopes,
                resource=details.resource,
                code_challenge=asked.code_challenge,
                nonce=asked.nonce,
                approval=approval,
                authenticated_at=sign_in_demands.authenticated_at(request),
            )

    # Answers ------------------------------------------------------------------------------

    def _page(
        self,
        request: HttpRequest,
        details: AuthorizationDetails,
        status: int = 200,
        changed: bool = False,
    ) -> HttpResponse:
        if details.resource is None:
            refusal, said = "Choose a server first.", ""
        else:
            refusal, said = self.may_allow(request, details), self.said(request, details)
        context = {
            **self.page_context(request, details),
            "details": details,
            "refusal": refusal,
            "changed": changed,
            "transaction": new_approval(request, said),
            "form_action": request.get_full_path(),
        }
        return self.render_to_response(context, status=status)

    def refused_here(self, refusal: ProtocolError) -> HttpResponse:
        """Show an error that must not be sent to the redirect URI."""
        return self.response_class(
            request=self.request,
            template=[self.error_template_name],
            context={"error": refusal.error, "description": refusal.description},
            status=refusal.http_status,
            using=self.template_engine,
        )

    def _not_admitted(
        self, request: HttpRequest, refusal: NotAdmitted, client: OAuthClient, redirect_uri: str
    ) -> HttpResponse:
        context = {
            "refusal": refusal,
            "client_name": client.name or "The program",
            "client_host": client_host(client),
            "redirect_host": redirect_uris.host_for_people(redirect_uri),
            "advice": ClientPolicy.current().advice,
            "form_action": request.get_full_path(),
        }
        return self.response_class(
            request=request,
            template=[self.not_admitted_template_name],
            context=context,
            status=refusal.http_status,
            using=self.template_engine,
        )

    def _refused_there(
        self, refusal: RedirectRefusal, redirect_uri: str, state: str
    ) -> HttpResponse:
        parameters = {"error": refusal.error, "error_description": refusal.description}
        return self._redirect(answer_uri(redirect_uri, state, parameters))

    def _redirect(self, uri: str) -> HttpResponse:
        response: HttpResponse = OAuth2ResponseRedirect(uri, [uri.partition(":")[0]])
        return response
