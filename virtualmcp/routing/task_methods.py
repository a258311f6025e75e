"""The tasks extension, relayed between stateless clients and upstreams (protocol.md 2.3.8, a50).

``tasks/get``, ``tasks/update`` and ``tasks/cancel`` go to the upstream that the sealed id names,
as the person and client it was made for, or nowhere.
"""

from upstreams.canonical_call import CallSink
from virtualmcp import raw_members
from virtualmcp.errors import ParamsInvalid, RequestRefused
from virtualmcp.raw_members import NotAnObject
from virtualmcp.routing import sealed_tasks, upstream_failures
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_abilities import LACKS_TASKS, takes_tasks
from virtualmcp.routing.client_request import Answer, ClientRequest
from virtualmcp.routing.upstream_relay import relay


async def about_task(request: ClientRequest, sink: CallSink) -> Answer:
    """Answer ``tasks/get``, ``tasks/update`` or ``tasks/cancel``."""
    if not takes_tasks(request):
        return upstream_failures.lacks_capability(LACKS_TASKS)
    try:
        asked = _task_id(request)
        choice, own = sealed_tasks.opened(request, asked)
    except RequestRefused as refused:
        return upstream_failures.refusal(refused)
    members = raw_members.read(request.params)
    members["taskId"] = raw_members.raw(own)
    target = Target(choice=choice, name=own, params=raw_members.write(members), asked=asked)
    return await relay(request, sink, target)


def _task_id(request: ClientRequest) -> str:
    try:
        found = raw_members.text(raw_members.read(request.params).get("taskId"))
    except NotAnObject as error:
        raise ParamsInvalid("params must be an object.") from error
    if not found:
        raise ParamsInvalid("params.taskId must be a string.")
    return found
