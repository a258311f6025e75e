"""From what a client calls to what an upstream is asked: names, URIs and references un-mapped.

On the warm path of a transparent ``tools/call`` only the members that routing needs are looked
at; the parameters go out as they came.
"""

import msgspec

from upstreams.canonical_call import CallSink
from upstreams.revisions import Era
from virtualmcp import argument_uris, raw_members
from virtualmcp.eras import conversion
from virtualmcp.errors import ParamsInvalid, RequestRefused, ResourceUnknown, ScopeInsufficient
from virtualmcp.listed_entries import Kind, ListContent
from virtualmcp.raw_members import NotAnObject
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import (
    call_plans,
    definition_gate,
    name_routes,
    parameter_headers,
    resource_routes,
    step_up,
    upstream_failures,
)
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import Answer, ClientRequest
from virtualmcp.routing.upstream_relay import relay

_ABSENT = msgspec.Raw()
LONGEST_NAME = 512
LONGEST_URI = 8_192


class _Params(msgspec.Struct, gc=False):
    """The members that say what is called."""

    name: msgspec.Raw = _ABSENT
    uri: msgspec.Raw = _ABSENT
    ref: msgspec.Raw = _ABSENT
    arguments: msgspec.Raw = _ABSENT
    state: msgspec.Raw = msgspec.field(default=_ABSENT, name="requestState")


_params = msgspec.json.Decoder(_Params)


