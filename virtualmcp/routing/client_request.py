"""What passes between the wire and the router: one request in, one answer out.

Payloads are raw JSON throughout. A request holds what the client sent, in public names and
URIs; an answer holds what the client will read, already in the form of its revision.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from upstreams.canonical_call import ClientFacts
from upstreams.revisions import Era

if TYPE_CHECKING:
    from oauthserver.bearer_tokens import TokenHolder
    from virtualmcp.route_table import VirtualMcpFacts
    from virtualmcp.routing.orphaned_calls import Orphan


class ClientRequest(msgspec.Struct, frozen=True, eq=False):
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
        members: the first level of ``params`` where it has been read already.
        name: the tool, prompt or resource called, where that has been read already.
        orphan: what is left of this call where the process that made it has died.
        session: the digest of a stateful client's session, ``""`` for a stateless client.
    """

    server: "VirtualMcpFacts"
    holder: "TokenHolder"
    era: Era
    method: str
    params: bytes = b""
    client: ClientFacts = ClientFacts()
    progress_token: bytes = b""
    log_level: str = ""
    param_headers: Mapping[str, str] = {}
    members: Mapping[str, msgspec.Raw] | None = None
    name: str | None = None
    orphan: "Orphan | None" = None
    session: str = ""

    @property
    def owner(self) -> str:
        """The client's name towards upstreams' questions: its session's digest, or, of a
        stateless client, what never looks like one."""
        return self.session or f"{self.holder.client_id} {self.server.slug}"


class WireError(msgspec.Struct, frozen=True):
    """A JSON-RPC error as the client reads it.

    ``data`` is raw JSON or ``b""``. ``http_status`` is 200 for everything that is not a fault
    of the request itself (protocol.md D11). ``scope`` is what a 403 asks for.
    """

    code: int
    message: str
    data: bytes = b""
    http_status: int = 200
    scope: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Exactly one of a raw JSON ``result`` and an ``error``.

    ``front`` are raw members that stand in front of the result's own, without being in it yet: so
    a large result is not copied for what is added to it.
    """

    result: bytes = b""
    error: WireError | None = None
    front: bytes = b""

    def pieces(self) -> tuple[bytes, bytes | memoryview]:
        """Return the result in two pieces, the second of which is large where the result is."""
        front, raw = self.front, self.result
        if not front:
            return b"", raw
        start = raw.index(b"{") + 1
        empty = raw[start : start + 1] != b'"' and raw[start:].lstrip()[:1] == b"}"
        return b"{%b%b" % (front, b"" if empty else b","), memoryview(raw)[start:]

    def whole(self) -> bytes:
        """Return the result in one piece."""
        return b"".join(self.pieces()) if self.front else self.result
