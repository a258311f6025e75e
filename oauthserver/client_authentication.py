"""Who calls the token endpoint, and the proof of it (RFC 6749 2.3, security.md #100).

A client uses one of the methods it registered, and one at a time. Whatever is wrong, the
answer is 401 ``invalid_client``.
"""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote_plus

from django.core.cache import cache
from django.http import HttpRequest

from oauthserver import client_directory, identity_assertions
from oauthserver.actions import tell
from oauthserver.client_assertions import ASSERTION_TYPE, check_assertion, claimed_client_id
from oauthserver.errors import InvalidClient
from oauthserver.form_body import FormBody
from oauthserver.models import OAuthClient
from oauthserver.request_limits import peer_address
from oauthserver.token_values import secret_matches

TOLD_AGAIN_AFTER_SECONDS = 3600
_MAX_HEADER = 2_000


@dataclass(frozen=True)
class _Claim:
    """What a request says about its client: an identifier, a method and the proof for it."""

    client_id: str
    method: str
    proof: str


def authenticated_client(
    request: HttpRequest, form: FormBody, *, newcomers: bool = False
) -> OAuthClient:
    """Return the client of a request to the token, revocation or introspection endpoint.

    ``proven_by`` says how it proved itself: one that may do so, and need not, may have not.

    Args:
        newcomers: whether a client may be nobody's yet, whom an identity assertion in the request
            names; it is returned unsaved.

    Raises:
        InvalidClient: no client, an unknown one, more than one method, a method that the
            client did not register, or a wrong proof.
    """
    claim = _claim(request, form)
    client = client_directory.for_token_endpoint(
        claim.client_id,
        lambda: newcomers and identity_assertions.introduces(claim.client_id, form),
    )
    try:
        _check_proof(client, claim)
    except InvalidClient:
        _tell_refused(client, claim.method, peer_address(request))
        raise
    client.proven_by = "" if claim.method == "none" else claim.method
    return client


def _check_proof(client: OAuthClient, claim: _Claim) -> None:
    if claim.method not in client.auth_methods:
        raise InvalidClient("The client is not registered for this way of authenticating.")
    if claim.method == "private_key_jwt":
        check_assertion(client, claim.proof)
    elif claim.method != "none" and not secret_matches(claim.proof, client.client_secret):
        raise InvalidClient("The client ID or secret is wrong.")


def _tell_refused(client: OAuthClient, method: str, address: str) -> None:
    """Have administrators see that somebody pretends, or that a client has an old secret.

    Anybody can cause it at will, so each client's is told once in a while.
    """
    if cache.add(f"oauthserver:proof-refused:{client.pk}", True, TOLD_AGAIN_AFTER_SECONDS):
        tell("client.proof_refused", client, address=address, method=method)


def _claim(request: HttpRequest, form: FormBody) -> _Claim:
    claims = []
    header = request.META.get("HTTP_AUTHORIZATION", "")
    if header:
        claims.append(_basic(header))
    if form.get("client_assertion") or form.get("client_assertion_type"):
        claims.append(_assertion(form))
    if form.get("client_secret"):
        claims.append(
            _Claim(form.get("client_id"), "client_secret_post", form.get("client_secret"))
        )
    if len(claims) > 1:
        raise InvalidClient("Authenticate in one way only.")
    claim = claims[0] if claims else _Claim(form.get("client_id"), "none", "")
    if not claim.client_id:
        raise InvalidClient("The request does not say which client it is from.")
    if form.get("client_id") not in ("", claim.client_id):
        raise InvalidClient("The request names two clients.")
    return claim


def _basic(header: str) -> _Claim:
    refusal = InvalidClient("The Authorization header is not a well-formed Basic one.", basic=True)
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(header) > _MAX_HEADER:
        raise refusal
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise refusal from None
    client_id, colon, secret = decoded.partition(":")
    if not colon or not client_id or not secret:
        raise refusal
    # RFC 6749 2.3.1: both parts are form-encoded before they are joined.
    return _Claim(unquote_plus(client_id), "client_secret_basic", unquote_plus(secret))


def _assertion(form: FormBody) -> _Claim:
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise InvalidClient("The type of client assertion is not supported.")
    assertion = form.get("client_assertion")
    return _Claim(claimed_client_id(assertion), "private_key_jwt", assertion)
