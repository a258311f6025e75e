"""Enterprise-managed authorization: the company's identity provider vouches for a person (d18).

An identity assertion (ID-JAG) says that this person may use this resource through this client.
The gateway believes issuers that an administrator named, finds the person by what that issuer calls
them (``issuer_subjects``), and asks its own access rules as always. There is no consent page: the
company's policy at the identity provider stands in its place. No refresh token is given; the
client asks its identity provider again.
"""

from dataclasses import dataclass
from typing import Any

from django.conf import settings

from oauthserver import audience, issuer_subjects, signed_claims
from oauthserver.audience import Resource
from oauthserver.errors import ProtocolError
from oauthserver.form_body import FormBody
from oauthserver.issuer_subjects import NobodyNamed
from oauthserver.models import OAuthClient, TrustedIssuer
from oauthserver.signals import audit
from oauthserver.signed_claims import Keys, NotAcceptable

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"
TYPE = "oauth-id-jag+jwt"
MAX_LIFETIME_SECONDS = 3600


@dataclass(frozen=True)
class Vouched:
    """For whom, for what and with which scopes an issuer vouches, and the claims that say so."""

    person: Any
    resource: Resource
    scopes: tuple[str, ...]
    issuer: TrustedIssuer
    claims: dict[str, Any]


def enabled() -> bool:
    """Whether there is an issuer to believe."""
    return TrustedIssuer.objects.filter(enabled=True).exists()


def introduces(client_id: str, form: FormBody) -> bool:
    """Tell whether a token request carries an assertion that names this client.

    Then a company that is trusted here has let the client in, even if nobody has brought it
    before. Uses nothing up; ``check`` follows.
    """
    if form.get("grant_type") != GRANT_TYPE:
        return False
    try:
        _, claims, _ = _proven(form.get("assertion"))
    except NotAcceptable:
        return False
    return claims.get("client_id") == client_id


def check(client: OAuthClient, assertion: str, resources: list[str]) -> Vouched:
    """Check an identity assertion that ``client`` presents. Uses its ``jti`` up.

    Args:
        resources: the ``resource`` parameters of the token request; usually none.

    Raises:
        ProtocolError: ``unauthorized_client``, ``invalid_grant`` or ``invalid_target``.
    """
    if not client.proven_by:
        raise ProtocolError(
            "unauthorized_client", "Only clients that authenticate may use this grant."
        )
    if client.authorization_grant_type == client.GRANT_CLIENT_CREDENTIALS:
        # Its tokens speak for its own account; a person's must never be among them.
        raise ProtocolError("unauthorized_client", "A service account may not use this grant.")
    refused = ProtocolError("invalid_grant", "The identity assertion is not acceptable.")
    try:
        issuer, claims = _believed(client, assertion)
    except NotAcceptable:
        raise refused from None
    resource = _resource(claims, resources)
    try:
        person = person_for(issuer, claims, resource)
    except NobodyNamed as nobody:
        _tell(client, issuer, claims, nobody.reason)
        raise ProtocolError("invalid_grant", nobody.words) from nobody
    scope = claims.get("scope", "")
    scopes = tuple(scope.split()) if isinstance(scope, str) else ()
    return Vouched(person, resource, scopes, issuer, claims)


def person_for(issuer: TrustedIssuer, claims: dict[str, Any], resource: Resource) -> Any:
    """Return whom an assertion is about, if they may use what it is for.

    Raises:
        NobodyNamed: nobody is, or they may not; the client reads the same of both.
    """
    person = issuer_subjects.person_of(issuer, claims)
    if not audience.may_use(person, resource):
        raise NobodyNamed("no access")
    return person


def _believed(client: OAuthClient, assertion: str) -> tuple[TrustedIssuer, dict[str, Any]]:
    issuer, claims, until = _proven(assertion)
    if claims.get("client_id") != client.client_id:
        raise NotAcceptable
    signed_claims.use_once(issuer.issuer, claims, until)
    return issuer, claims


def _proven(assertion: str) -> tuple[TrustedIssuer, dict[str, Any], float]:
    """Return who signed, what they say, and until when (a timestamp) it counts."""
    header = signed_claims.header_of(assertion)
    if header.kind != TYPE:
        raise NotAcceptable
    named = signed_claims.unproven(assertion).get("iss")
    if not isinstance(named, str) or "\x00" in named:
        raise NotAcceptable
    issuer = TrustedIssuer.objects.filter(issuer=named, enabled=True).first()
    if issuer is None:
        raise NotAcceptable
    claims = signed_claims.proven(assertion, header, Keys(issuer.jwks, issuer.jwks_uri))
    intended = claims.get("aud")
    if intended not in (settings.PUBLIC_URL, [settings.PUBLIC_URL]):
        raise NotAcceptable
    if claims.get("iss") != issuer.issuer:
        raise NotAcceptable
    return issuer, claims, signed_claims.check_times(claims, MAX_LIFETIME_SECONDS)


def _resource(claims: dict[str, Any], asked: list[str]) -> Resource:
    named = claims.get("resource")
    named = named[0] if isinstance(named, list) and len(named) == 1 else named
    resource = audience.find_resource(named) if isinstance(named, str) else None
    if resource is None:
        raise ProtocolError("invalid_grant", "The assertion is for no resource of this gateway.")
    if len(asked) > 1 or (asked and audience.canonical(asked[0]) != resource.uri):
        raise ProtocolError("invalid_target", "'resource' is not the one of the assertion.")
    return resource


def _tell(client: OAuthClient, issuer: TrustedIssuer, claims: dict[str, Any], reason: str) -> None:
    """Write down why a valid assertion gave nothing: the client reads less than that."""
    audit.send(
        sender=TrustedIssuer,
        kind="token.vouching_refused",
        user=None,
        target=client.client_id,
        details={
            "issuer": issuer.issuer,
            "reason": reason,
            "claim": issuer.person_claim,
            "subject": str(claims.get("sub", ""))[:200],
        },
        address="",
    )
