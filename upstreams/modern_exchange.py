"""One call to a stateless upstream (2026-07-28): one POST, nothing kept (protocol.md b1-b6).

Leaving the exchange early closes the stream, which is the cancellation (b15).
"""

import base64
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from upstreams import json_rpc, relay_client
from upstreams.call_answer import AwaitedAnswer, seconds_for, token_for
from upstreams.canonical_call import CallSink, CanonicalCall, Outcome
from upstreams.client_capabilities import capabilities_for
from upstreams.json_rpc import Members, Raw
from upstreams.relay_client import RelayExchange
from upstreams.revisions import (
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_VERSION,
    MODERN,
    OWN_CLIENT_INFO,
)
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential
    from upstreams.sent_call import SentCall

# Methods without effects: a second try does no harm (protocol.md 2.3.1).
REPEATABLE: Final = frozenset(
    {
        "server/discover",
        "initialize",
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "completion/complete",
        "tasks/get",
        "tasks/result",
    }
)
JSON_HEADERS: Final = (
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json, text/event-stream"),
)
_OWN_INFO: Final = json_rpc.encode(OWN_CLIENT_INFO)
_PLAIN_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?\Z")


def encode_header_value(value: str) -> bytes:
    """Return a name or URI as a header value, in Base64 where it would not survive (b3).

    Streamable HTTP, Value Encoding: also what merely looks like the Base64 form is encoded.
    """
    looks_encoded = value.startswith("=?base64?") and value.endswith("?=")
    if _PLAIN_VALUE.match(value) and not looks_encoded:
        return value.encode("ascii")
    return b"=?base64?%s?=" % base64.b64encode(value.encode("utf-8", "surrogatepass"))


@lru_cache(maxsize=4096)
def mirror_headers(method: str, name: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the request headers that repeat the body."""
    headers = (
        *JSON_HEADERS,
        (b"MCP-Protocol-Version", MODERN.encode()),
        (b"Mcp-Method", encode_header_value(method)),
    )
    return (*headers, (b"Mcp-Name", encode_header_value(name))) if name else headers


def modern_params(call: CanonicalCall, token: str) -> bytes:
    """Return the params with the stateless revision's ``_meta`` (b2).

    They go out untouched when they have it already and no progress token must be replaced.
    ``_meta`` members that the gateway does not know stay as they are.
    """
    if call.params_are_modern and not token:
        return call.params
    members = json_rpc.members_of(call.params or b"{}")
    found = members.get("_meta")
    meta: Members = json_rpc.members_of(found) if found is not None else {}
    if not call.params_are_modern:
        facts = call.facts
        meta[META_VERSION] = Raw(b'"%s"' % MODERN.encode())
        meta[META_CLIENT_CAPABILITIES] = Raw(capabilities_for(MODERN, facts.capabilities))
        meta[META_CLIENT_INFO] = Raw(facts.client_info or _OWN_INFO)
        if call.log_level:
            meta[META_LOG_LEVEL] = Raw(json_rpc.encode(call.log_level))
    meta.pop("progressToken", None)
    if token:
        meta["progressToken"] = Raw(json_rpc.encode(token))
    members["_meta"] = Raw(json_rpc.object_of(meta))
    return json_rpc.object_of(members)


def request(
    facts: UpstreamFacts, credential: "Credential", call: CanonicalCall, request_id: str
) -> RelayExchange:
    """Return the exchange that makes the call; nothing is sent yet."""
    params = modern_params(call, token_for(call, request_id))
    headers = mirror_headers(call.method, call.name)
    if call.param_headers:
        headers += tuple(
            (n.encode("utf-8", "surrogatepass"), v.encode("utf-8", "surrogatepass"))
            for n, v in call.param_headers
        )
    return relay_client.post(
        facts,
        credential,
        headers,
        json_rpc.request(request_id, call.method, params),
        timeout=seconds_for(facts, call),
        resend=call.method in REPEATABLE,
    )


async def exchange(
    facts: UpstreamFacts,
    credential: "Credential",
    call: CanonicalCall,
    sink: CallSink,
    sent: "SentCall | None" = None,
) -> tuple[Outcome, int]:
    """Make the call, or go on with the one that was sent; returns how it ended and the HTTP status.

    Raises:
        UpstreamError: see ``call_answer.AwaitedAnswer.outcome`` and ``relay_client``.
    """
    request_id = "" if sent is None else sent.request_id
    awaited = AwaitedAnswer(facts, call, sink, modern=True, request_id=request_id)
    made = request(facts, credential, call, awaited.request_id) if sent is None else sent.exchange
    async with made as answer:
        return awaited.at_once(answer) or await awaited.outcome(answer), answer.status
