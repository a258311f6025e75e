"""Tasks in results, as a stateless client is to read them: its own id, our names and URIs."""

import msgspec

from upstreams.canonical_call import Outcome
from virtualmcp import raw_members
from virtualmcp.eras.conversion import signed
from virtualmcp.raw_members import Members, NotAnObject
from virtualmcp.route_table import ChoiceFacts
from virtualmcp.routing import questions, resource_routes, sealed_tasks
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.secret_redaction import clean_json, secrets_of
from virtualmcp.server_identity import raw_server_info

METHODS = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})


async def told(request: ClientRequest, target: Target, outcome: Outcome) -> bytes:
    """Return a task as ``mapped``, once what it asks of the client's model is counted."""
    result = mapped(request, target, outcome)
    await questions.counted(request, target.choice, outcome.result, once=True)
    return result


def mapped(request: ClientRequest, target: Target, outcome: Outcome) -> bytes:
    """Return a created task, or the answer about one.

    Raises:
        NotAnObject: it is no task, or not readable.
        CapabilityMissing, QuestionUnanswered: it asks what the client can't be asked.
    """
    members = _read(request, target.choice, outcome.result)
    if "taskId" in members:
        own = raw_members.text(members["taskId"])
        if not own or len(own) > sealed_tasks.LONGEST_OWN:
            raise NotAnObject("a task without a usable id")
        # About a known task the client gets the id that it asked for.
        known = request.method in METHODS and own == target.name
        public = target.asked if known else _sealed(request, target, own)
        members["taskId"] = raw_members.raw(public)
    elif request.method not in METHODS:
        raise NotAnObject("a task without an id")
    if request.method in METHODS:
        # The draft's examples have another type here; its prose demands this one (6.3).
        members["resultType"] = msgspec.Raw(b'"complete"')
    members["_meta"] = signed(members.get("_meta"), raw_server_info(request.server))
    return raw_members.write(members)


def _sealed(request: ClientRequest, target: Target, own: str) -> str:
    asked_of_task = request.method in METHODS
    tool = sealed_tasks.tool_of(request, target.asked) if asked_of_task else target.name
    return sealed_tasks.sealed(request, target.choice.upstream.id, own, tool)


def notice(request: ClientRequest, choice: ChoiceFacts, public: str, params: bytes) -> bytes:
    """Return the params of ``notifications/tasks``: all that is to be known of a task.

    Raises:
        NotAnObject, CapabilityMissing, QuestionUnanswered: as ``mapped``.
    """
    members = _read(request, choice, params)
    members["taskId"] = raw_members.raw(public)
    for name in ("resultType", "_meta"):
        # The former is a result's; in the latter stand the upstream's subscription and signature.
        members.pop(name, None)
    return raw_members.write(members)


def _read(request: ClientRequest, choice: ChoiceFacts, raw: bytes) -> Members:
    facts = choice.upstream
    members = raw_members.read(clean_json(raw, secrets_of(request.holder.user_id, facts)))
    if "result" in members:
        mapping = request.server.mapping(facts)
        members["result"] = msgspec.Raw(mapping.call_result(bytes(members["result"])))
        resource_routes.note_returned(request, mapping.web, facts.id)
    if "inputRequests" in members:
        members["inputRequests"] = questions.mapped(request, choice, members["inputRequests"])
    return members
