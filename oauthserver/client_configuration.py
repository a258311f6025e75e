"""``/oauth/register/{client_id}``: a client reads, changes or removes its registration (RFC 7592).

The registration access token is stored as a digest. A change gives a new one; the one before
works until the new one is first used, so that a lost answer locks nobody out. A client secret
is stored as a digest too and therefore in no answer but the one that makes it.
"""

from secrets import compare_digest
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse

from oauthserver import request_limits
from oauthserver.actions import delete_client, give_secret, tell
from oauthserver.client_facts import SECRET_METHODS, ClientFacts, facts_of_registration
from oauthserver.client_registration import check_policy, registration_answer, sent_document
from oauthserver.client_review import review_again
from oauthserver.errors import InvalidRegistrationToken, ProtocolError
from oauthserver.json_answers import ProgramView, answer
from oauthserver.models import OAuthClient
from oauthserver.token_values import digest, new_registration_token, secret_matches

_IDENTITY = ("name", "redirect_uris")


class ClientConfigurationView(ProgramView):
    """The client configuration endpoint."""

    allowed = ("GET", "PUT", "DELETE")

    def respond(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Answer whoever holds the token of this registration."""
        address = request_limits.peer_address(request)
        request_limits.check(request_limits.FAILED_TOKEN_REQUESTS, address)
        token = _bearer(request)
        try:
            with transaction.atomic():
                client = _managed(str(kwargs["client_id"]), token)
                return self._managed_answer(request, client, token, address)
        except InvalidRegistrationToken:
            request_limits.count(request_limits.FAILED_TOKEN_REQUESTS, address)
            raise

    def _managed_answer(
        self, request: HttpRequest, client: OAuthClient, token: str, address: str
    ) -> HttpResponse:
        if request.method == "DELETE":
            delete_client(client, actor=None)
            response = HttpResponse(status=204)
            response.headers["Cache-Control"] = "no-store"
            return response
        if request.method == "PUT":
            facts = _wanted(client, sent_document(request))
            secret, token = change_registration(client, facts, token, address=address)
        else:
            facts, secret = facts_of_registration(client.metadata["document"]), None
        return answer(registration_answer(client, facts, secret, token))


def change_registration(
    client: OAuthClient, facts: ClientFacts, presented: str, *, address: str
) -> tuple[str | None, str]:
    """Replace what a client registered; returns a new secret, if it needs one, and a new token.

    ``presented`` is the token that the client holds for certain.

    Tokens stay valid; where the client got another name or redirect host, the people behind
    them are asked again at the next refresh. An administrator's approval was for the client as
    it was and has to be given again.
    """
    before = {name: getattr(client, name) for name in (*_IDENTITY, "client_secret")}
    client.take(facts)
    secret = None
    if facts.auth_method in SECRET_METHODS:
        if before["client_secret"]:
            client.client_secret = before["client_secret"]
        else:
            secret = give_secret(client)
    altered = [name for name in _IDENTITY if getattr(client, name) != before[name]]
    if altered:
        review_again(client)
    token = new_registration_token()
    client.registration_token_before = digest(presented)
    client.registration_token = digest(token)
    client.save()
    tell("client.changed", client, address=address, members=altered, by="client")
    return secret, token


def _wanted(client: OAuthClient, document: dict[str, Any]) -> ClientFacts:
    """Read an update (RFC 7592 2.2): it repeats who it is, and cannot choose its secret."""
    if document.get("client_id") != client.client_id:
        raise ProtocolError("invalid_client_metadata", "'client_id' must be this client's own.")
    secret = document.pop("client_secret", None)
    if secret is not None and not (
        isinstance(secret, str) and secret_matches(secret, client.client_secret)
    ):
        raise ProtocolError("invalid_client_metadata", "'client_secret' is not the current one.")
    facts = facts_of_registration(document)
    check_policy(facts)
    return facts


def _managed(client_id: str, token: str) -> OAuthClient:
    """Return the client that a token manages; one that is switched off manages nothing."""
    client = _stored(client_id)
    if client is None or not token or not client.is_usable(None):
        raise InvalidRegistrationToken
    presented, before = digest(token), client.registration_token_before
    if compare_digest(presented, client.registration_token):
        if before:
            client.registration_token_before = ""
            client.save(update_fields=["registration_token_before"])
    elif not before or not compare_digest(presented, before):
        raise InvalidRegistrationToken
    return client


def _stored(client_id: str) -> OAuthClient | None:
    if "\x00" in client_id:
        return None
    known = OAuthClient.objects.select_for_update().filter(client_id=client_id)
    found: OAuthClient | None = known.first()
    return found


def _bearer(request: HttpRequest) -> str:
    scheme, _, token = str(request.META.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
