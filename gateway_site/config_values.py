"""Reading stored objects as the entries of ``gateway.yaml`` that would make them."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from gateway_site.config_schema import Entry


def fields_of(entry: type[Entry]) -> list[str]:
    """Return what an entry may say, in the order of the schema."""
    return [field.name for field in msgspec.structs.fields(entry)]


def differing_from_new(
    row: Any,
    entry: type[Entry],
    *,
    renamed: Mapping[str, str] | None = None,
    prefix: str = "",
    skip: Collection[str] = (),
) -> dict[str, Any]:
    """Return what a stored object says that a new one would not, under the entry's names.

    Args:
        renamed: the attribute of a member where it has another name; ``prefix`` stands before it.
        skip: members that are no attributes of the object.
    """
    new = type(row)()
    found = {}
    for name in fields_of(entry):
        if name == "state" or name in skip:
            continue
        attribute = prefix + (renamed or {}).get(name, name)
        value = getattr(row, attribute)
        if value != getattr(new, attribute):
            found[name] = value
    return found


class Secrets:
    """Which secrets a file would need, and the references to them where it names them."""

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self.places: list[str] = []
        self.variables: list[str] = []

    def entry(self, member: str, kind: str, name: str) -> dict[str, str]:
        """Return the member that names one secret, nothing where secrets are left out."""
        self.places.append(f"{kind.replace('_', ' ')} {name}: {member}")
        if not self._named:
            return {}
        return {member: self.reference(kind, name, member)}

    def reference(self, kind: str, name: str, member: str) -> str:
        """Return a reference to an environment variable that no other secret of the file has."""
        words = f"{kind}_{name}_{member}"
        variable = wanted = re.sub(r"[^A-Z0-9]+", "_", words.upper()).strip("_")
        number = 1
        while variable in self.variables:
            number += 1
            variable = f"{wanted}_{number}"
        self.variables.append(variable)
        return f"env:{variable}"
