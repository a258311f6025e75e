"""Applies the part of ``gateway.yaml`` that is about pre-registered OAuth clients."""

from gateway_site import audit_trail
from gateway_site.config_changes import Applying, named, said
from gateway_site.config_file import ConfigurationRefused
from gateway_site.config_schema import ClientEntry, ClientPolicyEntry, State
from oauthserver import actions, client_review
from oauthserver.errors import ProtocolError
from oauthserver.models import OAuthClient
from oauthserver.token_values import secret_matches, stored_secret

SHORTEST_SECRET = 32


def apply_client_policy(entry: ClientPolicyEntry, applying: Applying) -> None:
    """Set which clients may come by themselves."""
    wanted = said(
        documents=entry.documents,
        registration=entry.registration,
        allowed_hosts=entry.allowed_hosts,
        advice=entry.advice,
        forget_after_days=entry.forget_after_days,
        machine_access=entry.machine_access,
    )
    with named("client_policy"):
        changed = client_review.set_policy(wanted, actor=applying.actor)
    what = "changed" if changed else "unchanged"
    applying.note("client policy", "", what, dict.fromkeys(changed))


def apply_client(entry: ClientEntry, path: str, applying: Applying) -> None:
    """Make, change or remove a pre-registered OAuth client."""
    client = OAuthClient.objects.filter(client_id=entry.client_id).first()
    if entry.state is State.ABSENT:
        if client is not None:
            actions.delete_client(client, actor=applying.actor)
        applying.note("client", entry.client_id, "removed" if client else "unchanged")
        return
    secret = _secret(entry, path, applying)
    created = client is None
    try:
        if client is None:
            client, _ = actions.preregister_client(
                name=entry.name or entry.client_id,
                redirect_uris_allowed=entry.redirect_uris or [],
                confidential=secret is not None,
                client_id=entry.client_id,
                actor=applying.actor,
            )
        changed = _update(client, entry, secret, path, applying)
    except ProtocolError as failure:
        raise ConfigurationRefused([(path, failure.description)]) from failure
    what = "created" if created else "changed" if changed else "unchanged"
    applying.note("client", entry.client_id, what, dict.fromkeys(changed))


def _secret(entry: ClientEntry, path: str, applying: Applying) -> str | None:
    if entry.secret is None:
        return None
    secret = applying.secret(f"{path}.secret", entry.secret)
    if len(secret) < SHORTEST_SECRET:
        # Only a digest is stored, which protects nothing that can be guessed.
        text = f"The secret is too short; use at least {SHORTEST_SECRET} random characters."
        raise ConfigurationRefused([(f"{path}.secret", text)])
    return secret


def _update(
    client: OAuthClient, entry: ClientEntry, secret: str | None, path: str, applying: Applying
) -> list[str]:
    """Bring an existing client to what the file says; return the names of what changed."""
    changed = actions.change_client(
        client, actor=applying.actor, name=entry.name, redirect_uris_allowed=entry.redirect_uris
    )
    if secret is not None and not secret_matches(secret, client.client_secret):
        if client.client_type != client.CLIENT_CONFIDENTIAL:
            text = "This client was registered without a secret. Remove it first (state: absent)."
            raise ConfigurationRefused([(f"{path}.secret", text)])
        client.client_secret = stored_secret(secret)
        client.save(update_fields=["client_secret", "updated"])
        audit_trail.record("client.secret_renewed", user=applying.actor, target=client.client_id)
        changed.append("secret")
    if entry.enabled is not None and client.enabled != entry.enabled:
        actions.set_client_enabled(client, entry.enabled, actor=applying.actor)
        changed.append("enabled")
    return changed
