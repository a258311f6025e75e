"""What a client can be asked, as far as the router must know."""

from functools import lru_cache
from typing import Any

from upstreams.revisions import LEGACY_LATEST, Era
from virtualmcp import raw_members
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing.client_request import ClientRequest

TASKS = "io.modelcontextprotocol/tasks"
# What a client has to declare that asks about tasks, as data of error -32021.
LACKS_TASKS = b'{"requiredCapabilities":{"extensions":{"%s":{}}}}' % TASKS.encode()
# The only methods that may end with a question (a43).
QUESTION_METHODS = frozenset({"tools/call", "prompts/get", "resources/read"})


@lru_cache(maxsize=1_024)
def _opens_urls(capabilities: bytes) -> bool:
    try:
        declared: Any = raw_members.value(capabilities)
    except NotAnObject:
        return False
    elicitation = declared.get("elicitation") if isinstance(declared, dict) else None
    return isinstance(elicitation, dict) and isinstance(elicitation.get("url"), dict)


@lru_cache(maxsize=1_024)
def _has_extension(capabilities: bytes, name: str) -> bool:
    try:
        declared: Any = raw_members.value(capabilities)
    except NotAnObject:
        return False
    extensions = declared.get("extensions") if isinstance(declared, dict) else None
    return isinstance(extensions, dict) and isinstance(extensions.get(name), dict)


def takes_tasks(request: ClientRequest) -> bool:
    """Whether a call may end with a task: stateless clients that declared it for this request."""
    return request.era is Era.MODERN and _has_extension(request.client.capabilities, TASKS)


def takes_url_errors(request: ClientRequest) -> bool:
    """Whether error -32042 with URLs is understood: 2025-11-25 only, and only where declared."""
    return (
        request.era is Era.LEGACY
        and request.client.revision == LEGACY_LATEST
        and _opens_urls(request.client.capabilities)
    )


def takes_url_questions(request: ClientRequest) -> bool:
    """Whether the request may end with an URL elicitation to be opened before a retry."""
    return (
        request.era is Era.MODERN
        and request.method in QUESTION_METHODS
        and _opens_urls(request.client.capabilities)
    )
