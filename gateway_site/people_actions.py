"""Everything that changes people, groups and identity providers: check, change, audit.

The admin and ``gateway_apply`` call these, so that both behave alike. ``actor`` is the
administrator who acts, None for the command line.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import transaction

from gateway_site import audit_trail, identity_grants, people_sessions, rights
from gateway_site.identity import group_sync, roles
from gateway_site.identity.presets import preset_of
from gateway_site.identity.provider_facts import check_settings, facts_of
from gateway_site.models import GroupMapping, SiteProfile
from gateway_site.page_context import forget_profile
from gateway_site.sign_in import SEALED_SECRET, secret_owner
from oauthserver import held_rows, issuer_subjects, service_accounts
from oauthserver.actions import end_tokens, revoke_tokens
from oauthserver.models import ServiceAccount
from upstreams import token_vault


class AddressTaken(ValidationError):
    """An address that is verified for another account."""


@transaction.atomic
def update_site(profile: SiteProfile, values: Mapping[str, Any], *, actor: Any) -> None:
    """Change the site's settings.

    Raises:
        ValidationError: a value does not fit.
    """
    for name, value in values.items():
        setattr(profile, name, value)
    profile.full_clean()
    profile.save()
    forget_profile()
    audit_trail.record("site.changed", user=actor, details={"fields": sorted(values)})


@transaction.atomic
def create_group(name: str, *, actor: Any, by: str = "") -> Group:
    """Make a group.

    Args:
        by: who acts where it is no person, such as ``scim:entra``.

    Raises:
        ValidationError: the name is empty, too long or taken.
    """
    group = Group(name=name)
    group.full_clean()
    group.save()
    audit_trail.record("group.changed", user=actor, target=name, details=_by(by))
    return group


@transaction.atomic
def rename_group(group: Group, name: str, *, actor: Any, by: str = "") -> None:
    """Give a group another name; who is in it and what it opens stays.

    Raises:
        ValidationError: the name is empty, too long or taken.
        PermissionDenied: the group gives more than who acts has.
    """
    rights.require_group(actor, group)
    before, group.name = group.name, name
    group.full_clean()
    group.save()
    details = {"before": before, **_by(by)}
    audit_trail.record("group.changed", user=actor, target=name, details=details)


@transaction.atomic
def delete_group(group: Group, *, actor: Any, by: str = "") -> None:
    """Delete a group: its people lose what only it gave them.

    Raises:
        PermissionDenied: the group gives more than who acts has.
    """
    rights.require_group(actor, group)
    group.delete()
    audit_trail.record("group.deleted", user=actor, target=group.name, details=_by(by))


def _by(by: str) -> dict[str, str]:
    return {"by": by} if by else {}


@transaction.atomic
def save_person(
    user: User,
    values: Mapping[str, Any],
    *,
    password: str | None = None,
    actor: Any,
    by: str = "",
) -> None:
    """Make or change an account; ``values`` may hold ``groups``, a list.

    A new account without a password can only sign in by an identity provider. Switching one off
    ends its browser sessions and tokens: switching it on again does not bring them back.

    Raises:
        ValidationError: a value does not fit, or the name is taken.
        AddressTaken: another account signs in with this address.
    """
    created = user.pk is None
    for name, value in values.items():
        if name != "groups":
            setattr(user, name, value)
    if password is not None:
        user.set_password(password)
    elif created:
        user.set_unusable_password()
    user.full_clean()
    check_address(user.email, user.pk)
    user.save()
    if "groups" in values:
        user.groups.set(values["groups"])
    if created or "email" in values:
        keep_address(user)
    if not created and values.get("is_active") is False:
        end_access(user, actor=actor)
    details = {
        "fields": sorted(values),
        "created": created,
        "password_set": password is not None,
        **({"active": values["is_active"]} if "is_active" in values else {}),
        **_by(by),
    }
    audit_trail.record("person.changed", user=actor, target=user.username, details=details)


def check_address(email: str, owner: int | None) -> None:
    """Check that no other account has this address as its verified one.

    Raises:
        AddressTaken: one has.
    """
    others = EmailAddress.objects.filter(email__iexact=email, verified=True)
    if email and others.exclude(user_id=owner).exists():
        raise AddressTaken({"email": "Another account signs in with this address."})


def keep_address(user: User) -> None:
    """Make the account's e-mail address its one verified address for sign-in.

    The word of who entered it, an administrator or a directory, is what verifies it; so not for
    any other change of an account, whose address may be what a provider only repeated.
    """
    EmailAddress.objects.filter(user=user).exclude(email__iexact=user.email).delete()
    if user.email:
        EmailAddress.objects.update_or_create(
            user=user, email=user.email.lower(), defaults={"verified": True, "primary": True}
        )


@transaction.atomic
def delete_person(user: User, *, actor: Any, by: str = "") -> None:
    """Delete an account with its sessions, tokens and upstream accounts.

    The account of a service account goes with its client.

    Raises:
        PermissionDenied: the person may do more than who acts.
    """
    rights.require_person(actor, user)
    name = user.username
    service = ServiceAccount.objects.select_related("client", "user").filter(user=user).first()
    if service is not None:
        service_accounts.delete(service, actor=actor)
    else:
        held_rows.take(user)
        people_sessions.end_all(user)
        # A request under way is waited for: what it brings must not stand in the way.
        end_tokens(user=user)
        user.delete()
    audit_trail.record("person.deleted", user=actor, target=name, details=_by(by))


@transaction.atomic
def end_access(user: User, *, actor: Any, keep_session: str = "") -> None:
    """Sign a person out everywhere: every browser session, and every token of every client.

    Connected upstream accounts and consents stay: the clients have to be let in again, and the
    person does not have to connect anything again.

    Args:
        keep_session: key of a session that stays, for people who sign out everywhere else.

    Raises:
        PermissionDenied: the person may do more than who acts.
    """
    rights.require_person(actor, user)
    ended = people_sessions.end_all(user, keep=keep_session)
    revoke_tokens(user=user, actor=actor)
    identity_grants.forget(user.pk)
    audit_trail.record(
        "person.access_ended", user=actor, target=user.get_username(), details={"sessions": ended}
    )


def provider_secret(app: SocialApp) -> str:
    """Open a provider's client secret, "" if it has none."""
    sealed = app.settings.get(SEALED_SECRET)
    if not sealed:
        return ""
    return token_vault.open_sealed(sealed, secret_owner(app.provider_id)).decode()


