"""What applying a file did, and the comparison that decides whether anything is to be done."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError

from gateway_site.config_file import ConfigurationRefused, SecretReferences


@dataclass(frozen=True, slots=True)
class Change:
    """One object and what became of it; ``fields`` names what changed, never a value."""

    kind: str
    name: str
    what: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        changed = f" ({', '.join(self.fields)})" if self.fields and self.what == "changed" else ""
        return f"{self.what:9} {self.kind} {self.name}{changed}"


@dataclass(frozen=True, slots=True)
class Applying:
    """What every part of the work needs: secrets, and where to note changes."""

    secrets: SecretReferences
    changes: list[Change]
    actor: Any = None

    def note(
        self, kind: str, name: str, what: str, fields: Mapping[str, Any] | None = None
    ) -> None:
        """Note what was done to one object."""
        self.changes.append(Change(kind, name, what, tuple(fields or ())))

    def secret(self, path: str, reference: str) -> str:
        """Resolve a reference.

        Raises:
            ConfigurationRefused: it gives no secret.
        """
        try:
            return self.secrets.resolve(reference)
        except ValueError as failure:
            raise ConfigurationRefused([(path, str(failure))]) from failure


def said(**values: Any) -> dict[str, Any]:
    """Keep what the file says: None means that it says nothing."""
    return {name: value for name, value in values.items() if value is not None}


def differing(row: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the wanted values that a row does not have yet."""
    return {name: value for name, value in wanted.items() if getattr(row, name) != value}


@contextmanager
def named(path: str) -> Iterator[None]:
    """Give whatever an action refuses the path of the object in the file.

    Raises:
        ConfigurationRefused: an action refused the values.
    """
    try:
        yield
    except ValidationError as failure:
        if hasattr(failure, "error_dict"):
            problems = [
                (f"{path}.{field}" if field != "__all__" else path, " ".join(messages))
                for field, messages in failure.message_dict.items()
            ]
        else:
            problems = [(path, " ".join(failure.messages))]
        raise ConfigurationRefused(problems) from failure
