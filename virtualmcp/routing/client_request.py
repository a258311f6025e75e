"""What passes between the wire and the router: one request in, one answer out.

Payloads are raw JSON throughout. A request holds what the client sent, in public names and
URIs; an answer holds what the client will read, already in the form of its revision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from upstreams.canonical_call import ClientFacts
from upstreams.revisions import Era

if TYPE_CHECKING:
    from oauthserver.bearer_tokens import TokenHolder
    from virtualmcp.route_table import VirtualMcpFacts


@dataclass(slots=True, frozen=True)
class ClientRequest:
    """One request of an authenticated client to one Virtual MCP.

    Attributes:
        server: the snapshot this request is answered from, also if the configuration changes
            meanwhile.
        holder: whose token came with the request.
        era: family of the client's revision.
        method: JSON-RPC method.
        params: raw JSON object, or ``b""`` for none.
        client: the client's revision, capabilities and name.
        progress_token: raw JSON of the client's progress token, ``b""`` for none.
        log_level: least severe level the client wants to hear of, ``""`` for none.
        param_headers: ``Mcp-Param-*`` headers as they came; names are compared without case.
    """

    server: "VirtualMcpFacts"
    holder: "TokenHolder"
    era: Era
    method: str
    params: bytes = b""
    client: ClientFacts = field(default_factory=ClientFacts)
    progress_token: bytes = b""
    log_level: str = ""
    param_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class WireError:
    """A JSON-RPC error as the client reads it.

    ``data`` is raw JSON or ``b""``. ``http_status`` is 200 for everything that is not a fault
    of the request itself (protocol.md D11). ``scope`` is what a 403 asks for.
    """

    code: int
    message: str
    data: bytes = b""
    http_status: int = 200
    scope: str = ""


@dataclass(slots=True, frozen=True)
class Answer:
    """Exactly one of a raw JSON ``result`` and an ``error``."""

    result: bytes = b""
    error: WireError | None = None
