"""The rules for codes and tokens, where the library asks for them.

``GatewayOAuth2Validator`` decides; the library's engine (oauthlib) keeps the order of checks
and composes the answers. One validator serves one token request, in one transaction, for a
client that has already proven who it is: fetching a client's keys must not happen while rows
are locked.

What holds for every token: it is for exactly one known resource, opaque, 256 bit, stored as a
digest. Access tokens live an hour; refresh tokens 30 days from their issue, rotate at every
use, and end with their whole family when one comes back too late (security.md #104-#107).
"""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_refresh_token_model
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauthlib.common import Request
from oauthlib.oauth2.rfc6749 import errors

from oauthserver import (
    authorization_codes,
    consent_check,
    openid,
    rotation_answers,
    scopes,
    sign_in_age,
    token_families,
)
from oauthserver.authorization_codes import Redemption
from oauthserver.models import OAuthClient
from oauthserver.signals import audit
from oauthserver.token_values import digest

ACCESS_SECONDS = 3600
REFRESH_IDLE = timedelta(days=30)


class GatewayOAuth2Validator(OAuth2Validator):  # type: ignore[misc]
    """Answers the engine's questions about one token request.

    Args:
        client: the client that authenticated; None where no token request is made.
        resources: the ``resource`` parameters of the request.
    """

    def __init__(
        self, client: OAuthClient | None = None, resources: list[str] | None = None
    ) -> None:
        super().__init__()
        self._client = client
        self._resources = resources or []
        self._grant: Any = None
        self._record: Any = None
        self._presented: Any = None
        self._answer_again: dict[str, Any] | None = None

    # The client ---------------------------------------------------------------------------

    def client_authentication_required(self, request: Request, *args: Any, **kwargs: Any) -> bool:
        """Every client is identified, whether it has a proof or not."""
        return True

    def authenticate_client(self, request: Request, *args: Any, **kwargs: Any) -> bool:
        """Present the client that the endpoint has authenticated."""
        request.client = self._client
        request.client_id = self._client.client_id if self._client else None
        return self._client is not None

    def authenticate_client_id(
        self, client_id: str, request: Request, *args: Any, **kwargs: Any
    ) -> bool:
        """Refuse: naming a client is never enough here, ``authenticate_client`` decides."""
        return False

    def validate_grant_type(
        self, client_id: str, grant_type: str, client: Any, request: Request, *_: Any, **__: Any
    ) -> bool:
        """Only these two grants exist, the second for clients that registered it."""
        if grant_type == "refresh_token":
            return bool(client.wants_refresh_tokens)
        return grant_type == "authorization_code"

    # Codes --------------------------------------------------------------------------------

    def save_authorization_code(
        self, client_id: str, code: Any, request: Request, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse: codes are made by ``authorization_codes.issue``, after consent."""
        raise errors.ServerError("codes are not issued here")

    def validate_code(
        self, client_id: str, code: str, client: Any, request: Request, *args: Any, **kwargs: Any
    ) -> bool:
        """Lock and check the code; see ``authorization_codes.check`` for the errors."""
        said = Redemption(code, request.redirect_uri, request.code_verifier, self._resources)
        self._grant, self._record = authorization_codes.check(client, said)
        request.user = self._grant.user
        request.scopes = self._grant.scope.split()
        request.nonce = self._grant.nonce or None
        request.resource = list(self._grant.resource)
        return True

    def get_authorization_code_scopes(
        self, client_id: str, code: str, redirect_uri: str, request: Request
    ) -> list[str]:
        """Return the scopes of a live code, for the engine to choose OpenID Connect or not."""
        return authorization_codes.scopes_of(code)

    def get_authorization_code_nonce(
        self, client_id: str, code: str, redirect_uri: str, request: Request
    ) -> str | None:
        """Return the nonce of the code that was checked."""
        return self._grant.nonce or None

    def get_code_challenge(self, code: str, request: Request) -> str | None:
        """Return the challenge of the code that was checked."""
        return self._grant.code_challenge or None

    def get_code_challenge_method(self, code: str, request: Request) -> str:
        """S256 is the only one."""
        return "S256"

    def get_default_redirect_uri(
        self, client_id: str, request: Request, *args: Any, **kwargs: Any
    ) -> str:
        """Return the one registered; ``validate_code`` has compared already."""
        return str(request.client.redirect_uris.split()[0])

    def confirm_redirect_uri(self, *args: Any, **kwargs: Any) -> bool:
        """``validate_code`` has compared already."""
        return True

    def invalidate_authorization_code(
        self, client_id: str, code: str, request: Request, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing is left to do: the code was used up when the tokens were saved."""

    # Refresh tokens -----------------------------------------------------------------------

    def validate_refresh_token(
        self, refresh_token: str, client: Any, request: Request, *args: Any, **kwargs: Any
    ) -> bool:
        """Lock and check the refresh token; recognise a lost answer and a replay."""
        token = (
            get_refresh_token_model()
            .objects.select_for_update(of=("self",))
            .select_related("user", "access_token")
            .filter(token_checksum=digest(refresh_token), application=client)
            .first()
        )
        if token is None:
            return False
        if token.revoked is not None:
            successor = self._unused_successor(token)
            self._answer_again = rotation_answers.recall(refresh_token) if successor else None
            if self._answer_again is None:
                self._refuse_revoked(token)
                return False
        elif token.access_token is None or token.created + REFRESH_IDLE <= timezone.now():
            # Without its access token nobody knows the scopes any more: somebody deleted it.
            return False
        authorization_codes.check_resource(self._resources, token.resource)
        token_families.check_person(token.user, token.resource)
        why = sign_in_age.why_sign_in_again(token.user) or consent_check.why_ask_again(
            token.user, token.application, token.resource[0]
        )
        if why:
            # The token stays good: an administrator or the person may change their mind.
            raise errors.InvalidGrantError(why)
        self._presented = token
        request.user = token.user
        request.refresh_token = refresh_token
        request.resource = list(token.resource)
        return True

    def _unused_successor(self, token: Any) -> Any:
        """Return the refresh token that followed ``token``, if it was not used or revoked."""
        return (
            get_refresh_token_model()
            .objects.filter(access_token__source_refresh_token=token, revoked__isnull=True)
            .first()
        )

    def _refuse_revoked(self, token: Any) -> None:
        """A used token came back while its family lives: one of two holders is a thief."""
        alive = get_refresh_token_model().objects.filter(
            token_family=token.token_family, revoked__isnull=True
        )
        if alive.exists():
            token_families.end_replayed(token)

    def get_original_scopes(
        self, refresh_token: str, request: Request, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Return what was granted; a refresh neither adds nor loses scopes."""
        if self._answer_again is not None:
            return str(self._answer_again["scope"]).split()
        return str(self._presented.access_token.scope).split()

    def rotate_refresh_token(self, request: Request) -> bool:
        """Rotate at every use (OAuth 2.1 4.3.1)."""
        return True

    def refresh_id_token(self, request: Request) -> bool:
        """No new ID token comes with a refresh (OpenID Connect Core 12.2 leaves it open)."""
        return False

    # OpenID Connect -----------------------------------------------------------------------

    def get_additional_claims(self, request: Request) -> dict[str, Any]:
        """Return what is known of the person; the engine drops what the scopes do not cover."""
        return openid.claims_of(request.user)

    def get_id_token_dictionary(self, token: Any, token_handler: Any, request: Request) -> Any:
        """Say when the person proved who they are in the browser that authorized."""
        claims, expires = super().get_id_token_dictionary(token, token_handler, request)
        if self._record is not None and self._record.authenticated_at:
            claims["auth_time"] = int(self._record.authenticated_at)
        return claims, expires

    def finalize_id_token(
        self, id_token: Any, token: Any, token_handler: Any, request: Request
    ) -> str:
        """Sign with the server's key, whatever algorithm a client's row says."""
        request.client.algorithm = request.client.RS256_ALGORITHM
        return str(super().finalize_id_token(id_token, token, token_handler, request))

    # Tokens -------------------------------------------------------------------------------

    def _save_bearer_token(
        self, token: dict[str, Any], request: Request, *args: Any, **kwargs: Any
    ) -> None:
        """Store what the engine made; the library's extension point."""
        if self._answer_again is not None:
            token.clear()
            token.update(self._answer_again)
            return
        resource = list(request.resource)
        if len(resource) != 1:
            raise errors.ServerError("a token is for exactly one resource")
        if not request.client.wants_refresh_tokens:
            token.pop("refresh_token", None)
        # A code or refresh token holds what was granted for its resource.
        token["scope"] = " ".join(scopes.granted(token["scope"].split(), [scopes.WRITE_SCOPE]))
        expires = timezone.now() + timedelta(seconds=ACCESS_SECONDS)
        access_token = self._create_access_token(
            expires, request, token, source_refresh_token=self._presented
        )
        if self._record is not None:
            self._start_family(token, request, access_token)
        else:
            self._rotate(token, request, access_token)

    def _start_family(self, token: dict[str, Any], request: Request, access_token: Any) -> None:
        authorization_codes.redeem(self._grant, self._record, access_token.token_checksum)
        if "refresh_token" in token:
            self._create_family_member(token, request, access_token, self._record.family)
        audit.send(
            sender=OAuthClient,
            kind="token.issued",
            user=request.user,
            target=request.client.client_id,
            details={"resource": request.resource[0], "scope": token["scope"]},
            address="",
        )

    def _rotate(self, token: dict[str, Any], request: Request, access_token: Any) -> None:
        old = self._presented
        now = timezone.now()
        # Calls that are under way with the old access token may finish; it lives on for as
        # long as the old refresh token could still be answered.
        last = now + timedelta(seconds=rotation_answers.WINDOW_SECONDS)
        get_access_token_model().objects.filter(pk=old.access_token_id, expires__gt=last).update(
            expires=last, updated=now
        )
        get_refresh_token_model().objects.filter(pk=old.pk).update(revoked=now, updated=now)
        self._create_family_member(token, request, access_token, old.token_family)
        rotation_answers.remember(request.refresh_token, dict(token))

    def _create_family_member(
        self, token: dict[str, Any], request: Request, access_token: Any, family: Any
    ) -> None:
        member = get_refresh_token_model()(
            user=request.user,
            application=request.client,
            access_token=access_token,
            token_family=family,
            resource=list(request.resource),
        )
        self._set_token_value(member, token["refresh_token"])
        member.save()
