"""What a token is for: exactly one Virtual MCP, named by its URL (RFC 8707, protocol.md c5).

This room does not know Virtual MCPs; their room registers how to look them up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

MAX_LENGTH = 500
PATH = "/v1/mcp/"


@dataclass(frozen=True)
class Resource:
    """A protected resource: its URI as published, its slug and its title for people.

    ``further_scopes`` may be asked for beside the usual ones, at this resource only.
    """

    uri: str
    slug: str
    title: str
    further_scopes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Lookup:
    find: Callable[[str], Resource | None]
    may_use: Callable[[Any, Resource], bool]
    all_for: Callable[[Any], list[Resource]]
    everything: Callable[[], list[Resource]]


_lookup: _Lookup | None = None


def register_resource_lookup(
    find: Callable[[str], Resource | None],
    may_use: Callable[[Any, Resource], bool],
    all_for: Callable[[Any], list[Resource]],
    everything: Callable[[], list[Resource]] = list,
) -> None:
    """Say how resources are found. Called once, when the applications are ready.

    Args:
        find: the resource of a canonical URI, or None if it is unknown or switched off.
        may_use: whether a user may use it now.
        all_for: every resource a user may use, in the order to show them.
        everything: every resource there is, for administrators to choose from.
    """
    global _lookup
    _lookup = _Lookup(find, may_use, all_for, everything)


def canonical(uri: str) -> str:
    """Return ``uri`` without its one trailing slash: both name the same audience (c12)."""
    return uri.removesuffix("/")


def find_resource(uri: str) -> Resource | None:
    """Return the resource that ``uri`` names exactly, or None. May query the database."""
    wanted = canonical(uri)
    if len(uri) > MAX_LENGTH or not wanted.startswith(settings.PUBLIC_URL + PATH):
        return None
    resource = _registered().find(wanted)
    return resource if resource is not None and resource.uri == wanted else None


def may_use(user: Any, resource: Resource) -> bool:
    """Whether ``user`` may use ``resource`` now; an inactive user may use nothing."""
    return bool(user.is_active) and _registered().may_use(user, resource)


def resources_for(user: Any) -> list[Resource]:
    """Return every resource ``user`` may use."""
    return _registered().all_for(user) if user.is_active else []


def every_resource() -> list[Resource]:
    """Return every resource there is."""
    return _registered().everything()


def exact_audience(uri: str, audiences: list[str]) -> bool:
    """Whether a token for ``audiences`` is valid at ``uri``: one audience, equal, no prefix."""
    return len(audiences) == 1 and canonical(uri) == audiences[0]


def _registered() -> _Lookup:
    if _lookup is None:
        raise RuntimeError("No resource lookup is registered; is the virtualmcp app installed?")
    return _lookup
