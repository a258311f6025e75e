"""Rows that the tests of people's pages start from."""

from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.test import Client

from oauthserver.models import OAuthClient
from upstreams import accounts
from upstreams.models import CredentialKind, Upstream
from virtualmcp.models import UpstreamChoice, VirtualMcp

ORIGIN = "http://localhost:8000"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
REDIRECT = "https://chat.example/callback"
LOOPBACK = "http://localhost:33418/callback"


def person(name: str = "maria", **facts: Any) -> User:
    """Return a person who can sign in with the password ``correct-horse``."""
    return User.objects.create_user(name, f"{name}@example.com", "correct-horse", **facts)


def browser_of(user: User, *, enforce_csrf_checks: bool = False) -> Client:
    """Return a browser where ``user`` is signed in."""
    browser = Client(enforce_csrf_checks=enforce_csrf_checks, headers={"accept": "text/html"})
    browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return browser


def upstream(key: str, kind: str = CredentialKind.NONE, **facts: Any) -> Upstream:
    """Return an upstream at ``https://<key>.example/mcp``."""
    values = {"title": key.title(), "url": f"https://{key}.example/mcp", **facts}
    return Upstream.objects.create(key=key, credential_kind=kind, **values)


def server(slug: str, *upstreams: tuple[Upstream, bool], **facts: Any) -> VirtualMcp:
    """Return a Virtual MCP open to everyone over ``(upstream, required)`` pairs."""
    values = {"title": slug.title(), "audience": VirtualMcp.Audience.EVERYONE, **facts}
    made = VirtualMcp.objects.create(slug=slug, **values)
    for position, (one, required) in enumerate(upstreams):
        UpstreamChoice.objects.create(
            virtual_mcp=made, upstream=one, position=position, required=required
        )
    return made


def connect(user: User, one: Upstream) -> None:
    """Give ``user`` an account on an upstream that takes people's own keys."""
    accounts.save_user_key(user, one, "key-of-a-person", actor=user)


def oauth_client(name: str = "Chat", redirect: str = REDIRECT, source: str = "dcr") -> OAuthClient:
    """Return a client as it is after registration."""
    metadata_url = "https://chat.example/client.json"
    return OAuthClient.objects.create(
        client_id=metadata_url if source == "cimd" else f"client-{OAuthClient.objects.count()}",
        name=name,
        redirect_uris=redirect,
        registration_source=source,
        client_type=OAuthClient.CLIENT_PUBLIC,
        authorization_grant_type=OAuthClient.GRANT_AUTHORIZATION_CODE,
    )


def resource(slug: str) -> str:
    """Return the address of a Virtual MCP."""
    return f"{ORIGIN}/v1/mcp/{slug}"


def authorize_address(client: OAuthClient, slug: str = "", **changes: str) -> str:
    """Return the path and query that a client opens in the browser."""
    asked = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uris.split()[0],
        "scope": "mcp:tools",
        "state": "state-of-the-client",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    if slug:
        asked["resource"] = resource(slug)
    return f"/oauth/authorize?{urlencode(asked | changes)}"
