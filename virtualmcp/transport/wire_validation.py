"""Which era a message belongs to, and whether its headers say the same as its body.

Pure decisions over what was read; no I/O. The order of the rules is protocol.md 2.2: the body
decides first, the header alone is never trusted.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from upstreams.canonical_call import ClientFacts
from upstreams.revisions import (
    LEGACY_ACCEPTED,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_VERSION,
    MODERN,
    SUPPORTED,
    Era,
)
from virtualmcp.errors import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION
from virtualmcp.raw_members import text
from virtualmcp.transport.wire_messages import (
    INVALID_REQUEST,
    Message,
    SaidMeta,
    is_object,
    is_token,
)

Headers = Mapping[bytes, bytes]

VERSION_HEADER = b"mcp-protocol-version"
SESSION_HEADER = b"mcp-session-id"
METHOD_HEADER = b"mcp-method"
NAME_HEADER = b"mcp-name"
PARAM_PREFIX = b"mcp-param-"

# From most to least verbose (RFC 5424 names, as both eras use them).
LOG_LEVELS = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)

_MODERN = MODERN.encode()
_LEGACY = frozenset(revision.encode() for revision in LEGACY_ACCEPTED)
NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
_SENTINEL, _SENTINEL_END = b"=?base64?", b"?="
_HEADER_SAFE = bytes((0x09, *range(0x20, 0x7F)))
_NO_HEADERS: dict[str, str] = {}
# Facts of larger size are not remembered between requests.
_REMEMBERED_BYTES = 8_192


class Call(msgspec.Struct, eq=False):
    """A message that may be handled.

    Attributes:
        client: what a modern client said of itself; ``None`` for a legacy one, whose session
            knows.
        session: the session id a legacy client sent, ``b""`` for ``initialize``.
        progress_token: raw JSON, ``b""`` for none.
        log_level: what a modern client asked for in this request, ``""`` for nothing.
        param_headers: the ``Mcp-Param-*`` headers of a modern ``tools/call``.
        name: the tool, prompt or resource that is called, "" for other methods.
    """

    message: Message
    era: Era
    client: ClientFacts | None = None
    session: bytes = b""
    progress_token: bytes = b""
    log_level: str = ""
    param_headers: Mapping[str, str] = {}
    name: str = ""


@dataclass(slots=True)
class Rejection:
    """A message that is refused; ``data`` is raw JSON or ``b""``, ``id`` raw JSON."""

    status: int
    code: int
    message: str
    data: bytes = b""
    id: bytes = b"null"


def classify(headers: Headers, message: Message) -> Call | Rejection:
    """Decide which era a message belongs to and check it by that era's rules."""
    version = headers.get(VERSION_HEADER)
    stated = message.meta.get(META_VERSION)
    if stated is not None:
        return _modern(headers, message, version, text(stated))
    if message.method == "initialize":
        return Call(message, Era.LEGACY)
    if version == _MODERN:
        return _modern_without_meta(message)
    if version is not None and version not in _LEGACY:
        return _unsupported(version.decode("latin-1"), message.id)
    session = headers.get(SESSION_HEADER)
    if session is None:
        return _reject(
            message,
            INVALID_REQUEST,
            "This request belongs to no session. Send initialize first and repeat the "
            f"Mcp-Session-Id it answers with, or speak revision {MODERN}.",
        )
    return legacy_call(message, session)


def unknown_revision(headers: Headers) -> Rejection | None:
    """Return the refusal of a GET or DELETE that names a revision nobody here speaks (a13)."""
    version = headers.get(VERSION_HEADER)
    if version is None or version in _LEGACY or version == _MODERN:
        return None
    return _unsupported(version.decode("latin-1"), b"")


def legacy_call(message: Message, session: bytes) -> Call | Rejection:
    """Return the call of a message within a session."""
    token = message.meta.get("progressToken")
    progress_token = b"" if token is None else bytes(token)
    if progress_token and not is_token(progress_token):
        return _bad_token(message)
    member = NAMED_BY.get(message.method)
    name = "" if member is None else text(message.members.get(member)) or ""
    return Call(message, Era.LEGACY, None, session, progress_token, "", _NO_HEADERS, name)


def _modern(
    headers: Headers, message: Message, version: bytes | None, stated: str | None
) -> Call | Rejection:
    if stated is None:
        return _reject(message, INVALID_PARAMS, f"_meta.{META_VERSION} must be a string.")
    if version is None or version.decode("latin-1") != stated:
        session = headers.get(SESSION_HEADER)
        if session is not None and stated in LEGACY_ACCEPTED and version is None:
            return legacy_call(message, session)
        return _mismatch(message, "MCP-Protocol-Version", f"_meta.{META_VERSION}", version)
    if stated != MODERN:
        session = headers.get(SESSION_HEADER)
        if session is not None and stated in LEGACY_ACCEPTED:
            return legacy_call(message, session)
        return _unsupported(stated, message.id)
    if not message.id:
        return Call(message, Era.MODERN)
    member = NAMED_BY.get(message.method)
    name = None if member is None else text(message.members.get(member))
    return _header_fault(headers, message, member, name) or _modern_call(headers, message, name)


