"""Signing in with an OpenID provider, as a browser does it."""

from typing import Any
from urllib.parse import urlencode, urlsplit

from allauth.socialaccount.models import SocialApp
from django.core.cache import cache
from django.test import Client

from gateway_site import people_actions
from tests.fakes.openid_provider import OpenIdProvider


def browser() -> Client:
    """A browser that nobody has used yet."""
    return Client(SERVER_NAME="localhost", SERVER_PORT="8000")


def configured(provider: OpenIdProvider, name: str = "company", **settings: Any) -> SocialApp:
    """Set the provider up in the gateway."""
    cache.clear()
    app = SocialApp(provider_id=name, name=name.capitalize())
    values = {
        "client_id": provider.client_id,
        "settings": {"server_url": provider.url, **settings},
    }
    people_actions.save_identity_provider(app, values, secret=provider.client_secret, actor=None)
    return app


def change(app: SocialApp, **settings: Any) -> None:
    """Change settings of a provider."""
    app.refresh_from_db()
    values = {"settings": {**app.settings, **settings}}
    people_actions.save_identity_provider(app, values, actor=None)


def leave(client: Client, name: str = "company", going_to: str = "/", **form: str) -> Any:
    """Press the button of a provider; return the answer, which leads there."""
    return client.post(f"/accounts/oidc/{name}/login/?{urlencode({'next': going_to})}", form)


def arrive(
    client: Client,
    provider: OpenIdProvider,
    name: str = "company",
    going_to: str = "/",
    **more: str,
) -> Any:
    """Sign in with a provider; return the gateway's answer to the browser's return."""
    sent = leave(client, name, going_to)
    assert sent.status_code == 302, sent.content.decode()
    assert sent.headers["Location"].startswith(f"{provider.url}/authorize?")
    answer = provider.answer_to(sent.headers["Location"]) | more
    return client.get(f"/accounts/oidc/{name}/login/callback/", answer)


def signed_in(client: Client) -> bool:
    """Tell whether somebody is signed in in this browser."""
    return "_auth_user_id" in client.session


def path_of(address: str) -> str:
    """Return the path of an address."""
    return urlsplit(address).path
