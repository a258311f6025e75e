"""Accounts for programs without a person: made by an administrator, for chosen Virtual MCPs.

A service account is a client that signs who it is (``private_key_jwt``, d19) and an account of
its own, in whose name its calls are logged and whose groups say which tools access rules leave it.
It has no password and cannot sign in. Nothing of it works while the client policy has machine
access off.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from oauthserver import audience
from oauthserver.actions import delete_client, end_tokens, tell
from oauthserver.client_facts import checked_jwks, checked_jwks_uri
from oauthserver.errors import ProtocolError
from oauthserver.models import ClientPolicy, OAuthClient, ServiceAccount
from oauthserver.token_values import new_client_id

METHOD = "private_key_jwt"
USER_PREFIX = "service-"


def enabled() -> bool:
    """Whether machine access is switched on."""
    return ClientPolicy.current().machine_access


def account_of(client: OAuthClient) -> ServiceAccount | None:
    """Return the service account of a client, if it has one that is active."""
    found = ServiceAccount.objects.select_related("user").filter(client=client).first()
    return found if found is not None and found.user.is_active else None


def create(
    name: str,
    *,
    resources: list[str],
    jwks: dict[str, Any] | None = None,
    jwks_uri: str = "",
    client_id: str = "",
    actor: Any,
) -> ServiceAccount:
    """Make a service account.

    Args:
        resources: addresses of the Virtual MCPs it may use.
        jwks: its public keys, or
        jwks_uri: where it publishes them.

    Raises:
        ProtocolError: ``invalid_client_metadata`` for unusable keys or a name that is taken,
            ``invalid_target`` for an unknown resource.
    """
    check(resources, jwks, jwks_uri)
    users = get_user_model().objects
    client = OAuthClient(client_id=client_id or new_client_id(), name=name)
    username = USER_PREFIX + client.client_id[-40:]
    taken = OAuthClient.objects.filter(client_id=client.client_id).exists()
    if taken or users.filter(username=username).exists():
        raise ProtocolError("invalid_client_metadata", "The client ID is taken.")
    client.registration_source = client.RegistrationSource.MANUAL
    client.authorization_grant_type = client.GRANT_CLIENT_CREDENTIALS
    client.client_type = client.CLIENT_CONFIDENTIAL
    client.client_secret, client.hash_client_secret = "", False
    client.token_endpoint_auth_method = METHOD
    client.metadata = {"auth_methods": [METHOD], "grant_types": ["client_credentials"]}
    client.jwks, client.jwks_uri = jwks, jwks_uri
    with transaction.atomic():
        user = users.create_user(username, first_name=name[:150])
        client.save()
        account = ServiceAccount.objects.create(client=client, user=user, resources=resources)
        tell("client.service_account_made", client, actor, resources=resources)
    return account


def change(
    account: ServiceAccount,
    *,
    resources: list[str],
    jwks: dict[str, Any] | None = None,
    jwks_uri: str = "",
    actor: Any,
) -> list[str]:
    """Change what an account may use and by which keys it is known; returns what changed.

    Tokens for what it lost, or all of them with other keys, end at once.

    Raises:
        ProtocolError: as ``create``.
    """
    client = account.client
    lost = set(account.resources) - set(resources)
    other_keys = (client.jwks, client.jwks_uri) != (jwks, jwks_uri)
    changed = ["keys"] if other_keys else []
    if set(account.resources) != set(resources):
        changed.append("resources")
    if not changed:
        # What was chosen once may be switched off or gone by now; then it opens nothing.
        return []
    check(resources, jwks, jwks_uri)
    with transaction.atomic():
        account.resources = resources
        account.save(update_fields=["resources"])
        client.jwks, client.jwks_uri = jwks, jwks_uri
        client.save(update_fields=["jwks", "jwks_uri", "updated"])
        if other_keys:
            end_tokens(application=client)
        for resource in lost:
            end_tokens(application=client, resource=resource)
        tell("client.service_account_changed", client, actor, members=changed, resources=resources)
    return changed


def delete(account: ServiceAccount, *, actor: Any) -> None:
    """Remove an account with its client and tokens."""
    delete_client(account.client, actor=actor)


def check(resources: list[str], jwks: dict[str, Any] | None, jwks_uri: str) -> None:
    """Check what an account may use and by which keys it is known.

    Raises:
        ProtocolError: as ``create``.
    """
    if bool(jwks) == bool(jwks_uri):
        raise ProtocolError("invalid_client_metadata", "Give either keys or where they are.")
    checked_jwks(jwks)
    checked_jwks_uri(jwks_uri or None)
    if not resources:
        raise ProtocolError("invalid_target", "Choose at least one Virtual MCP.")
    for uri in resources:
        found = audience.find_resource(uri)
        if found is None or found.uri != uri:
            raise ProtocolError("invalid_target", f"There is no Virtual MCP at {uri[:200]}.")
