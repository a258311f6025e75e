"""Applies the parts of ``gateway.yaml`` that are about people: site, groups, users, providers."""

from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password

from gateway_site import people_actions
from gateway_site.config_changes import Applying, differing, named, said
from gateway_site.config_file import ConfigurationRefused
from gateway_site.config_schema import (
    GroupEntry,
    SiteEntry,
    State,
    UserEntry,
)
from gateway_site.models import SiteProfile


def apply_site(entry: SiteEntry, applying: Applying) -> None:
    """Set the site's own settings."""
    profile = SiteProfile.current()
    wanted = said(
        name=entry.name,
        support_contact=entry.support_contact,
        openai_apps_challenge=entry.openai_apps_challenge,
        require_second_factor=entry.require_second_factor,
    )
    changed = differing(profile, wanted)
    if changed:
        with named("site"):
            people_actions.update_site(profile, changed, actor=applying.actor)
    applying.note("site", profile.name, "changed" if changed else "unchanged", changed)


def apply_group(entry: GroupEntry | str, applying: Applying) -> None:
    """Make or remove a group."""
    entry = GroupEntry(name=entry) if isinstance(entry, str) else entry
    group = Group.objects.filter(name=entry.name).first()
    if entry.state is State.ABSENT:
        if group is not None:
            people_actions.delete_group(group, actor=applying.actor)
        applying.note("group", entry.name, "removed" if group else "unchanged")
        return
    if group is None:
        people_actions.create_group(entry.name, actor=applying.actor)
    applying.note("group", entry.name, "unchanged" if group else "created")


def apply_user(entry: UserEntry, path: str, applying: Applying) -> None:
    """Make, change or remove a person's account."""
    user = User.objects.filter(username=entry.username).first()
    if entry.state is State.ABSENT:
        if user is not None:
            people_actions.delete_person(user, actor=applying.actor)
        applying.note("user", entry.username, "removed" if user else "unchanged")
        return
    wanted = said(
        email=entry.email,
        first_name=entry.first_name,
        last_name=entry.last_name,
        is_staff=entry.staff,
        is_superuser=entry.administrator,
        is_active=entry.active,
    )
    if entry.administrator and entry.staff is None:
        wanted["is_staff"] = True
    created = user is None
    user = user or User(username=entry.username)
    changed: dict[str, Any] = differing(user, wanted)
    password = _new_password(user, entry, path, applying)
    groups = _groups(entry, path)
    if groups is not None and not created:
        if set(groups) != set(user.groups.all()):
            changed["groups"] = groups
    elif groups:
        changed["groups"] = groups
    if created or changed or password is not None:
        with named(path):
            people_actions.save_person(user, changed, password=password, actor=applying.actor)
    if password is not None and not created:
        changed["password"] = None
    what = "created" if created else "changed" if changed else "unchanged"
    applying.note("user", entry.username, what, changed)


def _new_password(user: User, entry: UserEntry, path: str, applying: Applying) -> str | None:
    if entry.password is None:
        return None
    password = applying.secret(f"{path}.password", entry.password)
    if user.pk is not None and user.check_password(password):
        return None
    with named(f"{path}.password"):
        validate_password(password, user)
    return password


def _groups(entry: UserEntry, path: str) -> list[Group] | None:
    if entry.groups is None:
        return None
    found = {group.name: group for group in Group.objects.filter(name__in=entry.groups)}
    missing = [name for name in entry.groups if name not in found]
    if missing:
        text = f"There is no group {missing[0]}. Name it under groups."
        raise ConfigurationRefused([(f"{path}.groups", text)])
    return [found[name] for name in entry.groups]
