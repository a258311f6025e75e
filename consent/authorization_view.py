"""``/oauth/authorize`` as people see it: who asks, for what, as whom, and what is still to connect.

The protocol is the parent's; this class brings the page, the rule that required upstreams come
first, and the record of what was decided.
"""

from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from consent import decisions
from consent.decisions import Question
from consent.upstream_checklist import Checklist, checklist_for
from oauthserver import scopes
from oauthserver.audience import Resource
from oauthserver.authorization import AuthorizationDetails, AuthorizationRequestView
from oauthserver.authorization_request import AuthorizationRequest
from oauthserver.errors import RedirectRefusal

PAGE = "consent/authorize.html"
PICKER = "consent/choose_server.html"


class ConsentView(AuthorizationRequestView):
    """Asks the person, every time; nothing a client sends skips the page."""

    template_name = PAGE
    picking = False

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer as the parent does, with a referrer policy under which forms can be sent.

        With ``no-referrer`` browsers send ``Origin: null`` with the form, which Django's CSRF
        check refuses; ``same-origin`` tells other sites just as little (security.md 65).
        """
        response = super().dispatch(request, *args, **kwargs)
        if response.headers.get("Content-Type", "").startswith("text/html"):
            response.headers["Referrer-Policy"] = "same-origin"
        return response

    def get_template_names(self) -> list[str]:
        """Show the picker when the client did not say which server it wants."""
        return [PICKER if self.picking else PAGE]

    def page_context(self, request: HttpRequest, details: AuthorizationDetails) -> dict[str, Any]:
        """Return what the page shows beside the checked request."""
        self.picking = details.resource is None
        descriptions = scopes.known_scopes()
        address = request.get_full_path()
        context: dict[str, Any] = {
            "client_name": details.client.name or "A program without a name",
            "source": str(details.client.registration_source),
            "scope_descriptions": [descriptions[scope] for scope in details.scopes],
            "here": address,
        }
        if details.resource is not None:
            return context | {"checklist": self._checklist(request, details.resource)}
        joint = "&" if urlsplit(address).query else "?"
        return context | {"address_with": f"{address}{joint}resource="}

    def may_allow(self, request: HttpRequest, details: AuthorizationDetails) -> str:
        """Say which required upstreams are missing."""
        assert details.resource is not None
        return self._checklist(request, details.resource).why_not

    def allowed(self, request: HttpRequest, details: AuthorizationDetails) -> None:
        """Record the yes, in the transaction that makes the code."""
        assert details.resource is not None
        decisions.grant(
            _person(request),
            _question(details),
            self._checklist(request, details.resource),
            address=_address(request),
        )

    def _decide(
        self, request: HttpRequest, asked: AuthorizationRequest, details: AuthorizationDetails
    ) -> HttpResponseBase:
        try:
            return super()._decide(request, asked, details)
        except RedirectRefusal:
            if "allow" not in request.POST:
                question = _question(details)
                decisions.decline(_person(request), question, address=_address(request))
            raise

    def _checklist(self, request: HttpRequest, resource: Resource) -> Checklist:
        """Return the checklist, looked up once per request."""
        known: dict[str, Checklist] = self.__dict__.setdefault("_checklists", {})
        if resource.slug not in known:
            known[resource.slug] = checklist_for(_person(request), resource.slug)
        return known[resource.slug]


def _person(request: HttpRequest) -> User:
    user = request.user
    assert isinstance(user, User)
    return user


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


def _question(details: AuthorizationDetails) -> Question:
    return Question(
        client=details.client,
        resource=details.resource,
        scopes=tuple(details.scopes),
        redirect_uri=details.redirect_uri,
        redirect_host=details.redirect_host,
    )
