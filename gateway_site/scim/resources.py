"""People and groups as SCIM sees them: finding, showing, changing. Doors call these."""

from collections.abc import Iterable
from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from gateway_site import audit_trail, people_actions
from gateway_site.identity import group_sync, roles
from gateway_site.models import ProvidedMembership, ProvidedRole, ScimGroup, ScimIdentity
from gateway_site.scim.errors import LastAdministrator, ScimRefusal, bad_value, not_found
from gateway_site.scim.requests import GROUP_SCHEMA, USER_SCHEMA, GroupPatch
from gateway_site.sign_in import is_same_address

SOURCE = "scim"


# People ----------------------------------------------------------------------------------
def people(terms: dict[str, str]) -> QuerySet[User]:
    """Return the accounts that fit a filter.

    Local administrators are none of a directory's, nor are the accounts that service accounts
    act as. Whom an identity provider made one is: the directory switches them off.

    Raises:
        ScimRefusal: the filter names what cannot be searched.
    """
    theirs = Q(is_superuser=False, is_staff=False) | Q(scim_identity__isnull=False)
    provided = ProvidedRole.objects.filter(user=OuterRef("pk"))
    theirs |= Q(Exists(provided), is_superuser=False)
    theirs |= Q(Exists(provided.filter(role=ProvidedRole.Role.ADMINISTRATOR)))
    found = User.objects.filter(theirs, service_account__isnull=True)
    fields = {
        "username": "username__iexact",
        "externalid": "scim_identity__external_id",
        "emails.value": "email__iexact",
        "emails": "email__iexact",
        "id": "pk",
    }
    for name, value in terms.items():
        if name == "active":
            found = found.filter(is_active=value == "true")
        elif name not in fields:
            raise ScimRefusal(400, f"{name} cannot be searched.", "invalidFilter")
        elif name == "id" and not value.isdecimal():
            found = found.none()
        else:
            found = found.filter(**{fields[name]: value})
    return found.select_related("scim_identity").order_by("pk")


def person(key: str) -> User:
    """Return one account.

    Raises:
        ScimRefusal: there is none by this id.
    """
    row = people({"id": key}).first() if key.isdecimal() and len(key) < 19 else None
    if row is None:
        raise not_found()
    return row


def _as_it_is_now(row: User) -> User:
    """Return an account that was found before, locked until the transaction ends.

    What a provider or an administrator has made of it meanwhile counts, and is not written back.

    Raises:
        ScimRefusal: it is gone, or no longer a directory's.
    """
    try:
        return person(str(roles.locked(row).pk))
    except User.DoesNotExist as failure:
        raise not_found() from failure


def shown_person(row: User, base: str) -> dict[str, Any]:
    """Return an account as a User (RFC 7643 4.1)."""
    identity = getattr(row, "scim_identity", None)
    groups = ProvidedMembership.objects.filter(user=row, source=SOURCE).select_related("group")
    shown: dict[str, Any] = {
        "schemas": [USER_SCHEMA],
        "id": str(row.pk),
        "userName": row.username,
        "active": row.is_active,
        "name": {
            "givenName": row.first_name,
            "familyName": row.last_name,
            "formatted": row.get_full_name(),
        },
        "displayName": row.get_full_name() or row.username,
        "emails": [{"value": row.email, "type": "work", "primary": True}] if row.email else [],
        "groups": [
            {
                "value": str(g.group_id),
                "display": g.group.name,
                "$ref": f"{base}/Groups/{g.group_id}",
            }
            for g in groups
        ],
        "meta": {
            "resourceType": "User",
            "created": row.date_joined.isoformat(),
            "location": f"{base}/Users/{row.pk}",
        },
    }
    if identity is not None and identity.external_id:
        shown["externalId"] = identity.external_id
    return shown


@transaction.atomic
def create_person(fields: dict[str, Any], *, by: str) -> User:
    """Make an account, or take over the one that somebody already has with this address.

    Raises:
        ScimRefusal: 409 if the name is taken, 400 if a value does not fit.
    """
    username = fields.get("username", "")
    if not username:
        raise bad_value("userName is required.")
    email = fields.get("email") or username
    if User.objects.filter(username__iexact=username).exists():
        row = _adoptable(User.objects.filter(username__iexact=username))
        if row is not None and not _is_known_as(row, email):
            raise ScimRefusal(
                409,
                "Somebody who signed in by an identity provider has this userName, with another "
                "address or one that nobody verified. Rename or delete that account in the "
                "gateway's administration.",
                "uniqueness",
            )
    else:
        row = _adoptable(User.objects.filter(email__iexact=email))
        row = row if row is not None and _is_known_as(row, email) else None
    fields = {"is_active": True, **fields}
    return _write(row or User(), fields, by=by)


