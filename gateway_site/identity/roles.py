"""Gives and takes the right to administer that identity providers decide about, by their groups.

Only what a provider gave is a provider's to take: who was made an administrator by hand, on the
command line or by the file stays one. Nor does anybody cease to be the last full administrator by
what a provider says, so that there is always a way in.
"""

from collections.abc import Iterable
from typing import Final

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q

from gateway_site import audit_trail
from gateway_site.identity.claims import GroupClaim
from gateway_site.identity.provider_facts import ProviderFacts
from gateway_site.models import ProvidedRole

STAFF: Final = ProvidedRole.Role.STAFF.value
ADMINISTRATOR: Final = ProvidedRole.Role.ADMINISTRATOR.value
_FLAGS: Final = {STAFF: "is_staff", ADMINISTRATOR: "is_superuser"}

# A role, and the provider's group that gives it.
Reason = tuple[str, str]


def roles_for(facts: ProviderFacts, groups: GroupClaim) -> set[Reason]:
    """Return which roles a provider's groups give, and by which of them. Pure."""
    return configured(facts, groups.values)


def configured(facts: ProviderFacts, groups: Iterable[str] | None = None) -> set[Reason]:
    """Return the roles that a provider's settings give to these groups, None for all of them."""
    # Whoever may do everything may open the administration.
    found = {(STAFF, group) for group in facts.staff_groups | facts.administrator_groups}
    found |= {(ADMINISTRATOR, group) for group in facts.administrator_groups}
    return found if groups is None else {(role, group) for role, group in found if group in groups}


@transaction.atomic
def set_roles(user: User, wanted: set[Reason], *, source: str) -> None:
    """Make the roles that ``source`` gives a person exactly these.

    Args:
        source: who decides, such as ``oidc:contoso``.
    """
    # One change of a person after the other; the flags are read under the lock.
    row = locked(user)
    provided = ProvidedRole.objects.filter(user=row)
    given = set(provided.values_list("role", flat=True))
    by_hand = {role for role, flag in _FLAGS.items() if getattr(row, flag) and role not in given}
    present = {(one.role, one.claim): one for one in provided.filter(source=source)}
    for reason, one in present.items():
        if reason not in wanted:
            one.delete()
    ProvidedRole.objects.bulk_create(
        ProvidedRole(user=row, source=source, role=role, claim=claim)
        for role, claim in wanted - set(present)
        if role not in by_hand
    )
    has = by_hand | set(provided.values_list("role", flat=True))
    if ADMINISTRATOR not in has and is_last_administrator(row):
        # No provider gives it from here on: it is theirs as if by hand, until somebody takes it.
        has = {STAFF, ADMINISTRATOR}
        audit_trail.record(
            "person.role_kept", user=row, target=row.get_username(), details={"source": source}
        )
    changed = [flag for role, flag in _FLAGS.items() if getattr(row, flag) != (role in has)]
    if changed:
        # The object that the caller goes on with says the same.
        row.is_staff = user.is_staff = STAFF in has
        row.is_superuser = user.is_superuser = ADMINISTRATOR in has
        row.save(update_fields=changed)
        audit_trail.record(
            "person.role_changed",
            user=row,
            target=row.get_username(),
            details={
                "source": source,
                "by_groups": sorted({claim for _, claim in wanted}),
                "opens_administration": row.is_staff,
                "full_administrator": row.is_superuser,
            },
        )


def locked(person: User) -> User:
    """Return a person's row, locked until the transaction ends.

    Of a full administrator's the others are locked with it, so that no two can cease to be one at
    the same moment. Who only names a person, such as a new token, does not wait.

    Raises:
        User.DoesNotExist: somebody has deleted the person meanwhile.
    """
    wanted = Q(pk=person.pk)
    if person.is_superuser:
        wanted |= Q(is_superuser=True)
    rows = User.objects.select_for_update(no_key=True).filter(wanted).order_by("pk")
    found = {row.pk: row for row in rows}.get(person.pk)
    if found is None:
        raise User.DoesNotExist
    return found


def is_last_administrator(person: User) -> bool:
    """Tell whether nobody else is a full administrator who can sign in."""
    if not (person.is_superuser and person.is_active):
        return False
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=person.pk)
    return not others.exists()


def withdraw(source: str, kept: Iterable[Reason] = ()) -> None:
    """Take from everybody what a source gave, but for these roles by these groups."""
    stays = set(kept)
    rows = ProvidedRole.objects.filter(source=source).select_related("user").order_by("user_id")
    by_person: dict[User, set[Reason]] = {}
    for row in rows:
        by_person.setdefault(row.user, set()).add((row.role, row.claim))
    for person, reasons in by_person.items():
        if not reasons <= stays:
            set_roles(person, reasons & stays, source=source)
