"""Reads ``gateway.yaml``: bounded, plain YAML, secrets by reference, errors with their path."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from gateway_site.config_schema import Configuration

MOST_BYTES = 1024 * 1024
MOST_SECRET_BYTES = 64 * 1024
MOST_DEPTH = 32
_UNKNOWN_WORD = "Invalid enum value '"


class ConfigurationRefused(Exception):
    """The file cannot be applied; ``problems`` are (path, what is wrong and what to do)."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{path}: {text}" if path else text for path, text in problems))
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """YAML without what only surprises: references, repeated keys, endless nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise self._refusal("references (*name) are not used here")
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise self._refusal("it is nested too deeply")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            name = str(key_node.value)
            if name in seen:
                mark = key_node.start_mark
                raise yaml.MarkedYAMLError(problem=f"{name!r} stands here twice", problem_mark=mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def _refusal(self, problem: str) -> yaml.MarkedYAMLError:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


# As in YAML 1.2: a group called "no" or "on" is a text, and so is what looks like a date.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not tag.endswith((":bool", ":timestamp"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read_configuration(file: Path) -> Configuration:
    """Read and check the shape of a configuration file.

    Raises:
        ConfigurationRefused: it cannot be read, is too large, not YAML, or says something that
            the schema does not know.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as failure:
        raise ConfigurationRefused(
            [(str(file), f"cannot be read: {failure.strerror}.")]
        ) from failure
    if len(content) > MOST_BYTES:
        limit = f"is larger than {MOST_BYTES // 1024} KiB."
        raise ConfigurationRefused([(str(file), limit)])
    return parse(content, str(file))


def parse(content: bytes, name: str) -> Configuration:
    """Parse the content of a configuration file; ``name`` stands in the messages."""
    try:
        document = yaml.load(content, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as failure:
        raise ConfigurationRefused([(_place(name, failure), _reason(failure))]) from failure
    except (UnicodeDecodeError, RecursionError, ValueError) as failure:
        raise ConfigurationRefused([(name, "is not YAML in UTF-8.")]) from failure
    try:
        return msgspec.convert(document if document is not None else {}, Configuration)
    except msgspec.ValidationError as failure:
        raise ConfigurationRefused([_misfit(name, str(failure))]) from None


def _misfit(name: str, said: str) -> tuple[str, str]:
    """Return where the file is not as the schema has it, and how.

    A word that is not known is not repeated: it may be a secret that was put in the wrong place.
    """
    text, found, path = said.rpartition(" - at `")
    if not found:
        return name, f"{said}."
    where = path.rstrip("`").removeprefix("$").removeprefix(".")
    if text.startswith(_UNKNOWN_WORD):
        words = ", ".join(json.dumps(word) for word in _words_at(where))
        text = f"Invalid enum value; give one of {words}"
    return where or name, f"{text}."


def _words_at(path: str) -> list[str]:
    """Return the words that may stand at a path of the file."""
    kinds = _alternatives(inspect.type_info(Configuration))
    for step in re.findall(r"\[[^\]]*\]|[^.\[\]]+", path):
        inside: list[inspect.Type] = []
        for kind in kinds:
            if isinstance(kind, inspect.StructType):
                inside += [one.type for one in kind.fields if one.encode_name == step]
            elif isinstance(kind, inspect.ListType):
                inside.append(kind.item_type)
        kinds = [one for kind in inside for one in _alternatives(kind)]
    words: list[str] = []
    for kind in kinds:
        if isinstance(kind, inspect.LiteralType):
            words += [str(word) for word in kind.values]
        elif isinstance(kind, inspect.EnumType):
            words += [str(member.value) for member in kind.cls]
    return words


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]


def _place(name: str, failure: yaml.YAMLError) -> str:
    mark = getattr(failure, "problem_mark", None)
    return f"{name} line {mark.line + 1}" if mark else name


def _reason(failure: yaml.YAMLError) -> str:
    problem = getattr(failure, "problem", None) or getattr(failure, "reason", "it is not YAML")
    return f"{problem}."


class SecretReferences:
    """Resolves ``env:NAME`` and ``file:path``; relative paths start at the file's folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = os.environ if environment is None else environment

    def problem_with(self, reference: str) -> str:
        """Return why a reference does not give a secret, "" if it does."""
        try:
            self.resolve(reference)
        except ValueError as failure:
            return str(failure)
        return ""

    def resolve(self, reference: str) -> str:
        """Return the secret.

        Raises:
            ValueError: not a reference, or nothing is there; never quotes what was given.
        """
        kind, separator, where = reference.partition(":")
        if not separator or kind not in ("env", "file") or not where:
            raise ValueError("Give a secret as env:NAME or file:path, not itself.")
        if kind == "env":
            value = self._environment.get(where, "")
            if not value:
                raise ValueError(f"The environment variable {where} is not set.")
            return value
        path = Path(where) if where.startswith("/") else self._folder / where
        try:
            with path.open("rb") as stream:
                content = stream.read(MOST_SECRET_BYTES + 1)
            text = content.decode().rstrip("\r\n")
        except OSError as failure:
            raise ValueError(f"{path} cannot be read: {failure.strerror}.") from failure
        except UnicodeDecodeError as failure:
            raise ValueError(f"{path} is not text in UTF-8.") from failure
        if not text or len(content) > MOST_SECRET_BYTES:
            raise ValueError(f"{path} is empty or too large for a secret.")
        return text