def _modern_call(headers: Headers, message: Message, name: str | None) -> Call | Rejection:
    said = message.meta
    kept = said.read if isinstance(said, SaidMeta) else None
    asked = kept if kept is not None else _read_meta(message)
    if isinstance(asked, Rejection):
        return asked
    if kept is None and isinstance(said, SaidMeta):
        said.read = asked
    client, progress_token, log_level = asked
    return Call(
        message,
        Era.MODERN,
        client,
        b"",
        progress_token,
        log_level,
        _param_headers(headers) if message.method == "tools/call" else _NO_HEADERS,
        name or "",
    )


def _read_meta(message: Message) -> tuple[ClientFacts, bytes, str] | Rejection:
    """Read what a stateless client says of itself: its facts, progress token and log level."""
    meta = message.meta
    capabilities = meta.get(META_CLIENT_CAPABILITIES)
    if capabilities is None or not is_object(capabilities):
        return _reject(
            message, INVALID_PARAMS, f"_meta.{META_CLIENT_CAPABILITIES} must be an object."
        )
    info = meta.get(META_CLIENT_INFO)
    log_level = ""
    if META_LOG_LEVEL in meta:
        log_level = text(meta[META_LOG_LEVEL]) or ""
        if log_level not in LOG_LEVELS:
            return _reject(message, INVALID_PARAMS, f"_meta.{META_LOG_LEVEL} must be a log level.")
    token = meta.get("progressToken")
    progress_token = b"" if token is None else bytes(token)
    if progress_token and not is_token(progress_token):
        return _bad_token(message)
    facts = client_facts(MODERN, bytes(capabilities), bytes(info) if is_object(info) else b"")
    return facts, progress_token, log_level


def _modern_without_meta(message: Message) -> Call | Rejection:
    if message.response:
        return _reject(
            message, INVALID_REQUEST, f"Revision {MODERN} has no responses from clients."
        )
    if not message.id:
        return Call(message, Era.MODERN)
    return _reject(
        message,
        INVALID_PARAMS,
        f"A request of revision {MODERN} needs params._meta with {META_VERSION} and "
        f"{META_CLIENT_CAPABILITIES}.",
    )


def _header_fault(
    headers: Headers, message: Message, member: str | None, name: str | None
) -> Rejection | None:
    """Compare the mirrored headers with the body (a29)."""
    method = headers.get(METHOD_HEADER)
    if method is None or method.decode("latin-1") != message.method:
        return _mismatch(message, "Mcp-Method", "method", method)
    if member is None:
        return None
    sent = headers.get(NAME_HEADER)
    if name is None:
        # What is missing in the body is the router's to report, unless a header claims it.
        return None if sent is None else _mismatch(message, "Mcp-Name", f"params.{member}", sent)
    if sent is None or decoded_value(sent) != name:
        return _mismatch(message, "Mcp-Name", f"params.{member}", sent)
    return None


def decoded_value(value: bytes) -> str | None:
    """Return what a mirrored header stands for, ``None`` if it is not well-formed.

    Values that do not fit a header travel as ``=?base64?...?=`` (the revision's "Value
    Encoding").
    """
    if value.startswith(_SENTINEL) and value.endswith(_SENTINEL_END):
        try:
            return base64.b64decode(
                value[len(_SENTINEL) : -len(_SENTINEL_END)], validate=True
            ).decode()
        except (binascii.Error, ValueError):
            return None
    if value.translate(None, _HEADER_SAFE):
        return None
    return value.decode("ascii")


def _param_headers(headers: Headers) -> Mapping[str, str]:
    if PARAM_PREFIX not in b" ".join(headers):
        return _NO_HEADERS
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers.items()
        if name.startswith(PARAM_PREFIX)
    }


def client_facts(revision: str, capabilities: bytes, client_info: bytes) -> ClientFacts:
    """Return the facts of a client; equal ones are the same object where they are small."""
    if len(capabilities) + len(client_info) > _REMEMBERED_BYTES:
        return _client_facts(revision, capabilities, client_info)
    return _remembered_facts(revision, capabilities, client_info)


def _client_facts(revision: str, capabilities: bytes, client_info: bytes) -> ClientFacts:
    try:
        canonical = msgspec.json.encode(msgspec.json.decode(capabilities), order="sorted")
    except (msgspec.MsgspecError, UnicodeError):
        canonical = capabilities
    fingerprint = hashlib.blake2b(canonical, digest_size=8).hexdigest()
    return ClientFacts(revision, capabilities, client_info, fingerprint)


_remembered_facts = lru_cache(maxsize=2_048)(_client_facts)


def _reject(message: Message, code: int, text: str, data: bytes = b"") -> Rejection:
    return Rejection(400, code, text, data, message.id or b"null")


def _bad_token(message: Message) -> Rejection:
    return _reject(message, INVALID_PARAMS, "_meta.progressToken must be a string or an integer.")


def _mismatch(message: Message, header: str, member: str, sent: bytes | None) -> Rejection:
    fault = "is missing" if sent is None else f"does not repeat {member}"
    return _reject(
        message,
        HEADER_MISMATCH,
        f"Header mismatch: {header} {fault}. Send it with the value of {member}.",
    )


def _unsupported(requested: str, id: bytes) -> Rejection:
    data = msgspec.json.encode({"supported": SUPPORTED, "requested": requested[:100]})
    return Rejection(
        400,
        UNSUPPORTED_VERSION,
        "This protocol version is not supported. Use one of the supported ones.",
        data,
        id or b"null",
    )
