"""``/oauth/userinfo`` and ``/oauth/jwks``; both are unknown addresses without a signing key."""

from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse

from oauthserver import openid
from oauthserver.bearer_tokens import TokenRefusal, holder_for_any_resource
from oauthserver.discovery_views import PublicDocument
from oauthserver.json_answers import ProgramView, answer


class JwksView(PublicDocument):
    """The keys that ID tokens are signed with."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Send the key set."""
        return self.respond(openid.key_set() if openid.enabled() else None)


class UserInfoView(ProgramView):
    """The UserInfo endpoint (OpenID Connect Core 5.3); the token comes in the header only."""

    allowed = ("GET", "POST")

    def respond(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        """Say who the token's person is."""
        if not openid.enabled():
            return answer({"error": "not_found"}, 404)
        header = request.META.get("HTTP_AUTHORIZATION")
        values = [header.encode("utf-8", "replace")] if header else []
        holder = holder_for_any_resource(values)
        if isinstance(holder, TokenRefusal):
            return _refused(401, holder.error, holder.description)
        if "openid" not in holder.scopes:
            return _refused(403, "insufficient_scope", "The token lacks the scope 'openid'.")
        user = get_user_model().objects.get(pk=holder.user_id)
        return answer(openid.claims_for(user, holder.scopes))


def _refused(status: int, error: str, description: str) -> HttpResponse:
    response = answer({"error": error or "invalid_token", "error_description": description}, status)
    challenge = 'Bearer scope="openid"' + (f', error="{error}"' if error else "")
    response.headers["WWW-Authenticate"] = challenge
    return response
