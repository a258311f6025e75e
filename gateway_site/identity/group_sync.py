"""Gives and takes the groups that somebody else decides about: providers and SCIM.

Each membership that came from outside is kept with its source. A source takes away only what it
gave, so what an administrator gave by hand stays until an administrator takes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import Group, User
from django.db import transaction

from gateway_site import audit_trail
from gateway_site.models import ProvidedMembership


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What a synchronisation changed, as names."""

    given: tuple[str, ...]
    taken: tuple[str, ...]


@transaction.atomic
def set_groups(user: User, names: Iterable[str], *, source: str) -> GroupChange:
    """Make the groups that ``source`` gives a person exactly those of these names that exist.

    Groups are never made up: a name without a group here gives nothing.

    Args:
        source: who decides, such as ``oidc:contoso``.
    """
    wanted = {group.pk: group for group in Group.objects.filter(name__in=set(names))}
    # One synchronisation of a person after the other.
    User.objects.select_for_update().get(pk=user.pk)
    provided = ProvidedMembership.objects.filter(user=user)
    before = {row.group_id: row for row in provided.filter(source=source).select_related("group")}
    others = set(provided.exclude(source=source).values_list("group_id", flat=True))
    members = set(user.groups.values_list("pk", flat=True))
    given, taken = [], []
    for pk, group in wanted.items():
        # A membership given by hand stays one; only what the source adds is the source's.
        if pk not in before and (pk not in members or pk in others):
            ProvidedMembership.objects.create(user=user, group=group, source=source)
        if pk not in members:
            given.append(group)
    for pk, row in before.items():
        if pk not in wanted:
            row.delete()
            if pk not in others and pk in members:
                taken.append(row.group)
    if given:
        user.groups.add(*given)
    if taken:
        user.groups.remove(*taken)
    change = GroupChange(_names(given), _names(taken))
    if given or taken:
        audit_trail.record(
            "person.groups_synchronised",
            user=user,
            target=user.get_username(),
            details={"source": source, "given": change.given, "taken": change.taken},
        )
    return change


@transaction.atomic
def withdraw(source: str, groups: Iterable[Group] | None = None) -> None:
    """Take what a source gave, everything or these groups, from everybody."""
    rows = ProvidedMembership.objects.filter(source=source).select_related("user", "group")
    if groups is not None:
        rows = rows.filter(group__in=list(groups))
    for row in rows:
        row.delete()
        kept = ProvidedMembership.objects.filter(user=row.user_id, group=row.group_id).exists()
        if not kept:
            row.user.groups.remove(row.group)


def _names(groups: list[Group]) -> tuple[str, ...]:
    return tuple(sorted(group.name for group in groups))