@transaction.atomic
def save_identity_provider(
    app: SocialApp, values: Mapping[str, Any], *, secret: str | None = None, actor: Any
) -> None:
    """Make or change an OpenID Connect provider; the secret is kept sealed.

    Raises:
        ValidationError: a value does not fit.
        PermissionDenied: who acts is no full administrator.
    """
    rights.require_all(actor)
    before = _asks_as(SocialApp.objects.filter(pk=app.pk).first())
    for name, value in values.items():
        setattr(app, name, value)
    preset = preset_of(str(app.settings.get("preset", "")))
    entered = str(app.settings.get("server_url", ""))
    app.settings = {**app.settings, "server_url": preset.issuer_for(entered)}
    app.provider_id = app.provider_id or preset.key
    app.provider = "saml" if preset.key == "saml" else "openid_connect"
    if app.provider == "saml":
        # What the library finds a SAML provider by.
        app.client_id = app.provider_id
    app.name = app.name or preset.title
    validate_slug(app.provider_id)
    check_settings(app.settings)
    if not app.client_id:
        raise ValidationError({"client_id": "Give the client ID that the provider assigned."})
    if secret is not None:
        sealed = token_vault.seal(secret.encode(), secret_owner(app.provider_id)) if secret else ""
        app.settings = {**app.settings, SEALED_SECRET: sealed}
    app.secret = ""
    app.full_clean()
    app.save()
    if before != _asks_as(app):
        identity_grants.forget_provider(app.provider_id)
    issuer_subjects.learn_addresses(app.provider_id)
    # What a group gives no more is taken at once.
    roles.withdraw(f"oidc:{app.provider_id}", roles.configured(facts_of(app)))
    details = {"fields": sorted(values), "credential_set": secret is not None}
    audit_trail.record(
        "identity_provider.changed", user=actor, target=app.provider_id, details=details
    )


def _asks_as(app: SocialApp | None) -> tuple[str, str] | None:
    """Return at whom and as whom a provider's refresh tokens are good."""
    return (facts_of(app).issuer, app.client_id) if app is not None else None


@transaction.atomic
def set_group_mapping(
    app: SocialApp, pairs: Iterable[tuple[str, Group]], *, actor: Any
) -> dict[str, Any]:
    """Make the mapping of a provider's groups these pairs; what no pair gives any more is taken.

    Returns:
        What changed, by name; empty if nothing did.

    Raises:
        PermissionDenied: who acts is no full administrator.
    """
    rights.require_all(actor)
    wanted = set(pairs)
    rows = GroupMapping.objects.filter(provider=app).select_related("group")
    present = {(row.claim_value, row.group) for row in rows}
    if wanted == present:
        return {}
    for row in rows:
        if (row.claim_value, row.group) not in wanted:
            row.delete()
    GroupMapping.objects.bulk_create(
        GroupMapping(provider=app, claim_value=value, group=group)
        for value, group in wanted - present
    )
    lost = {group for _, group in present} - {group for _, group in wanted}
    if lost and app.settings.get("groups_by_name") is not True:
        group_sync.withdraw(f"oidc:{app.provider_id}", lost)
    details = {
        "before": sorted(f"{value}: {group.name}" for value, group in present),
        "after": sorted(f"{value}: {group.name}" for value, group in wanted),
    }
    audit_trail.record(
        "identity_provider.mapping_changed", user=actor, target=app.provider_id, details=details
    )
    return details


@transaction.atomic
def delete_identity_provider(app: SocialApp, *, actor: Any) -> None:
    """Delete a provider; accounts that came by it stay, without a way to sign in.

    The groups that it gave go with it.

    Raises:
        PermissionDenied: who acts is no full administrator.
    """
    rights.require_all(actor)
    group_sync.withdraw(f"oidc:{app.provider_id}")
    roles.withdraw(f"oidc:{app.provider_id}")
    identity_grants.forget_provider(app.provider_id)
    app.delete()
    audit_trail.record("identity_provider.deleted", user=actor, target=app.provider_id)
