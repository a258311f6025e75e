"""``/oauth/register``: dynamic client registration (RFC 7591).

Open to everyone, because clients register before anybody has signed in; therefore limited in
size and rate, and a registration that no person approves is deleted after a day (``expiry``).
There is no management endpoint (RFC 7592): a client that changes registers again.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse

from oauthserver import request_limits, scopes
from oauthserver.actions import register_client
from oauthserver.client_facts import ClientFacts, facts_of_registration
from oauthserver.errors import ProtocolError
from oauthserver.form_body import read_body
from oauthserver.json_answers import ProgramView, answer
from oauthserver.json_documents import DocumentInvalid, read_object
from oauthserver.models import OAuthClient

MAX_BODY = 16 * 1024
# Members that describe the client and are given back as they came (RFC 7591 3.2.1).
_ECHOED = ("client_uri", "logo_uri", "tos_uri", "policy_uri", "contacts", "software_id")
_ECHOED_TOO = ("software_version", "application_type", "jwks_uri", "jwks")


class ClientRegistrationView(ProgramView):
    """The client registration endpoint."""

    def respond(self, request: HttpRequest) -> HttpResponse:
        """Register one client."""
        address = request_limits.peer_address(request)
        request_limits.count(request_limits.REGISTRATIONS, address)
        body = read_body(request, MAX_BODY)
        try:
            document = read_object(body)
        except DocumentInvalid as error:
            raise ProtocolError(
                "invalid_client_metadata", f"The body must be one JSON object: {error}."
            ) from error
        facts = facts_of_registration(document)
        client, secret = register_client(facts, address=address)
        return answer(registration_answer(client, facts, secret), 201)


def registration_answer(
    client: OAuthClient, facts: ClientFacts, secret: str | None
) -> dict[str, Any]:
    """Compose the client information response; ``secret`` appears here and never again."""
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
