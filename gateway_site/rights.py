"""What one administrator may do to another: nobody gives, takes or gets at rights beyond their own.

Django's permission to change people is the permission to make oneself everything. Here it is not:
full rights come only from who has them, by whichever page, and who acts is ``None`` where nobody
does (the command line, the configuration file, a provider's word).
"""

from typing import Any

from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet


def has_all(actor: Any) -> bool:
    """Tell whether nothing is beyond who acts."""
    return actor is None or bool(actor.is_active and actor.is_superuser)


def permissions_within(actor: Any) -> QuerySet[Permission]:
    """Return the permissions that somebody may give: their own."""
    if has_all(actor):
        return Permission.objects.all()
    return _permissions_of(actor)


def groups_within(actor: Any) -> QuerySet[Group]:
    """Return the groups that carry nothing beyond somebody's own permissions."""
    if has_all(actor):
        return Group.objects.all()
    beyond = Permission.objects.exclude(pk__in=_permissions_of(actor).values("pk"))
    return Group.objects.exclude(permissions__in=beyond)


def may_change_person(actor: Any, person: User) -> bool:
    """Tell whether somebody may change, delete or sign out a person.

    Whoever sets a password or an address can sign in as that person. It does not matter that an
    account is switched off: it can be switched on.
    """
    if has_all(actor) or actor.pk == person.pk:
        return True
    if person.is_superuser:
        return False
    own = _permissions_of(actor).values("pk")
    return not _permissions_of(person).exclude(pk__in=own).exists()


def may_change_group(actor: Any, group: Group) -> bool:
    """Tell whether somebody may change or delete a group, and say who is in it."""
    return has_all(actor) or groups_within(actor).filter(pk=group.pk).exists()


def require_person(actor: Any, person: User) -> None:
    """Check that somebody may change a person.

    Raises:
        PermissionDenied: the person may do more than they.
    """
    if not may_change_person(actor, person):
        raise PermissionDenied(
            f"{person.get_username()} may do more here than you. Ask a full administrator."
        )


def require_group(actor: Any, group: Group) -> None:
    """Check that somebody may change a group.

    Raises:
        PermissionDenied: it gives more than they have.
    """
    if not may_change_group(actor, group):
        raise PermissionDenied(
            f"The group {group.name} gives permissions that you do not have. Ask a full "
            "administrator."
        )


def require_all(actor: Any) -> None:
    """Check that nothing is beyond who acts.

    Raises:
        PermissionDenied: they are no full administrator.
    """
    if not has_all(actor):
        raise PermissionDenied(
            "Identity providers and directories decide who administers this gateway. Ask a full "
            "administrator."
        )


def _permissions_of(person: Any) -> QuerySet[Permission]:
    mine = Q(user=person.pk) | Q(group__user=person.pk)
    return Permission.objects.filter(mine).distinct()
