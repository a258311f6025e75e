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
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
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


def add_members(group: Group, people: Iterable[User], *, source: str, by: str = "") -> None:
    """Put people into a group that ``source`` decides about.

    Unlike ``set_groups`` this takes over memberships that were given by hand: the group is the
    source's, so who leaves it there has to leave it here.
    """
    joined = []
    for user in people:
        ProvidedMembership.objects.get_or_create(user=user, group=group, source=source)
        if not user.groups.filter(pk=group.pk).exists():
            user.groups.add(group)
            joined.append(user.get_username())
    _tell(group, source, by, joined=joined)


def remove_members(group: Group, people: Iterable[User], *, source: str, by: str = "") -> None:
    """Take people out of a group, unless another source keeps them in it."""
    left = []
    for user in people:
        rows = ProvidedMembership.objects.filter(user=user, group=group)
        if not rows.filter(source=source).delete()[0]:
            continue
        if not rows.exists():
            user.groups.remove(group)
            left.append(user.get_username())
    _tell(group, source, by, left=left)


@transaction.atomic
def set_members(group: Group, people: Iterable[User], *, source: str, by: str = "") -> None:
    """Make these the only people that ``source`` has in a group."""
    wanted = {user.pk: user for user in people}
    rows = ProvidedMembership.objects.filter(group=group, source=source).select_related("user")
    present = {row.user_id: row.user for row in rows}
    remove_members(
        group, [u for pk, u in present.items() if pk not in wanted], source=source, by=by
    )
    add_members(group, [u for pk, u in wanted.items() if pk not in present], source=source, by=by)


def _tell(group: Group, source: str, by: str, **people: list[str]) -> None:
    details = {what: names[:200] for what, names in people.items() if names}
    if details:
        audit_trail.record(
            "group.members_changed", target=group.name, details={"by": by or source, **details}
        )


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
