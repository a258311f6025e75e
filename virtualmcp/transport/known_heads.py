"""What the head of an earlier request said, for requests that begin with the same head.

A known head decides nothing. It says which objects were current when it was looked at: the
snapshot of the Virtual MCP, the token's holder, the allowed hosts and origins. ``stands`` looks
each of them up anew, and what they mean is decided again as soon as one is another object. So a
revocation, the end of a token or a change of the configuration ends it at once, as it ends
everything else.
"""

import weakref
from collections.abc import Mapping
from typing import NamedTuple

from oauthserver import bearer_tokens
from oauthserver.bearer_tokens import TokenHolder
from upstreams.canonical_call import ClientFacts
from upstreams.revisions import Era
from virtualmcp import access_policy, person_view, route_table
from virtualmcp.route_table import VirtualMcpFacts
from virtualmcp.transport import request_gate
from virtualmcp.transport.endpoint import is_endpoint, slug_in
from virtualmcp.transport.http_answers import Accepts, Header, Refusal, accepts
from virtualmcp.transport.wire_messages import Message, SaidMeta
from virtualmcp.transport.wire_validation import NAMED_BY, Call, Rejection, classify

# Longer names are checked each time rather than kept.
MOST_NAME_BYTES = 1_024


class _Said(NamedTuple):
    """A request of a stateless client that was checked against this head, and what it came to.

    ``meta`` and ``raw_name``, with the head, are all that the checks look at.
    """

    meta: SaidMeta
    method: str
    raw_name: bytes
    client: ClientFacts | None
    log_level: str
    param_headers: Mapping[str, str]
    name: str


class KnownHead:
    """A head that was admitted, of a POST to a Virtual MCP.

    Attributes:
        fields: the headers that belong to MCP; the token is kept as a digest only.
        extra: headers for the answer.
        holder: whose token it is.
        most_bytes: how large a body may be.
    """

    __slots__ = (
        "_addresses",
        "_said",
        "_seen",
        "_server",
        "_token",
        "accepts",
        "extra",
        "fields",
        "holder",
        "most_bytes",
        "slug",
    )

    def __init__(
        self,
        slug: str,
        token: bytes,
        fields: Mapping[bytes, bytes],
        accepts: Accepts,
        extra: tuple[Header, ...],
    ) -> None:
        self._addresses = request_gate.addresses()
        self._token = token
        self._server: weakref.ref[VirtualMcpFacts] | None = None
        self._seen: weakref.ref[VirtualMcpFacts] | None = None
        self._said: _Said | None = None
        self.slug = slug
        self.fields = fields
        self.accepts = accepts
        self.extra = extra
        self.holder: TokenHolder | None = None
        self.most_bytes = self._addresses.most_bytes

    def classify(self, message: Message) -> Call | Rejection:
        """Return what ``wire_validation.classify`` makes of a request with this head.

        A client says the same of itself each time: it is checked once for each name it calls.
        """
        said, meta, method = self._said, message.meta, message.method
        raw_name = bytes(message.members.get(NAMED_BY.get(method, ""), b""))
        if (
            said is not None
            and said.meta is meta
            and said.method == method
            and said.raw_name == raw_name
        ):
            _, _, _, client, log_level, param_headers, name = said
            return Call(message, Era.MODERN, client, b"", b"", log_level, param_headers, name)
        call = classify(self.fields, message)
        # What is said of a request's progress is part of no ``SaidMeta``.
        if (
            isinstance(call, Call)
            and call.era is Era.MODERN
            and isinstance(meta, SaidMeta)
            and len(raw_name) <= MOST_NAME_BYTES
        ):
            self._said = _Said(
                meta, method, raw_name, call.client, call.log_level, call.param_headers, call.name
            )
        return call

    def standing(self) -> VirtualMcpFacts | None:
        """Return the Virtual MCP as this person sees it; None where not all of it is in memory, or
        they may not use it."""
        server = route_table.cached(self.slug)
        if server is None or request_gate.addresses() is not self._addresses:
            return None
        holder = bearer_tokens.held(self._token, server.resource)
        if holder is None:
            return None
        if holder is self.holder and self._server is not None and self._seen is not None:
            seen = self._seen()
            if self._server() is server and seen is not None:
                return seen
        if not access_policy.may_use(holder, server):
            return None
        seen = person_view.seen_by(server, holder.group_ids)
        self.holder = holder
        self._server, self._seen = weakref.ref(server), weakref.ref(seen)
        return seen


def read(path: str, raw: list[Header]) -> KnownHead | None:
    """Return what a head says, None for one that is refused or whose token is not in memory.

    It is looked at as ``McpEndpoint`` looks at it; one with a header twice is not remembered.
    """
    if not is_endpoint(path):
        return None
    try:
        headers = request_gate.headers_of(raw)
        request_gate.check_host(headers)
        extra = request_gate.cors_headers(headers.get(b"origin"))
        request_gate.check_content(headers)
    except Refusal:
        return None
    token = bearer_tokens.key_of(headers.get(b"authorization", b""))
    accepted = accepts(headers.get(b"accept", b""))
    if token is None or not accepted.json or len(headers) != len(raw):
        return None
    fields = {name: value for name, value in headers.items() if name.startswith(b"mcp-")}
    head = KnownHead(slug_in(path), token, fields, accepted, extra)
    return None if head.standing() is None else head
