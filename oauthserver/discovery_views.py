"""The well-known documents by which a client finds its way (RFC 9728, RFC 8414, OIDC).

Every address in them comes from ``PUBLIC_URL``, none from the request (security.md #2). They
are public and readable from any origin; nothing else of this room is.
"""

import logging
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.generic.base import View

from oauthserver import audience, direct_grants, identity_assertions, openid, scopes
from oauthserver.client_facts import AUTH_METHODS, GRANT_TYPES, SIGNING_ALGORITHMS
from oauthserver.errors import Unavailable
from oauthserver.json_answers import STORE_ERRORS, refusal
from oauthserver.models import ClientPolicy

MAX_AGE_SECONDS = 300
PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"
log = logging.getLogger(__name__)


def resource_metadata_url(resource_uri: str) -> str:
    """Return where the metadata of a resource is (RFC 9728 3.1), for challenges."""
    path = resource_uri.removeprefix(settings.PUBLIC_URL)
    return f"{settings.PUBLIC_URL}{PROTECTED_RESOURCE}{path}"


class PublicDocument(View):
    """A document that anybody may read, from any origin."""

    http_method_names = ["get", "head", "options"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer; while a store is down 503, so that nobody takes a guess for the document."""
        try:
            return super().dispatch(request, *args, **kwargs)
        except STORE_ERRORS:
            log.exception("A store failed at %s", request.path)
            response = refusal(Unavailable())
            response.headers["Access-Control-Allow-Origin"] = "*"
            return response

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Answer a preflight; clients in browsers send ``MCP-Protocol-Version``."""
        response = HttpResponse(status=204)
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Allow-Methods"] = "GET, HEAD, OPTIONS"
        response.headers["Access-Control-Allow-Headers"] = "*, MCP-Protocol-Version"
        response.headers["Access-Control-Max-Age"] = "3600"
        return response

    def respond(self, members: dict[str, Any] | None) -> HttpResponse:
        """Send a document, or the one 404 that every unknown path gets."""
        found = members is not None
        response = JsonResponse(members or {"error": "not_found"}, status=200 if found else 404)
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Cache-Control"] = (
            f"public, max-age={MAX_AGE_SECONDS}" if found else "no-store"
        )
        return response


class ProtectedResourceView(PublicDocument):
    """Metadata of one Virtual MCP. There is none at the root: an origin has many of them."""

    def get(self, request: HttpRequest, path: str = "") -> HttpResponse:
        """Send the document of the resource at ``path``."""
        resource = audience.find_resource(f"{settings.PUBLIC_URL}/{path}") if path else None
        if resource is None:
            return self.respond(None)
        return self.respond(
            {
                "resource": resource.uri,
                "authorization_servers": [settings.PUBLIC_URL],
                # offline_access is the authorization server's business (protocol.md c10).
                "scopes_supported": [scopes.DEFAULT_SCOPE],
                "bearer_methods_supported": ["header"],
                "resource_name": resource.title,
            }
        )


class AuthorizationServerView(PublicDocument):
    """Metadata of the one authorization server, also with an endpoint's path inserted."""

    def get(self, request: HttpRequest, path: str = "") -> HttpResponse:
        """Send the document, if there is a resource at ``path`` or no path at all."""
        if path and audience.find_resource(f"{settings.PUBLIC_URL}/{path}") is None:
            return self.respond(None)
        return self.respond(server_metadata())


def server_metadata() -> dict[str, Any]:
    """Return the authorization server's metadata (RFC 8414 2, clients.md 3.2)."""
    base = settings.PUBLIC_URL
    policy = ClientPolicy.current()
    direct = direct_grants.offered()
    methods = list(AUTH_METHODS)
    proofs = [method for method in methods if method != "none"]
    members = {
        "issuer": base,
        "authorization_endpoint": f"{base}/oauth/authorize",
        "token_endpoint": f"{base}/oauth/token",
        "revocation_endpoint": f"{base}/oauth/revoke",
        "introspection_endpoint": f"{base}/oauth/introspect",
        "scopes_supported": list(scopes.known_scopes()),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [*GRANT_TYPES, *direct],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": list(SIGNING_ALGORITHMS),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": list(SIGNING_ALGORITHMS),
        "introspection_endpoint_auth_methods_supported": proofs,
        "introspection_endpoint_auth_signing_alg_values_supported": list(SIGNING_ALGORITHMS),
        "client_id_metadata_document_supported": policy.documents != policy.Mode.OFF,
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
    }
    if policy.registration != policy.Mode.OFF:
        members["registration_endpoint"] = f"{base}/oauth/register"
    if identity_assertions.GRANT_TYPE in direct:
        members["authorization_grant_profiles_supported"] = [identity_assertions.PROFILE]
    return members | openid.metadata()
