"""Everything that changes clients and tokens: check, change and audit in one place.

Pages, the admin, the API and commands call these, so that they behave alike. ``actor`` is the
user who acts, or None for the gateway itself.
"""

from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from oauth2_provider.models import (
    get_access_token_model,
    get_grant_model,
    get_refresh_token_model,
)

from oauthserver import held_rows, redirect_uris, token_families
from oauthserver.client_facts import GRANT_TYPES, SECRET_METHODS, ClientFacts
from oauthserver.errors import LocalRefusal, ProtocolError
from oauthserver.models import OAuthClient, ServiceAccount
from oauthserver.signals import audit
from oauthserver.token_values import (
    digest,
    new_client_id,
    new_client_secret,
    new_registration_token,
)


def register_client(facts: ClientFacts, *, address: str) -> tuple[OAuthClient, str | None, str]:
    """Store a client that registers itself; returns it, its secret if it has one, and the
    token with which it may read and change its registration (RFC 7592).

    Args:
        address: where the registration came from, for the audit trail.
    """
    client = OAuthClient(client_id=new_client_id())
    client.registration_source = client.RegistrationSource.DCR
    client.take(facts)
    secret = give_secret(client) if facts.auth_method in SECRET_METHODS else None
    registration_token = new_registration_token()
    client.registration_token = digest(registration_token)
    with transaction.atomic():
        client.save()
        tell("client.registered", client, address=address, redirect_uris=list(facts.redirect_uris))
    return client, secret, registration_token


def preregister_client(
    *,
    name: str,
    redirect_uris_allowed: list[str],
    confidential: bool,
    actor: Any,
    client_id: str = "",
) -> tuple[OAuthClient, str | None]:
    """Store a client on an administrator's word; returns it with its secret, shown once.

    Args:
        redirect_uris_allowed: private-use schemes are accepted here, dangerous ones are not.
        confidential: whether it gets a secret; it may then send it in either way.
        client_id: chosen by the administrator, or "" for a new one.

    Raises:
        ProtocolError: ``invalid_redirect_uri`` or ``invalid_client_metadata``.
    """
    check_redirect_uris(redirect_uris_allowed)
    methods = SECRET_METHODS if confidential else ("none",)
    client = OAuthClient(client_id=client_id or new_client_id(), name=name)
    client.registration_source = client.RegistrationSource.MANUAL
    client.redirect_uris = " ".join(redirect_uris_allowed)
    client.authorization_grant_type = client.GRANT_AUTHORIZATION_CODE
    client.client_type = client.CLIENT_CONFIDENTIAL if confidential else client.CLIENT_PUBLIC
    client.client_secret = ""
    client.hash_client_secret = False
    client.token_endpoint_auth_method = methods[0]
    client.metadata = {"auth_methods": list(methods), "grant_types": list(GRANT_TYPES)}
    client.approved_at = timezone.now()
    secret = give_secret(client) if confidential else None
    try:
        with transaction.atomic():
            client.save()
            tell("client.preregistered", client, actor, redirect_uris=redirect_uris_allowed)
    except IntegrityError:
        raise ProtocolError("invalid_client_metadata", "The client ID is taken.") from None
    return client, secret


def check_redirect_uris(uris: list[str]) -> None:
    """Check what an administrator lists for a client.

    Raises:
        ProtocolError: ``invalid_redirect_uri``; the description says which rule is broken.
    """
    if not uris:
        raise ProtocolError("invalid_redirect_uri", "Give at least one redirect URI.")
    for uri in uris:
        problem = redirect_uris.problem_with(uri, any_private_scheme=True)
        if problem:
            sentence = problem[0].upper() + problem[1:]
            raise ProtocolError("invalid_redirect_uri", f"{sentence}: {uri[:100]}")


def change_client(
    client: OAuthClient,
    *,
    actor: Any,
    name: str | None = None,
    redirect_uris_allowed: list[str] | None = None,
) -> list[str]:
    """Change a client that an administrator registered; returns the names of what changed.

    Raises:
        ProtocolError: a redirect URI is not acceptable, or the client registered itself.
    """
    if client.registration_source != client.RegistrationSource.MANUAL:
        raise ProtocolError("invalid_client_metadata", "This client describes itself.")
    wanted: dict[str, str] = {}
    if name is not None:
        wanted["name"] = name
    if redirect_uris_allowed is not None:
        check_redirect_uris(redirect_uris_allowed)
        wanted["redirect_uris"] = " ".join(redirect_uris_allowed)
    changed = [field for field, value in wanted.items() if getattr(client, field) != value]
    if changed:
        with transaction.atomic():
            for field in changed:
                setattr(client, field, wanted[field])
            client.save(update_fields=[*changed, "updated"])
            tell("client.changed", client, actor, members=changed)
    return changed


def renew_client_secret(client: OAuthClient, *, actor: Any) -> str:
    """Give a confidential client a new secret; the old one stops working at once.

    Raises:
        ProtocolError: the client has no secret to renew.
    """
    if not client.auth_methods & set(SECRET_METHODS):
        raise ProtocolError("invalid_client_metadata", "This client does not use a secret.")
    with transaction.atomic():
        secret = give_secret(client)
        client.save(update_fields=["client_secret", "hash_client_secret", "updated"])
        tell("client.secret_renewed", client, actor)
    return secret


