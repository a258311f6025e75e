"""Reads what directories send: filters, pages, PATCH operations. Pure.

RFC 7644 leaves much open and directories differ from it: Entra ID writes operations with a capital
letter and booleans as text, Okta sends values without a path. What is understood is applied; what
could mean access is refused rather than guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway_site.scim.errors import ScimRefusal, bad_value

PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"
MOST_PER_PAGE = 200
LAST_START = 1_000_000_000
MOST_OPERATIONS = 1_000
MOST_MEMBERS = 20_000

_TERM = re.compile(
    r'\s*([A-Za-z][\w.:$-]*)\s+eq\s+("(?:[^"\\]|\\.)*"|true|false)\s*', re.IGNORECASE
)
_MEMBER = re.compile(r'members\[\s*value\s+eq\s+"([^"]+)"\s*\]', re.IGNORECASE)
_WORK_MAIL = re.compile(r"emails\[[^\]]{0,80}\](?:\.value)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted; ``start`` counts from 1 (RFC 7644 3.4.2.4)."""

    start: int
    count: int


def page_of(query: Mapping[str, str]) -> Page:
    """Read ``startIndex`` and ``count``; what is out of range is put into it.

    Raises:
        ScimRefusal: they are no numbers.
    """
    try:
        start, count = int(query.get("startIndex", 1)), int(query.get("count", 100))
    except ValueError as failure:
        raise bad_value("startIndex and count are numbers.") from failure
    return Page(min(max(start, 1), LAST_START), max(0, min(count, MOST_PER_PAGE)))


def terms_of(text: str) -> dict[str, str]:
    """Read a filter of ``attribute eq "value"`` joined by ``and``; attributes in lower case.

    Raises:
        ScimRefusal: anything else.
    """
    terms: dict[str, str] = {}
    position = 0
    while True:
        found = _TERM.match(text, position)
        if found is None or len(text) > 2_000 or "\0" in text:
            raise ScimRefusal(
                400, 'Only filters like userName eq "ada" and ... are supported.', "invalidFilter"
            )
        value = found.group(2)
        plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value.lower()
        terms[_bare(found.group(1)).lower()] = plain
        position = found.end()
        if position == len(text):
            return terms
        if text[position : position + 4].lower() != "and ":
            raise ScimRefusal(400, "Filters are joined by and.", "invalidFilter")
        position += 4


