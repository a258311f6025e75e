"""Applies the part of ``gateway.yaml`` that is about identity providers."""

from typing import Any

from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import Group

from gateway_site import people_actions
from gateway_site.config_changes import Applying, differing, named, said
from gateway_site.config_file import ConfigurationRefused
from gateway_site.config_schema import IdentityProviderEntry, ScimTokenEntry, State
from gateway_site.identity.presets import preset_of
from gateway_site.models import ScimToken
from gateway_site.scim import tokens


def apply_identity_provider(entry: IdentityProviderEntry, path: str, applying: Applying) -> None:
    """Make, change or remove an OpenID Connect provider."""
    app = SocialApp.objects.filter(provider_id=entry.id).first()
    if entry.state is State.ABSENT:
        if app is not None:
            people_actions.delete_identity_provider(app, actor=applying.actor)
        applying.note("identity provider", entry.id, "removed" if app else "unchanged")
        return
    created = app is None
    app = app or SocialApp(provider_id=entry.id)
    changed = differing(app, said(name=entry.name, client_id=entry.client_id))
    settings = _settings(entry, app.settings or {})
    if settings != app.settings:
        changed["settings"] = settings
    secret = None
    if entry.client_secret is not None:
        given = applying.secret(f"{path}.client_secret", entry.client_secret)
        secret = given if given != people_actions.provider_secret(app) else None
    if created or changed or secret is not None:
        with named(path):
            people_actions.save_identity_provider(app, changed, secret=secret, actor=applying.actor)
    if secret is not None:
        changed["client_secret"] = None
    if entry.group_mapping is not None:
        pairs = _pairs(entry.group_mapping, f"{path}.group_mapping")
        if people_actions.set_group_mapping(app, pairs, actor=applying.actor):
            changed["group_mapping"] = None
    what = "created" if created else "changed" if changed else "unchanged"
    applying.note("identity provider", entry.id, what, changed)


def _settings(entry: IdentityProviderEntry, stored: dict[str, Any]) -> dict[str, Any]:
    preset = preset_of(entry.preset or str(stored.get("preset", "")))
    issuer = None
    if entry.server_url is not None or (entry.preset is not None and "{}" not in preset.issuer):
        issuer = preset.issuer_for(entry.server_url or "")
    return {
        **stored,
        **said(
            preset=entry.preset,
            server_url=issuer,
            only_known_people=entry.only_known_people,
            verified_email=entry.trust_addresses,
            scope=entry.scopes,
            groups_claim=entry.groups_claim,
            groups_by_name=entry.groups_by_name,
            allowed_domains=entry.allowed_domains,
            allowed_groups=entry.allowed_groups,
            sign_in_domains=entry.sign_in_domains,
            sign_out_there=entry.sign_out_there,
            sign_out_ends_access=entry.sign_out_ends_access,
            recheck_minutes=entry.recheck_minutes,
            sign_in_days=entry.sign_in_days,
            staff_groups=entry.staff_groups,
            administrator_groups=entry.administrator_groups,
        ),
    }


def _pairs(mapping: dict[str, list[str] | str], path: str) -> set[tuple[str, Group]]:
    pairs = set()
    for value, given in mapping.items():
        for name in [given] if isinstance(given, str) else given:
            group = Group.objects.filter(name=name).first()
            if group is None:
                text = f"There is no group {name}. Name it under groups."
                raise ConfigurationRefused([(path, text)])
            pairs.add((value, group))
    return pairs


def apply_scim_token(entry: ScimTokenEntry, path: str, applying: Applying) -> None:
    """Make, change or remove a token of a directory."""
    row = ScimToken.objects.filter(name=entry.name).first()
    if entry.state is State.ABSENT:
        if row is not None:
            tokens.delete(row, actor=applying.actor)
        applying.note("SCIM token", entry.name, "removed" if row else "unchanged")
        return
    if entry.secret is None:
        if row is None:
            raise ConfigurationRefused([(f"{path}.secret", "Name where the token is to be read.")])
        applying.note("SCIM token", entry.name, "unchanged")
        return
    value = applying.secret(f"{path}.secret", entry.secret)
    with named(path):
        if row is None:
            tokens.create(entry.name, actor=applying.actor, value=value)
        elif not tokens.has_value(row, value):
            tokens.replace(row, value, actor=applying.actor)
        else:
            applying.note("SCIM token", entry.name, "unchanged")
            return
    applying.note("SCIM token", entry.name, "changed" if row else "created", {"secret": None})
