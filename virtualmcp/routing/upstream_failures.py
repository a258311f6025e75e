"""How failures of upstreams read to the client (protocol.md 2.3.9).

They travel with HTTP 200: a 4xx would make a client doubt the era it speaks, and 401 or 403 would
send it to authorize against the gateway. The one exception is a capability the client lacks.
"""

import msgspec

from upstreams.errors import UpstreamBusy, UpstreamError
from upstreams.revisions import Era
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import raw_members
from virtualmcp.eras.conversion import READ
from virtualmcp.errors import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_CLIENT_CAPABILITY,
    RESOURCE_NOT_FOUND_LEGACY,
    UNSUPPORTED_VERSION,
    RequestRefused,
    ScopeInsufficient,
)
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing.client_request import Answer, ClientRequest, WireError
from virtualmcp.secret_redaction import clean_json, clean_text

# What the specification keeps for itself, and what it takes a server's errors from (a4).
_RESERVED = range(-32099, -32019)
_SERVER_DEFINED = range(-32019, -31999)
_NEXT_STEP = {
    "unreachable": "Try again in a moment; if it stays so, tell your administrator.",
    "egress_refused": "Your administrator has to check its address.",
    "timeout": "Whether it was carried out is not known: look before you repeat it.",
    "busy": "Try again later.",
    "answer_invalid": "Tell your administrator if it stays so.",
    "incompatible": "Your administrator has to update or remove it.",
    "credential_refused": "Your administrator has to renew the credential of the gateway.",
    "scope_insufficient": "Your administrator has to give the gateway more permissions.",
    "setup_failed": "Your administrator can see the failing step in the admin.",
}


def refusal(refused: RequestRefused) -> Answer:
    """Return the answer for a request that never went to an upstream."""
    scope = refused.scope if isinstance(refused, ScopeInsufficient) else ""
    return Answer(
        error=WireError(refused.code, refused.message, refused.data, refused.http_status, scope)
    )


def from_exception(facts: UpstreamFacts, error: UpstreamError) -> Answer:
    """Return the answer for a call that failed on its way: -32603, naming the upstream."""
    message = named(facts, error.message)
    step = _NEXT_STEP.get(error.code, "")
    data: dict[str, object] = {"upstream": facts.key, "reason": error.code}
    if isinstance(error, UpstreamBusy) and error.retry_after is not None:
        step = f"Try again in {max(1, round(error.retry_after))} seconds."
        data["retryAfter"] = error.retry_after
    if step and step not in message:
        message = f"{message.rstrip('.')}. {step}"
    return Answer(error=WireError(INTERNAL_ERROR, message, raw_members.write(data)))


def named(facts: UpstreamFacts, message: str) -> str:
    """Return a message that says which upstream it is about."""
    said = message.strip()
    return said if facts.title in said else f"{facts.title}: {said}"


def unusable(facts: UpstreamFacts, what: str) -> Answer:
    """Return the answer for a result that is not one."""
    message = f"{facts.title} {what} Tell your administrator if it stays so."
    data = raw_members.write({"upstream": facts.key, "reason": "answer_invalid"})
    return Answer(error=WireError(INTERNAL_ERROR, message, data))


def holder_lost(facts: UpstreamFacts, *, passed_on: bool) -> Answer:
    """Return the answer for a call that was lost with the process that held it; ``passed_on``:
    the upstream had got an answer of the person's by then."""
    text = f"The gateway process that held this call to {facts.title} ended. " + (
        "Your answer had been passed on; whether the call was carried out is not known: look "
        "before you repeat it."
        if passed_on
        else "Your answer was not passed on and the call was cancelled. Make the request anew."
    )
    data = raw_members.write({"upstream": facts.key, "reason": "holder_lost"})
    return Answer(error=WireError(INTERNAL_ERROR, text, data))


def capability_missing(
    request: ClientRequest, facts: UpstreamFacts, required: dict[str, object]
) -> Answer:
    """Return the answer for a call that can only go on if the client could be asked (a6)."""
    names = ", ".join(required)
    message = named(facts, f"asks for {names}. Use a client that supports it.")
    data = raw_members.write({"requiredCapabilities": required})
    if request.era is Era.MODERN:
        return Answer(error=WireError(MISSING_CLIENT_CAPABILITY, message, data, 400))
    return Answer(error=WireError(INTERNAL_ERROR, message, data))


def lacks_capability(required: bytes) -> Answer:
    """Return the answer for a request that needs what the client did not declare (a50)."""
    message = "This needs a capability that your client did not declare with the request."
    return Answer(error=WireError(MISSING_CLIENT_CAPABILITY, message, required, 400))


def not_found(request: ClientRequest, uri: str) -> Answer:
    """Return the answer for a resource that does not exist, in the era's code (a38)."""
    code = INVALID_PARAMS if request.era is Era.MODERN else RESOURCE_NOT_FOUND_LEGACY
    data = raw_members.write({"uri": uri})
    return Answer(error=WireError(code, "Resource not found. List the resources again.", data))


def from_json_rpc(
    request: ClientRequest,
    facts: UpstreamFacts,
    error: bytes,
    *,
    modern_upstream: bool,
    secrets: tuple[str, ...],
) -> Answer:
    """Return the answer for an upstream's own JSON-RPC error.

    Code and data are kept where the client's revision allows them; otherwise the original goes
    into ``data``. In an aggregate the message says whose it is.
    """
    try:
        members = raw_members.read(clean_json(error, secrets))
        code = raw_members.value(members.get("code", msgspec.Raw(b"null")))
    except NotAnObject:
        return unusable(facts, "answered with an error that can't be read.")
    if not isinstance(code, int) or isinstance(code, bool):
        return unusable(facts, "answered with an error without a code.")
    message = clean_text(raw_members.text(members.get("message")) or "It failed.", secrets)
    if not request.server.transparent:
        message = f"{facts.key}: {message}"
    data = bytes(members.get("data", b""))
    public, status = _public_code(request, code, modern_upstream)
    if public != code and public == INTERNAL_ERROR:
        original: dict[str, object] = {"upstream": facts.key, "code": code}
        if data:
            original["data"] = msgspec.Raw(data)
        data = raw_members.write(original)
    return Answer(error=WireError(public, message, data, status))


def _public_code(request: ClientRequest, code: int, modern_upstream: bool) -> tuple[int, int]:
    """Return the code for the client's revision, and the HTTP status."""
    if code in (HEADER_MISMATCH, UNSUPPORTED_VERSION):
        return INTERNAL_ERROR, 200
    if request.era is Era.LEGACY:
        if code == INVALID_PARAMS and modern_upstream and request.method == READ:
            return RESOURCE_NOT_FOUND_LEGACY, 200
        if code == MISSING_CLIENT_CAPABILITY:
            return INTERNAL_ERROR, 200
        return code, 200
    if code == MISSING_CLIENT_CAPABILITY:
        return code, 400
    if code == RESOURCE_NOT_FOUND_LEGACY:
        return INVALID_PARAMS, 200
    if code in _RESERVED or code in _SERVER_DEFINED:
        return INTERNAL_ERROR, 200
    return code, 200