async def call_tool(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer tools/call."""
    planned = call_plans.planned(request)
    if planned is not None:
        return await relay(request, sink, planned)
    try:
        target, tools = await _named(request, Kind.TOOLS)
        step_up.check(request, target)
        headers: parameter_headers.Headers = ()
        if tools is None or request.param_headers or tools.mirrors:
            headers = await parameter_headers.of_call(request, target, tools)
    except ScopeInsufficient as refused:
        return step_up.in_result(request, refused) or upstream_failures.refusal(refused)
    except RequestRefused as refused:
        return upstream_failures.refusal(refused)
    call_plans.keep(request, target, tools)
    return await relay(request, sink, target, headers)


async def get_prompt(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer prompts/get."""
    try:
        target, _ = await _named(request, Kind.PROMPTS)
    except RequestRefused as refused:
        return upstream_failures.refusal(refused)
    return await relay(request, sink, target)


async def read_resource(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer resources/read."""
    uri = ""
    try:
        params = _params_of(request)
        uri = request.name or ""
        if not uri or len(uri) > LONGEST_URI:
            uri = _text(params.uri, "uri", LONGEST_URI)
        choice, own = await resource_routes.find(request, uri)
    except ResourceUnknown:
        return upstream_failures.not_found(request, uri)
    except RequestRefused as refused:
        return upstream_failures.refusal(refused)
    return await relay(request, sink, _resource(request, choice, own, uri, params.state))


def at_once(request: ClientRequest) -> Target | None:
    """Return where a ``tools/call`` or ``resources/read`` goes if all that says it is in memory.

    None says nothing: ``call_tool`` and ``read_resource`` find out, or say what is wrong.
    """
    if request.method == conversion.CALL:
        return call_plans.planned(request)
    uri, members = request.name, request.members
    if not uri or len(uri) > LONGEST_URI or members is None:
        return None
    found = resource_routes.in_memory(request, uri)
    if found is None:
        return None
    return _resource(request, *found, uri, members.get("requestState", _ABSENT))


async def complete(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer completion/complete: the reference names a prompt or a resource template."""
    try:
        target = await _referred(request)
    except ResourceUnknown as unknown:
        return upstream_failures.not_found(request, unknown.message)
    except RequestRefused as refused:
        return upstream_failures.refusal(refused)
    return await relay(request, sink, target)


async def _named(request: ClientRequest, kind: Kind) -> tuple[Target, ListContent | None]:
    """Return where a name leads, and the upstream's list if it is in memory."""
    params = _params_of(request)
    name = request.name
    if name is None or len(name) > LONGEST_NAME:
        name = _text(params.name, "name", LONGEST_NAME)
    choice, own = await name_routes.find(request, name, kind)
    content = await definition_gate.check(request, choice, own, kind)
    arguments = bytes(params.arguments)
    given_back = _given_back(request, choice, arguments)
    target = Target(
        choice=choice,
        name=own,
        params=_in_its_terms(request, own if own != name else None, given_back),
        asked=name,
        arguments=arguments,
        retry=params.state is not _ABSENT and request.era is Era.MODERN,
        own_arguments=given_back,
    )
    return target, content


def _given_back(request: ClientRequest, choice: ChoiceFacts, arguments: bytes) -> bytes | None:
    """Return the arguments with the upstream's own URIs, None where they stay as they are."""
    server = request.server
    if server.transparent or not server.undoes_argument_uris:
        return None
    return argument_uris.given_back(arguments, choice.upstream.key)


def _in_its_terms(request: ClientRequest, name: str | None, arguments: bytes | None) -> bytes:
    changes: dict[str, msgspec.Raw] = {}
    if name is not None:
        changes["name"] = raw_members.raw(name)
    if arguments is not None:
        changes["arguments"] = msgspec.Raw(arguments)
    return _with(request, changes) if changes else request.params


def _resource(
    request: ClientRequest, choice: ChoiceFacts, own: str, uri: str, state: msgspec.Raw
) -> Target:
    """Return where the reading of a resource goes; ``own`` is its URI at the upstream."""
    return Target(
        choice=choice,
        name=own,
        params=request.params if own == uri else _with(request, {"uri": raw_members.raw(own)}),
        asked=uri,
        retry=bool(bytes(state)),
    )


async def _referred(request: ClientRequest) -> Target:
    params = _read(request.params)
    try:
        reference = raw_members.read(params.ref)
    except NotAnObject as error:
        raise ParamsInvalid("params.ref must be an object.") from error
    kind = raw_members.text(reference.get("type"))
    if kind == "ref/prompt":
        member, asked = "name", _text(reference.get("name", _ABSENT), "ref.name", LONGEST_NAME)
        choice, own = await name_routes.find(request, asked, Kind.PROMPTS)
        await definition_gate.check(request, choice, own, Kind.PROMPTS)
    elif kind == "ref/resource":
        member, asked = "uri", _text(reference.get("uri", _ABSENT), "ref.uri", LONGEST_URI)
        choice, own = await resource_routes.find(request, asked)
    else:
        raise ParamsInvalid("params.ref.type must be ref/prompt or ref/resource.")
    sent = request.params
    if own != asked:
        reference[member] = raw_members.raw(own)
        members = raw_members.read(request.params)
        members["ref"] = raw_members.raw(reference)
        sent = raw_members.write(members)
    return Target(choice=choice, name="", params=sent, asked=asked)


def _params_of(request: ClientRequest) -> _Params:
    """Return the members that say what is called; read only where that was not done before."""
    if request.members is None:
        return _read(request.params)
    member = request.members.get
    return _Params(
        member("name", _ABSENT),
        member("uri", _ABSENT),
        member("ref", _ABSENT),
        member("arguments", _ABSENT),
        member("requestState", _ABSENT),
    )


def _read(params: bytes) -> _Params:
    try:
        return _params.decode(params)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ParamsInvalid("params must be an object.") from error


def _text(raw: msgspec.Raw, member: str, longest: int) -> str:
    found = raw_members.text(raw)
    if not found or len(found) > longest:
        raise ParamsInvalid(f"params.{member} must be a string of 1 to {longest} characters.")
    return found


def _with(request: ClientRequest, changes: raw_members.Members) -> bytes:
    members = raw_members.read(request.params) if request.members is None else request.members
    return raw_members.write({**members, **changes})
