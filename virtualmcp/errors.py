"""What a request can be refused for on its way to an upstream.

    RequestRefused             carries the JSON-RPC error as the client will read it
    ├── ParamsInvalid          -32602: a member of params is missing or of the wrong type
    ├── NameUnknown            -32602: no such tool or prompt here, or none this person may use
    ├── NameAmbiguous          -32602: a bare name with several owners; names the candidates
    ├── DefinitionHeld         -32602: its definition waits for an administrator's approval
    ├── ScopeInsufficient      -31003, HTTP 403: the tool changes something, the token only reads
    ├── ResourceUnknown        -32602 (modern) or -32002 (legacy): nobody here has this URI
    ├── CursorInvalid          -32602: not our cursor, or one for a list that has changed
    ├── StateInvalid           -32602: requestState that is not ours, not theirs, or too old
    └── HeaderMismatch         -32020, HTTP 400: Mcp-Param-* does not repeat the arguments

Failures of upstreams are ``upstreams.errors``; ``routing/upstream_failures.py`` words them.
"""

from typing import ClassVar

INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
METHOD_NOT_FOUND = -32601
# Ours, outside the range that JSON-RPC reserves (a4).
INSUFFICIENT_SCOPE = -31003
HEADER_MISMATCH = -32020
MISSING_CLIENT_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022
RESOURCE_NOT_FOUND_LEGACY = -32002
URL_ELICITATION_REQUIRED = -32042


class RequestRefused(Exception):
    """Base: the request itself can't be answered. ``message`` is for the client to read."""

    code: ClassVar[int] = INVALID_PARAMS
    http_status: ClassVar[int] = 200

    def __init__(self, message: str, *, data: bytes = b"") -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class ParamsInvalid(RequestRefused):
    """A member of ``params`` is missing or of the wrong type."""


class NameUnknown(RequestRefused):
    """No such tool or prompt; what may not be used looks exactly like what does not exist."""


class NameAmbiguous(RequestRefused):
    """A bare name that several upstreams own."""


class DefinitionHeld(RequestRefused):
    """What the upstream says of a tool or prompt is new or changed, and not approved yet."""


class ScopeInsufficient(RequestRefused):
    """The call needs more scopes than the token has (RFC 6750 3.1).

    ``scope`` holds all that this client needs here: what it has and what it lacks (c8).
    """

    code = INSUFFICIENT_SCOPE
    http_status = 403

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class ResourceUnknown(RequestRefused):
    """No upstream of this Virtual MCP has this URI."""


class CursorInvalid(RequestRefused):
    """The cursor is not one of ours, or the list it belongs to has changed."""


class StateInvalid(RequestRefused):
    """``requestState`` was altered, belongs to another request or person, or is too old."""


class HeaderMismatch(RequestRefused):
    """An ``Mcp-Param-*`` header and the argument it should repeat differ (a30)."""

    code = HEADER_MISMATCH
    http_status = 400
