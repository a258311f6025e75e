"""``/oauth/register``: dynamic client registration (RFC 7591).

Clients register before anybody has signed in; therefore the endpoint is limited in size and
rate, and a registration that no person uses is deleted after a day (``expiry``). Whether it is
open at all is the administrator's policy (``client_admission``). A client manages what it
registered at ``client_configuration``.
"""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from oauthserver import request_limits, scopes
from oauthserver.actions import register_client
from oauthserver.client_admission import host_admission
from oauthserver.client_facts import ClientFacts, facts_of_registration
from oauthserver.errors import ProtocolError
from oauthserver.form_body import read_body
from oauthserver.json_answers import ProgramView, answer
from oauthserver.json_documents import DocumentInvalid, read_object
from oauthserver.models import ClientPolicy, OAuthClient

MAX_BODY = 16 * 1024
REGISTRATION_OFF = "This gateway does not let clients register themselves."
ASK = "Ask your administrator to add it."
# Members that describe the client and are given back as they came (RFC 7591 3.2.1).
_ECHOED = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "contacts", "software_id")
_ECHOED_TOO = ("software_version", "application_type", "jwks_uri", "jwks")


class ClientRegistrationView(ProgramView):
    """The client registration endpoint."""

    def respond(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Register one client."""
        address = request_limits.peer_address(request)
        request_limits.count(request_limits.REGISTRATIONS, address)
        facts = facts_of_registration(sent_document(request))
        check_policy(facts)
        client, secret, token = register_client(facts, address=address)
        return answer(registration_answer(client, facts, secret, token), 201)


def sent_document(request: HttpRequest) -> dict[str, Any]:
    """Return the metadata that a request brings.

    Raises:
        ProtocolError: ``invalid_client_metadata``, or 413.
    """
    try:
        return read_object(read_body(request, MAX_BODY))
    except DocumentInvalid as error:
        raise ProtocolError(
            "invalid_client_metadata", f"The body must be one JSON object: {error}."
        ) from error


def check_policy(facts: ClientFacts) -> None:
    """Tell a client at once, and not only its person later, that it is not let in.

    A client that only waits for an administrator does register: it keeps its identifier.

    Raises:
        ProtocolError: 403 ``access_denied`` when registration is off, 400
            ``invalid_redirect_uri`` when a host is not listed.
    """
    policy = ClientPolicy.current()
    if policy.registration == policy.Mode.OFF:
        raise ProtocolError("access_denied", advised(REGISTRATION_OFF, policy), status=403)
    if policy.registration == policy.Mode.HOSTS:
        verdict = host_admission(list(facts.redirect_uris), policy)
        if not verdict.admitted:
            raise ProtocolError("invalid_redirect_uri", advised(verdict.reason, policy))


def advised(reason: str, policy: ClientPolicy) -> str:
    """Add to a reason what the administrator wants people to do."""
    return f"{reason} {policy.advice or ASK}"


def registration_answer(
    client: OAuthClient, facts: ClientFacts, secret: str | None, token: str
) -> dict[str, Any]:
    """Compose the client information response (RFC 7591 3.2.1, RFC 7592 3).

    Args:
        secret: a secret that was made just now; it appears here and never again.
        token: the registration access token as the client holds it.
    """
    document = facts.document
    asked = document.get("scope")
    members: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": int(client.created.timestamp()),
        "redirect_uris": document["redirect_uris"],
        "grant_types": list(facts.grant_types),
        "response_types": ["code"],
        "token_endpoint_auth_method": facts.auth_method,
        "scope": " ".join(scopes.granted(asked.split() if isinstance(asked, str) else [])),
        "registration_access_token": token,
        "registration_client_uri": f"{settings.PUBLIC_URL}/oauth/register/{client.client_id}",
    }
    if facts.name:
        members["client_name"] = facts.name
    if facts.auth_method == "private_key_jwt" and facts.signing_alg:
        members["token_endpoint_auth_signing_alg"] = facts.signing_alg
    for name in (*_ECHOED, *_ECHOED_TOO):
        if document.get(name) is not None:
            members[name] = document[name]
    if secret is not None:
        members["client_secret"] = secret
        # Required whenever a secret is issued; 0 says that it does not expire.
        members["client_secret_expires_at"] = 0
    return members
