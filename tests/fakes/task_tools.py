"""Tools of the fake MCP server that run as a task only, in the manner of either era.

    batch(looks, question)    "working" for ``looks`` looks, then asks ``question`` if there is
                              one, then done; wants to be looked at every ``poll`` milliseconds
    doomed()                  a task that fails with a JSON-RPC error
    pending()                 a task that works for ever; records "task cancelled"

Add ``TASK_TOOLS`` to an upstream's tools to have them listed.
"""

import json
import uuid
from typing import Any

EXTENSION = "io.modelcontextprotocol/tasks"
_NOW = "2026-11-25T10:30:00Z"
LINK = {"type": "resource_link", "uri": "notes://7", "name": "report"}
TASK_TOOLS: list[dict[str, Any]] = [
    {
        "name": name,
        "description": f"Run {name} as a task",
        "inputSchema": {"type": "object"},
        "execution": {"taskSupport": "required"},
    }
    for name in ("batch", "doomed", "pending")
]


class Task:
    """One task and how often it was looked at."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.id = f"task-{uuid.uuid4().hex}"
        self.name, self.arguments = name, arguments
        self.looks = 0
        self.answer: Any = None
        self.cancelled = False

    @property
    def status(self) -> str:
        """What it is doing now."""
        if self.cancelled:
            return "cancelled"
        if self.name == "pending" or self.looks < int(self.arguments.get("looks", 2)):
            return "working"
        if self.name == "doomed":
            return "failed"
        if self.arguments.get("question") and self.answer is None:
            return "input_required"
        return "completed"

    def result(self) -> dict[str, Any]:
        """What the call would have answered."""
        said = {"looks": self.looks, "answer": self.answer}
        content = [{"type": "text", "text": json.dumps(said, sort_keys=True)}, LINK]
        return {"content": content, "vendorTask": None}

    def question(self) -> dict[str, Any]:
        """What it asks the person."""
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
        message = self.arguments["question"]
        return {"mode": "form", "message": message, "requestedSchema": schema}

    def seen(self, modern: bool) -> dict[str, Any]:
        """What ``tasks/get`` says."""
        suffix = "Ms" if modern else ""
        seen: dict[str, Any] = {
            "taskId": self.id,
            "status": self.status,
            "statusMessage": f"look {self.looks}",
            "createdAt": _NOW,
            "lastUpdatedAt": _NOW,
            f"ttl{suffix}": 60_000,
            f"pollInterval{suffix}": self.arguments.get("poll", 20),
        }
        if not modern:
            return seen
        if self.status == "input_required":
            request = {"method": "elicitation/create", "params": self.question()}
            seen["inputRequests"] = {"q1": request}
        elif self.status == "completed":
            seen["result"] = self.result()
        elif self.status == "failed":
            seen["error"] = {"code": -32000 - 77000, "message": "the batch broke"}
        return seen


_tasks: dict[str, Task] = {}


def knows(task_id: str) -> bool:
    """Tell whether there is such a task."""
    return task_id in _tasks


async def start(call: Any) -> Any:
    """Make a task, or say that this tool needs one."""
    from tests.fakes.mcp_catalogue import WireFault

    task = Task(call.params["name"], call.arguments)
    if call.modern:
        meta = call.params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        insists = call.arguments.get("insists")
        if EXTENSION not in meta.get("extensions", {}) and not insists:
            required = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            raise WireFault(-32021, "Missing required client capability", required, 400)
        _tasks[task.id] = task
        return {"resultType": "task", **task.seen(True)}
    if "task" not in call.params:
        raise WireFault(-32601, "This tool runs as a task only")
    _tasks[task.id] = task
    return {"task": task.seen(False)}


def _found(call: Any) -> Task:
    from tests.fakes.mcp_catalogue import WireFault

    task = _tasks.get(call.params.get("taskId", ""))
    if task is None:
        raise WireFault(-32602, "Unknown task")
    return task


async def get(call: Any) -> Any:
    """Look at a task."""
    task = _found(call)
    task.looks += 1
    return task.seen(call.modern)


async def update(call: Any) -> Any:
    """Take answers (extension only)."""
    _found(call).answer = call.params["inputResponses"].get("q1")
    return {}


async def cancel(call: Any) -> Any:
    """Cancel a task."""
    task = _found(call)
    task.cancelled = True
    call.upstream.note("task cancelled")
    return {} if call.modern else task.seen(False)


async def result(call: Any) -> Any:
    """Wait for a stateful task's result; asks its question on this stream (2025-11-25)."""
    from tests.fakes.mcp_catalogue import WireFault

    task = _found(call)
    if task.status == "input_required":
        reply = await call.ask("elicitation/create", task.question())
        task.answer = reply.get("result", reply.get("error"))
    if task.name == "doomed":
        raise WireFault(-32000 - 77000, "the batch broke")
    related = {"io.modelcontextprotocol/related-task": {"taskId": task.id}}
    return {**task.result(), "_meta": related}


METHODS = {"tasks/get": get, "tasks/update": update, "tasks/cancel": cancel, "tasks/result": result}
TOOLS = dict.fromkeys(("batch", "doomed", "pending"), start)
