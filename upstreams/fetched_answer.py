"""What a control-plane request was answered, and the strict reading of it as a JSON object."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from upstreams.errors import UpstreamAnswerInvalid

MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class FetchedAnswer:
    """A complete answer; header names are in lower case, repeated headers kept apart."""

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """Return the first value of a header, "" if it is absent."""
        return next((value for key, value in self.headers if key == name), "")

    def header_values(self, name: str) -> list[str]:
        """Return every value of a header."""
        return [value for key, value in self.headers if key == name]

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            UpstreamAnswerInvalid: HTML, no object, not UTF-8, duplicate names, NaN, too deep.
        """
        if "html" in self.header("content-type").lower():
            raise UpstreamAnswerInvalid(
                "The server answered with a web page where a document was expected.",
                detail=f"{self.url} answered {self.status} with HTML",
            )
        return parse_object(self.body, self.url)


def parse_object(body: bytes, url: str = "") -> dict[str, Any]:
    """Read one JSON object strictly.

    Raises:
        UpstreamAnswerInvalid: it is not one, or two programs could read it differently.
    """
    try:
        parsed = json.loads(
            body.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constants
        )
    except (ValueError, RecursionError) as error:
        raise _not_json(url, type(error).__name__) from error
    if not isinstance(parsed, dict):
        raise _not_json(url, "not an object")
    if _depth(parsed) > MAX_DEPTH:
        raise _not_json(url, "too deep")
    return parsed


def _not_json(url: str, reason: str) -> UpstreamAnswerInvalid:
    return UpstreamAnswerInvalid(
        "The server's answer is not a proper JSON document.", detail=f"{url}: {reason}"
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constants(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _depth(value: Any) -> int:
    deepest, open_values = 0, [(value, 1)]
    while open_values:
        current, level = open_values.pop()
        deepest = max(deepest, level)
        if isinstance(current, dict):
            open_values.extend((inner, level + 1) for inner in current.values())
        elif isinstance(current, list):
            open_values.extend((inner, level + 1) for inner in current)
    return deepest
