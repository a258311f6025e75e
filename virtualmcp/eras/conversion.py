"""Results in the form of the client's revision (protocol.md 2.3.3, 2.3.12). Pure.

A result is looked into only where the eras differ, and what is added stands in front, so its own
bytes stay as they are.
"""

import msgspec

from upstreams import result_heads
from upstreams.result_heads import ResultHead
from upstreams.revisions import META_SERVER_INFO, Era
from virtualmcp import raw_members
from virtualmcp.raw_members import Members, NotAnObject

READ = "resources/read"
CALL = "tools/call"
PROMPT = "prompts/get"
COMPLETE = "completion/complete"
# A client may keep what was read for this long at most, in milliseconds.
LONGEST_TTL = 3_600_000

_COMPLETE = b'"resultType":"complete"'
_PRIVATE = b'"ttlMs":0,"cacheScope":"private"'
_MODERN_MEMBERS = ("resultType", "ttlMs", "cacheScope")
# Content types that clients of these revisions do not know.
_UNKNOWN_TYPES: dict[str, tuple[str, ...]] = {
    "2025-03-26": ("resource_link",),
    "2024-11-05": ("resource_link", "audio"),
}


def read_head(raw: bytes) -> ResultHead:
    """Read what tells the eras apart.

    Raises:
        NotAnObject: the result is not a JSON object.
    """
    head = result_heads.read_head(raw)
    if head is None:
        raise NotAnObject("the result is not an object")
    return head


def to_modern(
    raw: bytes, method: str, head: ResultHead, *, modern_upstream: bool, server_info: bytes
) -> tuple[bytes, bytes]:
    """Return a final result as a stateless client reads it: typed, with caching hints, signed; and
    the raw members that are to stand in front of its own (``client_request.Answer.front``).

    ``head`` is that of ``raw``, ``server_info`` the gateway's raw ``serverInfo`` (a7).
    """
    front, rewrite = [], False
    if not bytes(head.result_type):
        front.append(_COMPLETE)
    elif not modern_upstream:
        rewrite = True
    if method == READ:
        if not bytes(head.ttl) and not bytes(head.scope):
            front.append(_PRIVATE)
        else:
            rewrite = rewrite or not _hints_good(head)
    if not bytes(head.meta):
        front.append(b'"_meta":{"%s":%s}' % (META_SERVER_INFO.encode(), server_info))
    else:
        rewrite = True
    return (_rewritten(raw, method, server_info), b"") if rewrite else (raw, b",".join(front))


def _hints_good(head: ResultHead) -> bool:
    ttl = bytes(head.ttl)
    good = ttl.isdigit() and len(ttl) < 10 and int(ttl) <= LONGEST_TTL
    return good and raw_members.text(head.scope) == "private"


def _rewritten(raw: bytes, method: str, server_info: bytes) -> bytes:
    members = raw_members.read(raw)
    if raw_members.text(members.get("resultType")) != "complete":
        members["resultType"] = msgspec.Raw(b'"complete"')
    if method == READ:
        ttl = bytes(members.get("ttlMs", b"0"))
        given = int(ttl) if ttl.isdigit() and len(ttl) < 20 else 0
        members["ttlMs"] = raw_members.raw(min(given, LONGEST_TTL))
        members["cacheScope"] = msgspec.Raw(b'"private"')
    members["_meta"] = signed(members.get("_meta"), server_info)
    return raw_members.write(members)


def signed(meta: msgspec.Raw | None, server_info: bytes) -> msgspec.Raw:
    """Return ``_meta`` with the gateway's ``serverInfo`` and all other keys as they were."""
    try:
        keys = raw_members.read(meta) if meta is not None else {}
    except NotAnObject:
        keys = {}
    keys[META_SERVER_INFO] = msgspec.Raw(server_info)
    return raw_members.raw(keys)


def to_legacy(
    raw: bytes, method: str, head: ResultHead, *, revision: str, modern_upstream: bool
) -> bytes:
    """Return a final result as a stateful client of ``revision`` reads it; ``head`` is its own.

    Raises:
        NotAnObject: the result is not a JSON object.
    """
    if modern_upstream:
        raw = _without_modern_members(raw, head)
        if method == CALL and len(head.structured):
            raw = _structured_as_text(raw)
    unknown = _UNKNOWN_TYPES.get(revision, ())
    if any(b'"%s"' % name.encode() in raw for name in unknown):
        raw = _older_blocks(raw, method, unknown)
    return raw


