"""``/oauth/token``, ``/oauth/revoke`` and ``/oauth/introspect``.

Each reads a form strictly, authenticates the client, and works in one transaction. On SQLite
that transaction begins IMMEDIATE, on PostgreSQL the code's or token's row is locked: of any
number of equal requests exactly one makes something new.
"""

import json
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_refresh_token_model
from oauth2_provider.settings import oauth2_settings
from oauthlib.oauth2.rfc6749.errors import OAuth2Error

from oauthserver import audience, bearer_tokens, direct_grants, request_limits, token_families
from oauthserver.client_assertions import TOKEN_PATH
from oauthserver.client_authentication import authenticated_client
from oauthserver.errors import InvalidClient, ProtocolError
from oauthserver.form_body import FormBody, read_form
from oauthserver.json_answers import ProgramView, answer
from oauthserver.models import OAuthClient
from oauthserver.signals import audit
from oauthserver.token_policy import GatewayOAuth2Validator
from oauthserver.token_values import digest

_GRANT_MEMBERS = {
    "authorization_code": ("code", "redirect_uri", "code_verifier"),
    # ``scope`` is left out: a refresh keeps the scopes it has (RFC 6749 3.3 allows it).
    "refresh_token": ("refresh_token",),
}


class _FormView(ProgramView):
    """An endpoint that takes a form from a client; failures count against the address.

    Attributes:
        newcomers: whether clients may be new here (``authenticated_client``).
    """

    newcomers: ClassVar[bool] = False

    def respond(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Authenticate the client and answer."""
        address = request_limits.peer_address(request)
        request_limits.check(request_limits.FAILED_TOKEN_REQUESTS, address)
        form = read_form(request)
        try:
            client = authenticated_client(request, form, newcomers=self.newcomers)
            response = self.answer_client(client, form)
        except ProtocolError:
            request_limits.count(request_limits.FAILED_TOKEN_REQUESTS, address)
            raise
        if response.status_code == 400:
            request_limits.count(request_limits.FAILED_TOKEN_REQUESTS, address)
        return response

    def answer_client(self, client: OAuthClient, form: FormBody) -> HttpResponse:
        """Answer a client that proved who it is."""
        raise NotImplementedError


class TokenView(_FormView):
    """The token endpoint (RFC 6749 3.2)."""

    newcomers = True

    def answer_client(self, client: OAuthClient, form: FormBody) -> HttpResponse:
        """Redeem a code, rotate a refresh token, or answer a grant without a person."""
        grant_type = form.get("grant_type")
        if not grant_type:
            raise ProtocolError("invalid_request", "The parameter 'grant_type' is missing.")
        direct = direct_grants.offered() if grant_type not in _GRANT_MEMBERS else []
        if grant_type in direct:
            members = direct_grants.answer(client, form, grant_type)
            bearer_tokens.note_client_use(client.client_id)
            return answer(members)
        if grant_type not in _GRANT_MEMBERS:
            names = ", ".join(f"'{name}'" for name in (*_GRANT_MEMBERS, *direct))
            raise ProtocolError("unsupported_grant_type", f"Supported are {names}.")
        with transaction.atomic():
            members, status = _engine_answer(client, form, grant_type)
        if status == 200:
            bearer_tokens.note_client_use(client.client_id)
        return answer(members, status)


def _engine_answer(
    client: OAuthClient, form: FormBody, grant_type: str
) -> tuple[dict[str, Any], int]:
    """Let the engine answer; its refusals commit, because a replay must leave its mark."""
    validator = GatewayOAuth2Validator(client, form.resources)
    server = oauth2_settings.OAUTH2_SERVER_CLASS(validator, **oauth2_settings.server_kwargs)
    body = {"grant_type": grant_type}
    body |= {name: form.get(name) for name in _GRANT_MEMBERS[grant_type] if form.get(name)}
    try:
        _, text, status = server.create_token_response(
            settings.PUBLIC_URL + TOKEN_PATH, "POST", urlencode(body), {}, {}
        )
    except OAuth2Error as error:
        text, status = error.json, error.status_code
    return json.loads(text), status


class RevocationView(_FormView):
    """The revocation endpoint (RFC 7009): 200 whether or not there was anything to revoke."""

    def answer_client(self, client: OAuthClient, form: FormBody) -> HttpResponse:
        """End the client's own token, with its family."""
        token = form.get("token")
        if not token:
            raise ProtocolError("invalid_request", "The parameter 'token' is missing.")
        with transaction.atomic():
            _revoke(client, digest(token))
        return answer({})


def _revoke(client: OAuthClient, checksum: str) -> None:
    # The hint is not needed: both kinds are found by the same digest.
    own = {"application": client, "token_checksum": checksum}
    refresh = get_refresh_token_model().objects.filter(**own).first()
    access = get_access_token_model().objects.filter(**own).first()
    if access is not None and refresh is None:
        refresh = get_refresh_token_model().objects.filter(access_token=access).first()
    found = refresh or access
    if found is None:
        return
    token_families.end_family(refresh.token_family if refresh else None)
    get_access_token_model().objects.filter(**own).delete()
    audit.send(
        sender=OAuthClient,
        kind="token.revoked",
        user=found.user,
        target=client.client_id,
        details={"by": "client"},
        address="",
    )


class IntrospectionView(_FormView):
    """The introspection endpoint (RFC 7662), for a client's own tokens only.

    A client without a proof of who it is learns nothing: 401.
    """

    def answer_client(self, client: OAuthClient, form: FormBody) -> HttpResponse:
        """Say what is known of the client's token."""
        if not client.proven_by:
            raise InvalidClient("Only clients that authenticate may introspect.")
        token = form.get("token")
        if not token:
            raise ProtocolError("invalid_request", "The parameter 'token' is missing.")
        own = {"application": client, "token_checksum": digest(token)}
        row = (
            get_access_token_model()
            .objects.filter(expires__gt=timezone.now(), user__is_active=True, **own)
            .select_related("user")
            .first()
        )
        usable = row is not None and _opens_something(client, row)
        return answer(_description(client, row) if usable else {"active": False})


def _opens_something(client: OAuthClient, token: Any) -> bool:
    """Whether the resource of a token is still there, and its person may still use it.

    What a token would be refused with everywhere is not active (RFC 7662 2.2). A program without
    a person has the resources that were chosen for it, whatever its groups.
    """
    resource = audience.find_resource(token.resource[0]) if len(token.resource) == 1 else None
    if resource is None:
        return False
    alone = client.authorization_grant_type == client.GRANT_CLIENT_CREDENTIALS
    return alone or audience.may_use(token.user, resource)


def _description(client: OAuthClient, token: Any) -> dict[str, Any]:
    return {
        "active": True,
        "iss": settings.PUBLIC_URL,
        "client_id": client.client_id,
        "sub": str(token.user.pk),
        "username": token.user.get_username(),
        "aud": token.resource[0],
        "scope": token.scope,
        "token_type": "Bearer",
        "exp": int(token.expires.timestamp()),
        "iat": int(token.created.timestamp()),
    }
