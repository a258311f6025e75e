"""Questions to clients in the form of the client's revision (protocol.md 2.3.5, 2.3.11). Pure.

A question is a server's request: elicitation (a form, or a page to open), sampling, roots. What
may be asked is what the client declared (a6, D9, a48); what its revision can't read is put in the
words it knows, or refused.
"""

import secrets
from functools import lru_cache
from typing import Any, Final

import msgspec

from upstreams.canonical_call import QuestionNotPossible
from upstreams.revisions import LEGACY_LATEST
from virtualmcp import raw_members
from virtualmcp.raw_members import Members, NotAnObject

ELICIT: Final = "elicitation/create"
SAMPLE: Final = "sampling/createMessage"
ROOTS: Final = "roots/list"
METHODS: Final = frozenset({ELICIT, SAMPLE, ROOTS})

# The oldest revision has no elicitation; the one after it only forms.
_WITHOUT_ELICITATION: Final = ("2024-11-05", "2025-03-26")
_FORMS_ONLY: Final = ("2025-06-18",)
_ONE_BLOCK: Final = (*_WITHOUT_ELICITATION, *_FORMS_ONLY)


@lru_cache(maxsize=1_024)
def _declared(capabilities: bytes) -> dict[str, Any]:
    try:
        found = raw_members.value(capabilities)
    except NotAnObject:
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=1_024)
def answers_any(capabilities: bytes) -> bool:
    """Tell whether a client declared that it can be asked anything at all."""
    return any(name in _declared(capabilities) for name in ("elicitation", "sampling", "roots"))


def missing(method: str, params: bytes, capabilities: bytes, revision: str) -> dict[str, Any]:
    """Return the capabilities (as ``requiredCapabilities``, a6) that a question needs and the
    client did not declare; empty when it can be asked.

    Raises:
        QuestionNotPossible: no client of this revision can be asked this.
        NotAnObject: the params are not an object.
    """
    declared = _declared(capabilities)
    if method == ELICIT:
        return _missing_for_elicitation(params, declared, revision)
    if method == SAMPLE:
        members = raw_members.read(params)
        tools = "tools" in members or "toolChoice" in members
        sampling = declared.get("sampling")
        if isinstance(sampling, dict) and (not tools or "tools" in sampling):
            return {}
        return {"sampling": {"tools": {}} if tools else {}}
    if method == ROOTS:
        return {} if isinstance(declared.get("roots"), dict) else {"roots": {}}
    raise QuestionNotPossible(f"a client cannot be asked {method[:100]}")


def _missing_for_elicitation(
    params: bytes, declared: dict[str, Any], revision: str
) -> dict[str, Any]:
    mode = raw_members.text(raw_members.read(params).get("mode")) or "form"
    if revision in _WITHOUT_ELICITATION or (revision in _FORMS_ONLY and mode != "form"):
        raise QuestionNotPossible(f"the client's revision has no elicitation in {mode[:20]} mode")
    modes = declared.get("elicitation")
    # No mode at all means forms, as it did before there were modes (b21).
    if isinstance(modes, dict) and (mode in modes or (mode == "form" and not modes)):
        return {}
    return {"elicitation": {mode: {}}}


def answers(method: str, answer: bytes) -> bool:
    """Tell whether an answer has what such a question asks for; else it is asked again (a44)."""
    try:
        members = raw_members.read(answer)
    except NotAnObject:
        return False
    if method == ELICIT:
        return raw_members.text(members.get("action")) in ("accept", "decline", "cancel")
    return ("roots" if method == ROOTS else "content") in members


def for_stateful(method: str, params: bytes, revision: str) -> bytes:
    """Return a question's params as a stateful client of ``revision`` reads them.

    Raises:
        QuestionNotPossible: there are no words for it in that revision.
        NotAnObject: the params are not an object.
    """
    if method == ELICIT:
        members = raw_members.read(params)
        if revision == LEGACY_LATEST:
            if raw_members.text(members.get("mode")) != "url" or "elicitationId" in members:
                return params
            # Stateless servers have no such id; these clients require one.
            members["elicitationId"] = raw_members.raw(secrets.token_urlsafe(16))
        else:
            members.pop("mode", None)
            if "requestedSchema" in members:
                members["requestedSchema"] = _plain_enums(members["requestedSchema"])
        return raw_members.write(members)
    if method == SAMPLE and revision in _ONE_BLOCK:
        members = raw_members.read(params)
        if "messages" in members:
            members["messages"] = _one_block_each(members["messages"])
        return raw_members.write(members)
    return params


def for_stateless(method: str, params: bytes) -> bytes:
    """Return a stateful upstream's question as a stateless client reads it.

    Raises:
        NotAnObject: the params are not an object.
    """
    if method != ELICIT or b"elicitationId" not in params:
        return params
    members = raw_members.read(params)
    members.pop("elicitationId", None)
    return raw_members.write(members)


def _plain_enums(schema: msgspec.Raw) -> msgspec.Raw:
    """Titled choices as ``enum`` with ``enumNames``; several choices at once have no form."""
    members = raw_members.read(schema)
    if "properties" not in members:
        return schema
    properties = raw_members.read(members["properties"])
    for name, raw in properties.items():
        field = raw_members.read(raw)
        if raw_members.text(field.get("type")) == "array":
            raise QuestionNotPossible("the client's revision has no choice of several values")
        if "oneOf" in field:
            properties[name] = _plain_enum(field)
    members["properties"] = raw_members.raw(properties)
    return raw_members.raw(members)


def _plain_enum(field: Members) -> msgspec.Raw:
    options = [raw_members.read(option) for option in raw_members.read_items(field.pop("oneOf"))]
    values = [option.get("const", msgspec.Raw(b'""')) for option in options]
    field["enum"] = raw_members.raw(values)
    titles = [option.get("title", value) for option, value in zip(options, values, strict=True)]
    field["enumNames"] = raw_members.raw(titles)
    return raw_members.raw(field)


def _one_block_each(messages: msgspec.Raw) -> msgspec.Raw:
    """Before 2025-11-25 a message has one block of content, so several become several messages."""
    said: list[object] = []
    for raw in raw_members.read_items(messages):
        message = raw_members.read(raw)
        content = bytes(message.get("content", b"")).lstrip()
        if content[:1] != b"[":
            said.append(raw)
            continue
        for block in raw_members.read_items(message["content"]):
            kind = raw_members.text(raw_members.read(block).get("type"))
            if kind in ("tool_use", "tool_result"):
                raise QuestionNotPossible("the client's revision has no sampling with tools")
            said.append({**message, "content": block})
    return raw_members.raw(said)
