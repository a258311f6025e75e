"""Applies a ``gateway.yaml``: all of it in one transaction, or nothing.

Every change goes through the same actions as the admin's, so checks, audit and caches
behave alike. Applying the same file twice changes nothing the second time.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction

from gateway_site import audit_trail
from gateway_site.config_changes import Applying, Change
from gateway_site.config_clients import apply_client, apply_client_policy
from gateway_site.config_file import ConfigurationRefused, SecretReferences
from gateway_site.config_machines import apply_service_account, apply_trusted_issuer
from gateway_site.config_people import (
    apply_group,
    apply_site,
    apply_user,
)
from gateway_site.config_providers import apply_identity_provider, apply_scim_token
from gateway_site.config_schema import Configuration
from gateway_site.config_servers import apply_upstream, apply_virtual_mcp


def check(configuration: Configuration, secrets: SecretReferences) -> None:
    """Refuse what can be refused without looking at the database, all problems at once.

    Raises:
        ConfigurationRefused: an object is named twice, or a secret cannot be resolved.
    """
    problems = [*_repeated(configuration), *_unresolved(configuration, secrets)]
    if problems:
        raise ConfigurationRefused(problems)


def _repeated(configuration: Configuration) -> Iterable[tuple[str, str]]:
    identities: dict[str, Callable[[Any], str]] = {
        "groups": lambda entry: entry if isinstance(entry, str) else entry.name,
        "users": lambda entry: entry.username,
        "identity_providers": lambda entry: entry.id,
        "scim_tokens": lambda entry: entry.name,
        "upstreams": lambda entry: entry.key,
        "virtual_mcps": lambda entry: entry.slug,
        "clients": lambda entry: entry.client_id,
        "trusted_issuers": lambda entry: entry.issuer,
        "service_accounts": lambda entry: entry.client_id,
    }
    for part, identity in identities.items():
        seen: set[str] = set()
        for position, entry in enumerate(getattr(configuration, part)):
            name = identity(entry)
            if name in seen:
                yield f"{part}[{position}]", f"{name} is named twice."
            seen.add(name)


def _unresolved(
    configuration: Configuration, secrets: SecretReferences
) -> Iterable[tuple[str, str]]:
    references: list[tuple[str, str | None]] = []
    for position, user in enumerate(configuration.users):
        references.append((f"users[{position}].password", user.password))
    for position, provider in enumerate(configuration.identity_providers):
        path = f"identity_providers[{position}].client_secret"
        references.append((path, provider.client_secret))
    for position, token in enumerate(configuration.scim_tokens):
        references.append((f"scim_tokens[{position}].secret", token.secret))
    for position, upstream in enumerate(configuration.upstreams):
        references.append((f"upstreams[{position}].secret", upstream.secret))
        if upstream.oauth is not None:
            path = f"upstreams[{position}].oauth.client_secret"
            references.append((path, upstream.oauth.client_secret))
    for position, client in enumerate(configuration.clients):
        references.append((f"clients[{position}].secret", client.secret))
    for path, reference in references:
        problem = secrets.problem_with(reference) if reference is not None else ""
        if problem:
            yield path, problem


def apply(
    configuration: Configuration,
    secrets: SecretReferences,
    *,
    actor: Any = None,
    dry_run: bool = False,
) -> list[Change]:
    """Make the gateway what the file says; with ``dry_run`` only find out what would change.

    Raises:
        ConfigurationRefused: something does not fit; nothing has been changed then.
    """
    check(configuration, secrets)
    applying = Applying(secrets, [], actor)
    with transaction.atomic():
        _apply_parts(configuration, applying)
        if any(change.what != "unchanged" for change in applying.changes):
            counts: dict[str, int] = {}
            for change in applying.changes:
                counts[change.what] = counts.get(change.what, 0) + 1
            audit_trail.record("configuration.applied", user=actor, details=counts)
        if dry_run:
            transaction.set_rollback(True)
    return applying.changes


def _apply_parts(configuration: Configuration, applying: Applying) -> None:
    """Apply in the order in which objects refer to each other; remove in the reverse order."""
    if configuration.site is not None:
        apply_site(configuration.site, applying)
    if configuration.client_policy is not None:
        apply_client_policy(configuration.client_policy, applying)
    parts: list[tuple[str, Callable[[Any, str, Applying], None]]] = [
        ("groups", lambda entry, path, applying: apply_group(entry, applying)),
        ("users", apply_user),
        ("identity_providers", apply_identity_provider),
        ("scim_tokens", apply_scim_token),
        ("upstreams", apply_upstream),
        ("virtual_mcps", apply_virtual_mcp),
        ("clients", apply_client),
        ("trusted_issuers", apply_trusted_issuer),
        ("service_accounts", apply_service_account),
    ]
    for name, apply_one in parts:
        for position, entry in enumerate(getattr(configuration, name)):
            if not _is_removal(entry):
                apply_one(entry, f"{name}[{position}]", applying)
    for name, apply_one in reversed(parts):
        for position, entry in enumerate(getattr(configuration, name)):
            if _is_removal(entry):
                apply_one(entry, f"{name}[{position}]", applying)


def _is_removal(entry: Any) -> bool:
    return getattr(entry, "state", "present") == "absent"