def _adoptable(found: QuerySet[User]) -> User | None:
    """Return the account to take over; None to make one.

    Raises:
        ScimRefusal: an account of the directory, or an administrator's, has the name.
    """
    locked = found.select_for_update(no_key=True, of=("self",))
    rows = list(locked.select_related("scim_identity")[:2])
    if len(rows) != 1:
        return None
    if hasattr(rows[0], "scim_identity"):
        raise ScimRefusal(409, "There is a user with this userName or address.", "uniqueness")
    if _administers(rows[0]) or hasattr(rows[0], "service_account"):
        raise ScimRefusal(
            409,
            "An administrator or a service account has this name or address; a directory cannot "
            "take it over.",
            "uniqueness",
        )
    return rows[0]


def _is_known_as(row: User, email: str) -> bool:
    """Tell whether an account is that of the person with an address.

    Whoever came by an identity provider may have chosen name and address there.
    """
    return _has_verified(row, email) or not SocialAccount.objects.filter(user=row).exists()


def _has_verified(row: User, email: str) -> bool:
    kept = EmailAddress.objects.filter(user_id=row.pk, verified=True)
    return any(is_same_address(email, one) for one in kept.values_list("email", flat=True))


def _administers(row: User) -> bool:
    return row.is_staff or row.is_superuser


def change_person(row: User, fields: dict[str, Any], *, by: str) -> User:
    """Change an account; an administrator's can only be switched off.

    Whoever sets an administrator's address or name could sign in as them. The last full
    administrator stays one, as with what a provider says (``identity.roles``).

    Raises:
        ScimRefusal: 409 if the name is taken, 400 if a value does not fit or is not to change,
            404 if somebody has deleted the account meanwhile.
        LastAdministrator: nobody else could administer the gateway.
    """
    try:
        with transaction.atomic():
            row = _as_it_is_now(row)
            _check_administrator(row, fields)
            if "username" in fields and not fields["username"]:
                raise bad_value("userName is required.")
            taken = User.objects.filter(username__iexact=fields.get("username", row.username))
            if taken.exclude(pk=row.pk).exists():
                raise ScimRefusal(409, "There is a user with this userName.", "uniqueness")
            return _write(row, fields, by=by)
    except LastAdministrator:
        audit_trail.record("scim.last_administrator_kept", target=row.username, details={"by": by})
        raise


def _check_administrator(row: User, fields: dict[str, Any]) -> None:
    if not _administers(row):
        return
    identity = getattr(row, "scim_identity", None)
    known = {"external_id": identity.external_id if identity else ""}
    changed = {n for n, v in fields.items() if v != known.get(n, getattr(row, n, None))}
    if changed - {"is_active"} or (changed and fields["is_active"]):
        raise ScimRefusal(
            400,
            "This is an administrator of the gateway: a directory can only switch the account "
            "off. Change the rest in the gateway's administration.",
            "mutability",
        )
    if changed and roles.is_last_administrator(roles.locked(row)):
        raise LastAdministrator


def _write(row: User, fields: dict[str, Any], *, by: str) -> User:
    external_id = fields.pop("external_id", None)
    changed = {name: value for name, value in fields.items() if getattr(row, name) != value}
    if fields.get("email") and not _administers(row) and not _has_verified(row, fields["email"]):
        # The directory's word verifies what a provider only repeated.
        changed["email"] = fields["email"]
    if row.pk is None or changed:
        try:
            people_actions.save_person(row, changed, actor=None, by=by)
        except people_actions.AddressTaken as failure:
            raise ScimRefusal(409, " ".join(failure.messages), "uniqueness") from failure
        except ValidationError as failure:
            raise bad_value(" ".join(failure.messages)) from failure
    identity, _ = ScimIdentity.objects.get_or_create(user=row)
    if external_id is not None and identity.external_id != external_id:
        identity.external_id = external_id
        identity.save(update_fields=["external_id"])
    row.scim_identity = identity
    return row


@transaction.atomic
def delete_person(row: User, *, by: str) -> None:
    """Delete an account with all that belongs to it.

    Raises:
        ScimRefusal: 403 for an administrator's, 404 if it is gone already.
    """
    row = _as_it_is_now(row)
    if _administers(row):
        raise ScimRefusal(
            403, "An administrator's account is deleted in the gateway's administration only."
        )
    people_actions.delete_person(row, actor=None, by=by)


