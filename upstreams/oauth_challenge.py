"""Read ``WWW-Authenticate`` (RFC 9110 11.6.1): several challenges, quoted strings (e1)."""

import re
from dataclasses import dataclass, field
from typing import Final

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  the grammar's name for a word
_PARAMETER: Final = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME: Final = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)")
_TOKEN68: Final = re.compile(r"\s*[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
MAX_LENGTH: Final = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge; parameter names are in lower case, the first of a repeated name counts."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(value: str) -> list[Challenge]:
    """Read every challenge of a header value; what cannot be read ends the list."""
    text, position = value[:MAX_LENGTH], 0
    challenges: list[Challenge] = []
    while position < len(text):
        if text[position] in ", \t":
            position += 1
            continue
        parameter = _PARAMETER.match(text, position)
        if parameter and challenges:
            name = parameter.group(1).lower()
            quoted = parameter.group(2)
            found = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else parameter.group(3)
            challenges[-1].parameters.setdefault(name, found)
            position = parameter.end()
            continue
        scheme = _SCHEME.match(text, position)
        if not scheme:
            break
        challenges.append(Challenge(scheme.group(1).lower()))
        position = scheme.end()
        opaque = _TOKEN68.match(text, position)
        if opaque and not _PARAMETER.match(text, position):
            position = opaque.end()
    return challenges


def bearer_challenge(values: list[str]) -> Challenge | None:
    """Return the Bearer challenge of a 401 or 403, preferring one that names its metadata."""
    found = [
        challenge
        for value in values
        for challenge in parse_challenges(value)
        if challenge.scheme in ("bearer", "dpop")
    ]
    named = [challenge for challenge in found if "resource_metadata" in challenge.parameters]
    return next(iter(named or found), None)
