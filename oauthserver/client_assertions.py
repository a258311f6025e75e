"""``private_key_jwt``: a client signs who it is (RFC 7523 2.2 and 3; clients.md 1.4).

Each assertion works once: its ``jti`` is written down in the database in the same moment, so
that no other process accepts it either. If that cannot be done, the assertion is refused.
"""

from django.conf import settings

from oauthserver import signed_claims
from oauthserver.errors import InvalidClient
from oauthserver.models import OAuthClient
from oauthserver.signed_claims import Keys, NotAcceptable

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TOKEN_PATH = "/oauth/token"  # noqa: S105
MAX_LIFETIME_SECONDS = 24 * 3600
_REFUSED = "The client assertion is not acceptable."


def claimed_client_id(assertion: str) -> str:
    """Return who an assertion says it is from, unproven, to look up whose keys to use.

    Raises:
        InvalidClient: it is not a compact JWS with a subject.
    """
    try:
        subject = signed_claims.unproven(assertion).get("sub")
    except NotAcceptable:
        raise InvalidClient(_REFUSED) from None
    if not isinstance(subject, str):
        raise InvalidClient(_REFUSED)
    return subject


def check_assertion(client: OAuthClient, assertion: str) -> None:
    """Prove that ``client`` made ``assertion``, for us, now, and for the first time.

    Raises:
        InvalidClient: one sentence for every reason.
    """
    try:
        _check(client, assertion)
    except NotAcceptable:
        raise InvalidClient(_REFUSED) from None


def _check(client: OAuthClient, assertion: str) -> None:
    header = signed_claims.header_of(assertion)
    if client.token_endpoint_auth_signing_alg not in ("", header.algorithm):
        raise NotAcceptable
    claims = signed_claims.proven(assertion, header, Keys(client.jwks, client.jwks_uri))
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not claims.get("iss") == claims.get("sub") == client.client_id:
        raise NotAcceptable
    if settings.PUBLIC_URL not in audiences and settings.PUBLIC_URL + TOKEN_PATH not in audiences:
        raise NotAcceptable
    until = signed_claims.check_times(claims, MAX_LIFETIME_SECONDS)
    signed_claims.use_once(client.client_id, claims, until)