def _without_modern_members(raw: bytes, head: ResultHead) -> bytes:
    signs = bytes(head.meta) and META_SERVER_INFO.encode() in bytes(head.meta)
    if not (signs or bytes(head.result_type) or bytes(head.ttl) or bytes(head.scope)):
        return raw
    members = raw_members.read(raw)
    for name in _MODERN_MEMBERS:
        members.pop(name, None)
    if signs:
        try:
            meta = raw_members.read(members["_meta"])
        except NotAnObject:
            meta = {}
        meta.pop(META_SERVER_INFO, None)
        if meta:
            members["_meta"] = raw_members.raw(meta)
        else:
            del members["_meta"]
    return raw_members.write(members)


def _structured_as_text(raw: bytes) -> bytes:
    """Before 2026-07-28 structured content is an object; anything else becomes text (SEP-2106)."""
    members = raw_members.read(raw)
    structured = bytes(members.get("structuredContent", b"{}"))
    if structured.lstrip()[:1] == b"{":
        return raw
    del members["structuredContent"]
    try:
        blocks = raw_members.read_items(members.get("content", msgspec.Raw(b"[]")))
    except NotAnObject:
        blocks = []
    said = structured.decode("utf-8", "replace")
    if not any(_says(block, said) for block in blocks):
        blocks.append(raw_members.raw({"type": "text", "text": said}))
    members["content"] = raw_members.raw(blocks)
    return raw_members.write(members)


def _says(block: msgspec.Raw, said: str) -> bool:
    """Tell whether a block of content is the text of this JSON, or of the string that it is."""
    try:
        members = raw_members.read(block)
    except NotAnObject:
        return False
    if raw_members.text(members.get("type")) != "text":
        return False
    text = raw_members.text(members.get("text")) or ""
    if text == said:
        return True
    try:
        meant = raw_members.value(msgspec.Raw(said.encode()))
        return bool(text == meant or raw_members.value(msgspec.Raw(text.encode())) == meant)
    except NotAnObject:
        return False


def _older_blocks(raw: bytes, method: str, unknown: tuple[str, ...]) -> bytes:
    members = raw_members.read(raw)
    if method == CALL and "content" in members:
        members["content"] = _each_block(members["content"], unknown)
    elif method == PROMPT and "messages" in members:
        messages = [raw_members.read(m) for m in raw_members.read_items(members["messages"])]
        for message in messages:
            if "content" in message:
                message["content"] = _older_block(message["content"], unknown)
        members["messages"] = raw_members.raw(messages)
    else:
        return raw
    return raw_members.write(members)


def _each_block(blocks: msgspec.Raw, unknown: tuple[str, ...]) -> msgspec.Raw:
    items = [_older_block(block, unknown) for block in raw_members.read_items(blocks)]
    return raw_members.raw(items)


def _older_block(block: msgspec.Raw, unknown: tuple[str, ...]) -> msgspec.Raw:
    try:
        members = raw_members.read(block)
    except NotAnObject:
        return block
    kind = raw_members.text(members.get("type"))
    if kind not in unknown:
        return block
    text = _link_text(members) if kind == "resource_link" else _audio_text(members)
    return raw_members.raw({"type": "text", "text": text})


def _link_text(members: Members) -> str:
    found = {name: raw_members.text(members.get(name)) for name in ("title", "name", "uri")}
    label = found["title"] or found["name"] or "Resource"
    return f"{label}: {found['uri'] or ''}"


def _audio_text(members: Members) -> str:
    kind = raw_members.text(members.get("mimeType")) or "audio"
    return f"[An audio clip ({kind}), which this version of the protocol cannot carry.]"


def tool_for(era: Era, raw: bytes, *, modern_upstream: bool) -> bytes:
    """Return a listed tool as clients of this era can read it.

    Stateful clients reject a whole list over one output schema that is not an object's; the
    schema is dropped here as its value is in ``to_legacy``.
    """
    if era is Era.MODERN or not modern_upstream or b'"outputSchema"' not in raw:
        return raw
    members = raw_members.read(raw)
    try:
        schema = raw_members.read(members.get("outputSchema", msgspec.Raw(b"null")))
        is_object = raw_members.text(schema.get("type")) == "object"
    except NotAnObject:
        is_object = False
    if is_object:
        return raw
    members.pop("outputSchema", None)
    return raw_members.write(members)