def approve_client(client: OAuthClient) -> OAuthClient:
    """Note that a person approved the client; the first approval keeps it (``expiry``).

    A client known only by its metadata document gets its row here. Call inside a transaction;
    the client stays as it is until its end.

    Raises:
        LocalRefusal: it was removed, switched off or refused a moment ago.
    """
    client = stored_client(client)
    held: OAuthClient | None = (
        OAuthClient.objects.select_for_update(no_key=True).filter(pk=client.pk).first()
    )
    if held is None or not held.is_usable(None):
        raise LocalRefusal(
            "invalid_client",
            "This client was removed or switched off a moment ago. Ask your administrator.",
        )
    held.last_used_at = timezone.now()
    held.approved_at = held.approved_at or held.last_used_at
    held.save(update_fields=["approved_at", "last_used_at"])
    return held


def stored_client(client: OAuthClient) -> OAuthClient:
    """Return the row of a client, which one that is known only by its metadata document gets here.

    Call inside a transaction.
    """
    if client.pk is not None:
        return client
    stored: OAuthClient | None = OAuthClient.objects.filter(client_id=client.client_id).first()
    if stored is not None:
        return stored
    try:
        with transaction.atomic():
            client.save()
    except IntegrityError:
        # Somebody else's first approval of the same client was a moment faster.
        stored = OAuthClient.objects.get(client_id=client.client_id)
    return stored or client


def note_approval(client: OAuthClient) -> None:
    """Note that the company vouched for a person through the client, which approves it too."""
    now = timezone.now()
    OAuthClient.objects.filter(pk=client.pk, approved_at=None).update(approved_at=now)


def set_client_enabled(client: OAuthClient, enabled: bool, *, actor: Any) -> None:
    """Switch a client on or off; off ends every token it holds at once."""
    with transaction.atomic():
        client.enabled = enabled
        client.save(update_fields=["enabled", "updated"])
        if not enabled:
            end_tokens(application=client)
        tell("client.enabled" if enabled else "client.disabled", client, actor)


def revoke_client_for_user(user: Any, client: OAuthClient, *, actor: Any) -> int:
    """Sign one client out for one person; returns how many tokens ended."""
    with transaction.atomic():
        ended = end_tokens(user=user, application=client)
        tell("client.revoked_for_user", client, actor, user=user.get_username(), tokens=ended)
    return ended


def revoke_tokens(
    *, actor: Any, user: Any = None, client: OAuthClient | None = None, resource: str = ""
) -> int:
    """End the tokens of a person, a client, for a resource, or what these have in common.

    Args:
        resource: URI of a Virtual MCP.

    Raises:
        ValueError: nothing was named; ending everybody's tokens is never meant by omission.
    """
    chosen: dict[str, Any] = {}
    if user is not None:
        chosen["user"] = user
    if client is not None:
        chosen["application"] = client
    if not chosen and not resource:
        raise ValueError("name a user, a client or a resource")
    with transaction.atomic():
        ended = end_tokens(resource=resource, **chosen)
        audit.send(
            sender=OAuthClient,
            kind="token.revoked",
            user=actor,
            target=client.client_id if client else resource,
            details={"tokens": ended, "of": user.get_username() if user else ""},
            address="",
        )
    return ended


def delete_client(client: OAuthClient, *, actor: Any) -> None:
    """Delete a client with all its tokens; it has to register again.

    A service account goes with its client, and so does the account in whose name it acted.
    """
    with transaction.atomic():
        account = ServiceAccount.objects.select_related("user").filter(client=client).first()
        if account is not None:
            held_rows.take(account.user)
        held_rows.take(client)
        end_tokens(application=client)
        kind = "client.deleted" if account is None else "client.service_account_deleted"
        people = {} if account is None else {"account": account.user.get_username()}
        tell(kind, client, actor, **people)
        client.delete()
        if account is not None:
            account.user.delete()


def end_tokens(*, resource: str = "", **chosen: Any) -> int:
    """End the tokens and codes of whatever is chosen; returns how many tokens ended."""
    refresh_tokens = get_refresh_token_model().objects.filter(revoked__isnull=True, **chosen)
    access_tokens = get_access_token_model().objects.filter(**chosen)
    grants = get_grant_model().objects.filter(**chosen)
    if resource:
        # A JSON list of exactly one; compared as a whole, as SQLite has no containment.
        refresh_tokens = refresh_tokens.filter(resource=[resource])
        access_tokens = access_tokens.filter(resource=[resource])
        grants = grants.filter(resource=[resource])
    # Codes first: a redemption under way holds its code's row, and is waited for; what it
    # brings is found below.
    grants.delete()
    held_rows.hold_live(refresh_tokens)
    now = timezone.now()
    ended = refresh_tokens.update(revoked=now, updated=now)
    deleted, by_model = access_tokens.delete()
    token_families.tell_everyone()
    return int(ended) + int(by_model.get(get_access_token_model()._meta.label, deleted))


def give_secret(client: OAuthClient) -> str:
    """Set a new secret and return it; the caller saves."""
    secret, client.client_secret = new_client_secret()
    client.hash_client_secret = False
    return secret


def tell(
    kind: str, client: OAuthClient, actor: Any = None, address: str = "", **details: Any
) -> None:
    """Tell the audit trail what happened to a client."""
    facts = {
        "name": client.name,
        "source": client.registration_source,
        **{
            key: list(value) if isinstance(value, tuple) else value
            for key, value in details.items()
        },
    }
    audit.send(
        sender=OAuthClient,
        kind=kind,
        user=actor,
        target=client.client_id,
        details=facts,
        address=address,
    )