def operations_of(body: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Return the operations of a PATCH as (op, path, value), op in lower case.

    Raises:
        ScimRefusal: it is no PATCH.
    """
    listed = body.get("Operations", body.get("operations"))
    if not isinstance(listed, list) or not listed or len(listed) > MOST_OPERATIONS:
        raise ScimRefusal(400, "A PATCH has a list of Operations.", "invalidSyntax")
    operations = []
    for item in listed:
        if not isinstance(item, Mapping):
            raise ScimRefusal(400, "An operation is an object.", "invalidSyntax")
        name, path = str(item.get("op", "")).lower(), item.get("path") or ""
        if name not in ("add", "replace", "remove") or not isinstance(path, str):
            raise ScimRefusal(400, "An operation is add, replace or remove.", "invalidSyntax")
        operations.append((name, _bare(path), item.get("value")))
    return operations


def _bare(path: str) -> str:
    """Take the core schemas' names off a path."""
    for schema in (USER_SCHEMA, GROUP_SCHEMA):
        if path.lower().startswith(schema.lower() + ":"):
            return path[len(schema) + 1 :]
    return path


# People ----------------------------------------------------------------------------------
def person_in(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a User that the gateway keeps, as fields of an account.

    Raises:
        ScimRefusal: a value does not fit.
    """
    fields: dict[str, Any] = {}
    for name, value in body.items():
        _take(fields, name, value)
    return fields


def person_changes(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a PATCH of a User changes.

    Raises:
        ScimRefusal: it is no PATCH, or takes away what an account must have.
    """
    fields: dict[str, Any] = {}
    for operation, path, value in operations_of(body):
        if operation == "remove":
            _remove(fields, path)
        elif path:
            _take(fields, path, value)
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                _take(fields, _bare(str(name)), inner)
        else:
            raise ScimRefusal(400, "An operation without a path has an object.", "invalidValue")
    return fields


def _remove(fields: dict[str, Any], path: str) -> None:
    lowered = path.lower()
    if not path:
        raise ScimRefusal(400, "What to remove is said by a path.", "noTarget")
    if lowered in ("active", "username"):
        raise ScimRefusal(400, f"{path} cannot be removed.", "mutability")
    empty = {"externalid": "external_id", "name.givenname": "first_name"}
    empty |= {"name.familyname": "last_name", "emails": "email"}
    if lowered in empty:
        fields[empty[lowered]] = ""
    elif _WORK_MAIL.fullmatch(path):
        fields["email"] = ""


def _take(fields: dict[str, Any], path: str, value: Any) -> None:
    """Take one attribute; those the gateway has no use for are passed over."""
    lowered = path.lower()
    texts = {
        "username": "username",
        "externalid": "external_id",
        "name.givenname": "first_name",
        "name.familyname": "last_name",
    }
    if lowered in texts:
        fields[texts[lowered]] = _text(path, value)
    elif lowered == "active":
        fields["is_active"] = _truth(value)
    elif lowered == "name" and isinstance(value, Mapping):
        for name, inner in value.items():
            _take(fields, f"name.{name}", inner)
    elif lowered == "emails":
        fields["email"] = _address(value)
    elif _WORK_MAIL.fullmatch(path):
        fields["email"] = _address([{"value": value}] if isinstance(value, str) else [value])


def _text(path: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 254:
        raise bad_value(f"{path[:60]} is a text of at most 254 characters.")
    if "\0" in value:
        raise bad_value(f"{path[:60]} has a NUL character in it.")
    return value.strip()


def _truth(value: Any) -> bool:
    """Read ``active``; Entra ID may write it as text. Anything else is not guessed."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0].get("value") if isinstance(value[0], Mapping) else value[0]
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise bad_value("active is true or false.")


def _address(value: Any) -> str:
    """Return the primary address, else the first."""
    entries = (
        [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
    )
    primary = [item for item in entries if item.get("primary") in (True, "true", "True")]
    for item in [*primary, *entries]:
        if item.get("value"):
            return _text("emails", item["value"])
    return ""


# Groups ----------------------------------------------------------------------------------
@dataclass(slots=True)
class GroupPatch:
    """What is to happen to a group.

    Attributes:
        name: its new name, None to leave it.
        members: who alone is to be in it, None to leave the others.
        added: who joins.
        removed: who leaves.
    """

    name: str | None = None
    external_id: str | None = None
    members: list[str] | None = None
    added: list[str] | None = None
    removed: list[str] | None = None


def group_in(body: Mapping[str, Any]) -> GroupPatch:
    """Return what a whole Group says.

    Raises:
        ScimRefusal: a value does not fit.
    """
    return GroupPatch(
        name=_text("displayName", body.get("displayName")),
        external_id=_text("externalId", body.get("externalId")),
        members=_members(body.get("members", [])),
    )


def group_patches(body: Mapping[str, Any]) -> list[GroupPatch]:
    """Return the steps of a PATCH of a Group, in their order.

    Raises:
        ScimRefusal: it is no PATCH, or names what a group has not.
    """
    steps = []
    for operation, path, value in operations_of(body):
        single = _MEMBER.fullmatch(path)
        if path.lower() == "members":
            steps.append(_member_step(operation, value))
        elif single is not None and operation == "remove":
            steps.append(GroupPatch(removed=[single.group(1)]))
        elif operation == "remove":
            raise ScimRefusal(400, "Only members can be removed from a group.", "mutability")
        elif path:
            steps.append(_named_step({path: value}, operation))
        elif isinstance(value, Mapping):
            steps.append(_named_step(value, operation))
        else:
            raise ScimRefusal(400, "An operation without a path has an object.", "invalidValue")
    return steps


def _member_step(operation: str, value: Any) -> GroupPatch:
    if operation == "remove":
        # Without a value all of them leave (RFC 7644 3.5.2.2).
        return GroupPatch(members=[]) if value is None else GroupPatch(removed=_members(value))
    members = _members(value)
    return GroupPatch(added=members) if operation == "add" else GroupPatch(members=members)


def _named_step(values: Mapping[str, Any], operation: str) -> GroupPatch:
    step = GroupPatch()
    for name, value in values.items():
        lowered = _bare(str(name)).lower()
        if lowered == "displayname":
            step.name = _text("displayName", value)
        elif lowered == "externalid":
            step.external_id = _text("externalId", value)
        elif lowered == "members":
            members = _members(value)
            if operation == "add":
                step.added = members
            else:
                step.members = members
    return step


def _members(value: Any) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if len(entries) > MOST_MEMBERS:
        raise bad_value(f"Name at most {MOST_MEMBERS} members at once.")
    found = []
    for item in entries:
        member = item.get("value") if isinstance(item, Mapping) else item
        if not isinstance(member, str) or not member:
            raise bad_value("A member is an object with the id of a user as its value.")
        found.append(member)
    return found
