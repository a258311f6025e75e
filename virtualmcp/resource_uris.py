"""The reversible mapping of URIs between an upstream and the public (protocol.md 3.3). Pure.

    ui://board/view.html   ->  ui://{key}+board/view.html   (hosts require the scheme ui)
    notes://7              ->  {key}+notes://7
    https://example.com/x  ->  unchanged: a client may fetch it itself; routed by who listed it

It is algorithmic, so it also holds for templates and for URIs that no list ever named. Upstream
keys match ``[a-z][a-z0-9-]*``, so the first ``+`` ends the key and the result is a valid scheme
(RFC 3986 section 3.1).
"""

import re
from dataclasses import dataclass

_UI = "ui://"
_WEB = re.compile(r"https:", re.IGNORECASE)
_MAPPED = re.compile(r"([a-z][a-z0-9-]{0,30})\+(.*)", re.DOTALL)


@dataclass(slots=True, frozen=True)
class Owner:
    """What a public URI says about itself: the upstream's key and the URI there."""

    key: str
    uri: str


def to_public(key: str, uri: str) -> str:
    """Return the public form of an upstream's URI or URI template."""
    if uri.startswith(_UI):
        return f"{_UI}{key}+{uri[len(_UI) :]}"
    if is_web(uri):
        return uri
    return f"{key}+{uri}"


def is_web(uri: str) -> bool:
    """Tell whether a client may fetch this itself, so that it must not change."""
    return _WEB.match(uri) is not None


def to_upstream(uri: str) -> Owner | None:
    """Undo ``to_public``; ``None`` for a URI that names no upstream.

    The key is not checked: whether such an upstream is offered is the caller's to know.
    """
    ui = uri.startswith(_UI)
    found = _MAPPED.fullmatch(uri[len(_UI) :] if ui else uri)
    if found is None:
        return None
    key, rest = found.groups()
    return Owner(key, _UI + rest if ui else rest)


def literal_start(template: str) -> str:
    """Return what stands before the first variable of a URI template (RFC 6570)."""
    return template.partition("{")[0]
