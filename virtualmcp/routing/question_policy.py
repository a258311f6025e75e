"""Which questions of which upstream may reach a client (protocol.md D9, 5.14, 3.6).

A client is asked only what it declared. Behind a URL with several upstreams, sampling and roots
are off until an administrator allows them for an upstream there: sampling spends the client's
money, and roots show local paths, to servers the person may not know to be behind the URL.
"""

from functools import lru_cache

import msgspec

from upstreams.canonical_call import ClientFacts, QuestionNotPossible
from virtualmcp import raw_members
from virtualmcp.eras import question_fields
from virtualmcp.raw_members import NotAnObject
from virtualmcp.route_table import ChoiceFacts, VirtualMcpFacts
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.transport.wire_validation import client_facts

_SWITCHED = {question_fields.SAMPLE: "sampling", question_fields.ROOTS: "roots"}
_ALL = tuple(_SWITCHED.values())
_SIGNS = {name: b'"%b"' % name.encode() for name in _ALL}
# What is withheld, by whether an upstream may sample and may list roots.
_WITHHELD = {
    (sample, roots): tuple(name for name, may in zip(_ALL, (sample, roots), strict=True) if not may)
    for sample in (False, True)
    for roots in (False, True)
}


class CapabilityMissing(QuestionNotPossible):
    """The client did not declare what a question needs; ``required`` says what (a6)."""

    def __init__(self, required: dict[str, object]) -> None:
        super().__init__(f"the client did not declare {', '.join(required)}")
        self.required = required


def check(request: ClientRequest, choice: ChoiceFacts, method: str, params: bytes) -> None:
    """Check that a question of this upstream may be put to this client.

    Raises:
        CapabilityMissing: the client did not declare it.
        QuestionNotPossible: it is not allowed here, or there is no such question.
    """
    name = _SWITCHED.get(method)
    if name is not None and name in _withheld(request.server, choice):
        raise QuestionNotPossible(
            f"{name} is not allowed for {choice.upstream.title} here; an administrator can allow "
            "it in this Virtual MCP"
        )
    client = request.client
    try:
        lacking = question_fields.missing(method, params, client.capabilities, client.revision)
    except NotAnObject as error:
        raise QuestionNotPossible("the question is not well formed") from error
    if lacking:
        raise CapabilityMissing(lacking)


def declared_to(request: ClientRequest, choice: ChoiceFacts) -> ClientFacts:
    """Return the client as it is declared to one upstream: without what that may not ask."""
    if request.server.transparent:
        return request.client
    return _without(request.client, _withheld(request.server, choice))


def declared_here(server: VirtualMcpFacts, client: ClientFacts) -> ClientFacts:
    """Return the client as it is declared behind this URL in general."""
    if server.transparent or not _names_any(client.capabilities, _ALL):
        return client
    for choice in server.choices:
        if choice.may_sample or choice.may_list_roots:
            return client
    return _without(client, _ALL)


def says_too_much(request: ClientRequest, choice: ChoiceFacts, params: bytes) -> bool:
    """Tell whether a stateless client's own params may declare what this upstream may not ask."""
    return not request.server.transparent and _names_any(params, _withheld(request.server, choice))


def _withheld(server: VirtualMcpFacts, choice: ChoiceFacts) -> tuple[str, ...]:
    return () if server.transparent else _WITHHELD[choice.may_sample, choice.may_list_roots]


def _names_any(raw: bytes, names: tuple[str, ...]) -> bool:
    for name in names:  # noqa: SIM110 (every call passes here, and a generator costs more)
        if _SIGNS[name] in raw:
            return True
    return False


def _without(client: ClientFacts, names: tuple[str, ...]) -> ClientFacts:
    return _cut(client, names) if _names_any(client.capabilities, names) else client


@lru_cache(maxsize=1_024)
def _cut(client: ClientFacts, names: tuple[str, ...]) -> ClientFacts:
    try:
        members = raw_members.read(client.capabilities)
    except NotAnObject:
        return client
    for name in names:
        members.pop(name, None)
    return client_facts(client.revision, msgspec.json.encode(members), client.client_info)
