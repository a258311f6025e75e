"""Which method is answered where: the one door from the wire into the router.

``initialize``, ``server/discover``, ``ping``, notifications and ``logging/setLevel`` concern the
connection itself and are answered by the wire with the help of ``opening``.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from upstreams.canonical_call import CallSink
from upstreams.revisions import Era
from virtualmcp.errors import METHOD_NOT_FOUND
from virtualmcp.routing import call_router, list_answers, task_methods, task_results
from virtualmcp.routing.client_request import Answer, ClientRequest, WireError

_Answering = Callable[[ClientRequest, CallSink], Coroutine[Any, Any, Answer]]

_METHODS: dict[str, _Answering] = {
    "tools/list": list_answers.tools,
    "prompts/list": list_answers.prompts,
    "resources/list": list_answers.resources,
    "resources/templates/list": list_answers.templates,
    "tools/call": call_router.call_tool,
    "prompts/get": call_router.get_prompt,
    "resources/read": call_router.read_resource,
    "completion/complete": call_router.complete,
    "tasks/get": task_methods.about_task,
    "tasks/update": task_methods.about_task,
    "tasks/cancel": task_methods.about_task,
}


def known(method: str, era: Era) -> bool:
    """Tell whether ``answer`` serves this method; tasks are an extension of the stateless era."""
    return method in _METHODS and (era is Era.MODERN or method not in task_results.METHODS)


def answer(request: ClientRequest, sink: CallSink) -> Coroutine[Any, Any, Answer]:
    """Answer one request in the form of the client's revision; never raises for upstream faults.

    Interim messages of the call go to ``sink``. Cancelling the caller's task cancels the call.
    """
    return _METHODS.get(request.method, _unknown)(request, sink)


async def _unknown(request: ClientRequest, sink: CallSink) -> Answer:
    status = 404 if request.era is Era.MODERN else 200
    message = f"This server has no method {request.method[:100]!r}."
    return Answer(error=WireError(METHOD_NOT_FOUND, message, http_status=status))
