"""Grants in which no person takes part: a vouched-for person, and a service account.

Both give an access token for exactly one resource and no refresh token. Whether they may is
decided in the transaction that stores the token, about rows that stay as they are until then:
whoever switches machine access or a client off, or closes an account, is never overtaken.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, set_token_value

from oauthserver import (
    audience,
    client_directory,
    held_rows,
    identity_assertions,
    scopes,
    service_accounts,
    vouched_access,
)
from oauthserver.actions import note_approval, stored_client
from oauthserver.audience import Resource
from oauthserver.client_admission import Standing, admission
from oauthserver.client_review import ask_for_review
from oauthserver.errors import InvalidClient, ProtocolError
from oauthserver.form_body import FormBody
from oauthserver.identity_assertions import Vouched
from oauthserver.issuer_subjects import NobodyNamed
from oauthserver.models import ClientPolicy, OAuthClient
from oauthserver.signals import audit
from oauthserver.token_policy import ACCESS_SECONDS
from oauthserver.token_values import new_access_token

CLIENT_CREDENTIALS = "client_credentials"


@dataclass(frozen=True)
class _Given:
    """Whom a token speaks for, where, and what the audit trail says about it."""

    user: Any
    resource: Resource
    scopes: list[str]
    details: dict[str, str]


def offered() -> list[str]:
    """Return the grant types of this module that are switched on."""
    machine = [CLIENT_CREDENTIALS] if service_accounts.enabled() else []
    return [*machine, *([identity_assertions.GRANT_TYPE] if identity_assertions.enabled() else [])]


def answer(client: OAuthClient, form: FormBody, grant_type: str) -> dict[str, Any]:
    """Return the members of a token response.

    Raises:
        ProtocolError: with the code of RFC 6749 5.2, RFC 7523 or RFC 8707.
    """
    if grant_type == CLIENT_CREDENTIALS:
        with transaction.atomic():
            return _token(client, _for_service(client, form))
    # Its signature is checked first: keys must not be fetched while rows are held.
    assertion = form.get("assertion")
    if not assertion:
        raise ProtocolError("invalid_request", "The parameter 'assertion' is missing.")
    vouched = identity_assertions.check(client, assertion, form.resources)
    _check_admission(client, vouched.person)
    with transaction.atomic():
        # Its row has to hold the keys that this request was signed with.
        client.pk = stored_client(client).pk
        given = _for_person(client, form, vouched)
        members = _token(client, given)
        scope = " ".join(given.scopes)
        vouched_access.note(given.user, client, given.resource.uri, vouched.issuer.issuer, scope)
    note_approval(client)
    return members


def _token(client: OAuthClient, given: _Given) -> dict[str, Any]:
    token = new_access_token()
    row = get_access_token_model()(
        user=given.user,
        application=client,
        scope=" ".join(given.scopes),
        expires=timezone.now() + timedelta(seconds=ACCESS_SECONDS),
        resource=[given.resource.uri],
    )
    set_token_value(row, token)
    row.save()
    audit.send(
        sender=OAuthClient,
        kind="token.issued",
        user=given.user,
        target=client.client_id,
        details={"resource": given.resource.uri, "scope": row.scope, **given.details},
        address="",
    )
    return {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": ACCESS_SECONDS,
        "scope": row.scope,
    }


def _check_admission(client: OAuthClient, person: Any) -> None:
    """Check that the policy admits the client; one that has to wait stands in the queue after."""
    verdict = admission(client, ClientPolicy.current())
    if verdict.standing is Standing.WAITING:
        ask_for_review(client, person, address="")
    if not verdict.admitted:
        raise ProtocolError("unauthorized_client", verdict.reason)


def _for_person(client: OAuthClient, form: FormBody, vouched: Vouched) -> _Given:
    policy = held_rows.shared_policy()
    issuer = held_rows.shared_issuer(vouched.issuer)
    if issuer is None:
        raise ProtocolError("invalid_grant", "The identity assertion is not acceptable.")
    person = held_rows.shared_person(vouched.person.pk)
    try:
        # Who goes by that name may have changed, by a sign-in, since the signature was checked.
        if person != identity_assertions.person_for(issuer, vouched.claims, vouched.resource):
            raise NobodyNamed("unknown")
    except NobodyNamed as nobody:
        raise ProtocolError("invalid_grant", nobody.words) from nobody
    held = held_rows.shared_client(client)
    if held is None:
        raise InvalidClient(client_directory.UNKNOWN)
    verdict = admission(held, policy)
    if not verdict.admitted:
        raise ProtocolError("unauthorized_client", verdict.reason)
    asked = set(form.get("scope").split() or vouched.scopes)
    # What neither the issuer nor the client names is not given (d18).
    both = asked & set(vouched.scopes)
    given = scopes.granted(both, vouched.resource.further_scopes)
    details = {"grant": "identity assertion", "issuer": issuer.issuer}
    return _Given(person, vouched.resource, given, details)


def _for_service(client: OAuthClient, form: FormBody) -> _Given:
    if not held_rows.shared_policy().machine_access:
        raise ProtocolError("unauthorized_client", "Machine access is switched off here.")
    known = service_accounts.account_of(client)
    person = held_rows.shared_person(known.user_id) if known else None
    held = held_rows.shared_client(client)
    # Read again: what it may use, or that it is gone, may have been decided while waiting.
    account = service_accounts.account_of(held) if held and person else None
    if account is None:
        raise ProtocolError("unauthorized_client", "This client has no service account.")
    resource = _chosen(account.resources, form.resources)
    given = scopes.granted(form.get("scope").split(), resource.further_scopes)
    return _Given(person, resource, given, {"grant": "client credentials"})


def _chosen(allowed: list[str], asked: list[str]) -> Resource:
    if not asked and len(allowed) == 1:
        asked = allowed
    if len(asked) != 1:
        raise ProtocolError("invalid_target", "Name one 'resource': the address of a server.")
    resource = audience.find_resource(asked[0])
    if resource is None or resource.uri not in allowed:
        raise ProtocolError("invalid_target", "This account may not use that resource.")
    return resource
