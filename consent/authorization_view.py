"""``/oauth/authorize`` as people see it: who asks, for what, as whom, and what is still to connect.

The protocol is the parent's; this class brings the page, the rule that required upstreams come
first, and the record of what was decided.
"""

import json
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from consent import agreement, decisions
from consent.decisions import Question
from consent.models import ConsentRecord
from consent.upstream_checklist import Checklist, checklist_for
from oauthserver import scopes
from oauthserver.audience import Resource
from oauthserver.authorization import AuthorizationDetails, AuthorizationRequestView
from oauthserver.authorization_request import AuthorizationRequest
from oauthserver.errors import RedirectRefusal
from virtualmcp.models import VirtualMcp
from virtualmcp.tool_groups import groups_of

MOST_TOOLS = 100
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
        further = details.resource.further_scopes if details.resource else ()
        address = request.get_full_path()
        context: dict[str, Any] = {
            "client_name": details.client.name or "A program without a name",
            "source": str(details.client.registration_source),
            "scope_descriptions": scopes.descriptions(details.scopes, further),
            "here": address,
        }
        if details.resource is not None:
            earlier = _earlier_yes(request, details)
            if further:
                context |= _tool_groups(details)
            return context | {
                "checklist": self._checklist(request, details.resource),
                "agreed_at": earlier.given_at if earlier else None,
                "news": _news(earlier, details) if earlier else [],
                "tools": agreement.offered(details.resource.slug, details.client)["tools"],
            }
        joint = "&" if urlsplit(address).query else "?"
        return context | {"address_with": f"{address}{joint}resource="}

    def said(self, request: HttpRequest, details: AuthorizationDetails) -> str:
        """Return a digest of whom the yes lets in, to what; tools come and go too often."""
        assert details.resource is not None
        facts = agreement.offered(details.resource.slug, details.client)
        told = [facts["client"], facts["upstreams"], details.scopes]
        return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

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


def _tool_groups(details: AuthorizationDetails) -> dict[str, Any]:
    """Name the tools that only read and, apart from them, those that change something."""
    assert details.resource is not None
    server = VirtualMcp.objects.filter(slug=details.resource.slug).first()
    reading, changing = groups_of(server) if server else ([], [])
    asks_to_change = scopes.WRITE_SCOPE in details.scopes
    return {
        "reading_tools": reading[:MOST_TOOLS],
        "changing_tools": changing[:MOST_TOOLS],
        "asks_to_change": asks_to_change,
        "tools_apart": True,
    }


def _news(earlier: ConsentRecord, details: AuthorizationDetails) -> list[str]:
    """Say what the person did not agree to the last time; what is asked for more comes first."""
    assert details.resource is not None
    more = [scope for scope in details.scopes if scope not in earlier.scopes.split()]
    told = scopes.descriptions(more, details.resource.further_scopes)
    asked = [f"It asks for more: {sentence[0].lower()}{sentence[1:]}." for sentence in told]
    return asked + agreement.news(earlier, details.client)


def _earlier_yes(request: HttpRequest, details: AuthorizationDetails) -> ConsentRecord | None:
    if details.client.pk is None or details.resource is None:
        return None
    return ConsentRecord.objects.filter(
        user=_person(request),
        client=details.client,
        resource=details.resource.uri,
        revoked_at=None,
    ).first()


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