# Groups ----------------------------------------------------------------------------------
def groups(terms: dict[str, str]) -> QuerySet[Group]:
    """Return the groups that fit a filter.

    Raises:
        ScimRefusal: the filter names what cannot be searched.
    """
    found = Group.objects.all()
    for name, value in terms.items():
        if name == "displayname":
            found = found.filter(name__iexact=value)
        elif name == "externalid":
            found = found.filter(scim_group__external_id=value)
        elif name == "id":
            found = found.filter(pk=value) if value.isdecimal() else found.none()
        elif name in ("members", "members.value"):
            rows = ProvidedMembership.objects.filter(source=SOURCE)
            rows = rows.filter(user_id=value) if value.isdecimal() else rows.none()
            found = found.filter(pk__in=rows.values("group_id"))
        else:
            raise ScimRefusal(400, f"{name} cannot be searched.", "invalidFilter")
    return found.select_related("scim_group").order_by("pk")


def group(key: str) -> Group:
    """Return one group.

    Raises:
        ScimRefusal: there is none by this id.
    """
    row = groups({"id": key}).first() if key.isdecimal() and len(key) < 19 else None
    if row is None:
        raise not_found()
    return row


def shown_group(row: Group, base: str, *, members: bool = True) -> dict[str, Any]:
    """Return a group as a Group (RFC 7643 4.2); its members are those that the directory named."""
    shown: dict[str, Any] = {
        "schemas": [GROUP_SCHEMA],
        "id": str(row.pk),
        "displayName": row.name,
        "meta": {"resourceType": "Group", "location": f"{base}/Groups/{row.pk}"},
    }
    if getattr(row, "scim_group", None) is not None and row.scim_group.external_id:
        shown["externalId"] = row.scim_group.external_id
    if members:
        rows = ProvidedMembership.objects.filter(
            group=row, source=SOURCE, user__service_account__isnull=True
        ).select_related("user")
        shown["members"] = [
            {
                "value": str(m.user_id),
                "display": m.user.get_username(),
                "$ref": f"{base}/Users/{m.user_id}",
            }
            for m in rows.order_by("user_id")
        ]
    return shown


@transaction.atomic
def create_group(step: GroupPatch, *, by: str) -> Group:
    """Make a group with its members.

    Raises:
        ScimRefusal: 409 if there is one of this name, 400 if a value does not fit.
    """
    if not step.name:
        raise bad_value("displayName is required.")
    if Group.objects.filter(name__iexact=step.name).exists():
        raise ScimRefusal(409, "There is a group of this name.", "uniqueness")
    try:
        row = people_actions.create_group(step.name, actor=None, by=by)
    except ValidationError as failure:
        raise bad_value(" ".join(failure.messages)) from failure
    step.name = None
    change_group(row, [step], by=by)
    return row


@transaction.atomic
def change_group(row: Group, steps: Iterable[GroupPatch], *, by: str) -> Group:
    """Change a group, step by step.

    Raises:
        ScimRefusal: 409 if the name is taken, 400 if a value does not fit.
    """
    for step in steps:
        if step.name is not None and step.name != row.name:
            _rename(row, step.name, by=by)
        if step.external_id is not None:
            kept, _ = ScimGroup.objects.update_or_create(
                group=row, defaults={"external_id": step.external_id}
            )
            row.scim_group = kept
        if step.members is not None:
            group_sync.set_members(row, _people(step.members), source=SOURCE, by=by)
        if step.added:
            group_sync.add_members(row, _people(step.added), source=SOURCE, by=by)
        if step.removed:
            # Who is gone already has left.
            gone = User.objects.filter(pk__in=[key for key in step.removed if key.isdecimal()])
            group_sync.remove_members(row, gone, source=SOURCE, by=by)
    return row


def delete_group(row: Group, *, by: str) -> None:
    """Delete a group: its people lose what only it gave them."""
    people_actions.delete_group(row, actor=None, by=by)


def _rename(row: Group, name: str, *, by: str) -> None:
    if not name:
        raise bad_value("displayName is required.")
    if Group.objects.filter(name__iexact=name).exclude(pk=row.pk).exists():
        raise ScimRefusal(409, "There is a group of this name.", "uniqueness")
    try:
        people_actions.rename_group(row, name, actor=None, by=by)
    except ValidationError as failure:
        raise bad_value(" ".join(failure.messages)) from failure


def _people(keys: list[str]) -> list[User]:
    wanted = {int(key) for key in keys if key.isdecimal() and len(key) < 19}
    found = list(people({}).filter(pk__in=wanted))
    if len(found) != len(set(keys)):
        raise bad_value("A member is not a user here. Provision the person first.")
    return found
