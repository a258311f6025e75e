"""What the fake MCP server offers, and the code of its methods.

Tools and their arguments:

    count()                    how often it was called in its session; list it with ``COUNT``
    echo(text)                 the text, also as structuredContent
    headers()                  the request's HTTP headers, as JSON text
    exact()                    a result with unknown members, null values, an integer beyond 2^64
                               and a long decimal: ``EXACT`` byte for byte
    slow(steps, pause)         one progress notification per step, then "done"
    hang()                     never ends; records "started:hang" and "cancelled:hang"
    log(level, text)           one notifications/message, then "logged"
    ask(question)              elicitation: legacy asks on its stream, modern ends input_required
    interview(rounds, …)       asks the questions of each round at once, in either era, and answers
                               with all answers; records "started:", "asked:" and
                               "finished:interview". ``pause`` waits at the end, where
                               stateless notes "answered:interview"; stateful ``hang`` for ever
    refuse(code, message, status)   a JSON-RPC error
    fail(text)                 an isError result
    blob(size)                 a text of ``size`` characters
    show_board()               an MCP App tool with ``_meta.ui`` and the resource ui://board/view.html
    regional(region, query)    its region must be mirrored in Mcp-Param-Region
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes import task_tools

EXACT = (
    b'{"content":[{"type":"text","text":"exact","vendorBlock":null}],'
    b'"structuredContent":{"big":36893488147419103232,"long":0.1234567890123456789},'
    b'"resultType":"complete","_meta":{"vendor/x":null},"vendorTop":[1, 2,  3]}'
)
BOARD = "ui://board/view.html"
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


class WireFault(Exception):
    """End the request with a JSON-RPC error and an HTTP status."""

    def __init__(self, code: int, message: str, data: Any = None, status: int = 200) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data
        self.status = status


@dataclass
class ToolCall:
    """One request as the catalogue sees it."""

    upstream: Any
    method: str
    params: dict[str, Any]
    headers: dict[str, str]
    modern: bool
    emit: Callable[[str, dict[str, Any]], Awaitable[None]]
    ask: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
    session: Any

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of tools/call and prompts/get."""
        return self.params.get("arguments") or {}

    @property
    def progress_token(self) -> Any:
        """Token for progress notifications, None when not asked for."""
        return self.params.get("_meta", {}).get("progressToken")


def tool(name: str, description: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a tool as tools/list shows it."""
    schema = {"type": "object", "properties": properties}
    return {"name": name, "description": description, "inputSchema": schema, **more}


def tools() -> list[dict[str, Any]]:
    """Return the tools."""
    text, number = {"type": "string"}, {"type": "number"}
    region = {"type": "string", "x-mcp-header": "Region"}
    app = {"ui": {"resourceUri": BOARD, "visibility": ["model", "app"]}}
    return [
        tool(
            "echo",
            "Say it back",
            {"text": text},
            annotations={"readOnlyHint": True, "vendorHint": 7},
            securitySchemes=[{"type": "noauth"}],
        ),
        tool("headers", "Show the HTTP headers", {}, _meta={"vendor/x": None}),
        tool("exact", "Answer with members nobody knows", {}),
        tool("slow", "Report progress, then finish", {"steps": number, "pause": number}),
        tool("hang", "Never finish", {}),
        tool("log", "Write one log message", {"level": text, "text": text}),
        tool("ask", "Ask the person something", {"question": text}),
        tool("interview", "Ask the person much", {"rounds": {"type": "array"}}),
        tool("refuse", "Fail with a JSON-RPC error", {"code": number, "message": text}),
        tool("fail", "Answer with isError", {"text": text}, annotations={"destructiveHint": True}),
        tool("blob", "Answer with much text", {"size": number}),
        tool("show_board", "Show a board", {}, _meta={**app, "openai/outputTemplate": BOARD}),
        tool("regional", "Query a region", {"region": region, "query": text}),
    ]


# For ``tools`` of a stateful server that keeps something in its sessions.
COUNT = tool("count", "Count the calls of this session", {})


def prompts() -> list[dict[str, Any]]:
    """Return the prompts."""
    arguments = [{"name": "name", "description": "Whom to greet", "required": True}]
    return [{"name": "greet", "description": "Greet somebody", "arguments": arguments}]


def resources() -> list[dict[str, Any]]:
    """Return the resources."""
    return [
        {"uri": "file:///notes/1", "name": "note", "mimeType": "text/plain", "vendor": None},
        {
            "uri": BOARD,
            "name": "board",
            "mimeType": "text/html;profile=mcp-app",
            "_meta": {"ui": {"csp": {"connectDomains": ["https://api.example"]}}},
        },
    ]


def templates() -> list[dict[str, Any]]:
    """Return the resource templates."""
    return [{"uriTemplate": "notes://{number}", "name": "notes", "mimeType": "text/plain"}]


def capabilities() -> dict[str, Any]:
    """Return the server's capabilities."""
    return {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"listChanged": True, "subscribe": True},
        "completions": {},
        "logging": {},
        "extensions": {"io.modelcontextprotocol/ui": {}},
    }


async def answer(call: ToolCall) -> Any:
    """Return the result of a request, as a dict or as raw bytes."""
    up, method = call.upstream, call.method
    if method == "server/discover" and call.modern:
        return complete(
            {
                "supportedVersions": ["2026-07-28"],
                "capabilities": up.capabilities,
                "instructions": up.instructions,
                "_meta": {
                    "io.modelcontextprotocol/serverInfo": {"name": up.name, "version": "1.0"}
                },
                "ttlMs": 0,
                "cacheScope": "private",
            }
        )
    if method == "ping" and not call.modern:
        return {}
    if method == "logging/setLevel" and not call.modern:
        if call.params["level"] not in LEVELS:
            raise WireFault(-32602, "Not a log level")
        call.session.log_level = call.params["level"]
        return {}
    if method in ("resources/subscribe", "resources/unsubscribe") and not call.modern:
        return subscription(call)
    lists = {
        "tools/list": ("tools", up.tools),
        "prompts/list": ("prompts", up.prompts),
        "resources/list": ("resources", up.resources),
        "resources/templates/list": ("resourceTemplates", up.templates),
    }
    if method in lists:
        return page(call, *lists[method])
    method_code = METHODS.get(method) or task_tools.METHODS.get(method)
    if method_code is None:
        raise WireFault(-32601, f"Method not found: {method}", status=404 if call.modern else 200)
    result = await method_code(call)
    return complete(result) if call.modern and isinstance(result, dict) else result


def subscription(call: ToolCall) -> dict[str, Any]:
    """Take a subscription of a stateful session, or give it back."""
    uri = call.params["uri"]
    if uri in call.upstream.refused_uris:
        raise WireFault(-32602, "This cannot be subscribed to", {"uri": uri})
    if call.method == "resources/subscribe":
        call.upstream.subscribed.append(uri)
    elif uri in call.upstream.subscribed:
        call.upstream.subscribed.remove(uri)
    call.upstream.note(call.method)
    return {}


def complete(result: dict[str, Any]) -> dict[str, Any]:
    """Mark a result of the stateless revision as final, unless it says something else."""
    return {"resultType": "complete", **result}


def page(call: ToolCall, member: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one page of a list."""
    size = call.upstream.page_size or len(entries) or 1
    start = int((call.params.get("cursor") or "at-0").removeprefix("at-"))
    result: dict[str, Any] = {member: entries[start : start + size], "vendorList": None}
    if start + size < len(entries):
        result["nextCursor"] = f"at-{start + size}"
    if call.modern:
        ttl = call.upstream.list_ttl
        scope = "public" if ttl else "private"
        result |= {"resultType": "complete", "ttlMs": ttl, "cacheScope": scope}
    return result


def said(text: str, **more: Any) -> dict[str, Any]:
    """Return a tool result of one text block."""
    return {"content": [{"type": "text", "text": text}], **more}


async def call_tool(call: ToolCall) -> Any:
    """Run one of the tools."""
    name = call.params.get("name", "")
    code = TOOLS.get(name) or task_tools.TOOLS.get(name)
    if code is None or all(entry["name"] != name for entry in call.upstream.tools):
        if any(entry["name"] == name for entry in call.upstream.tools):
            return said(f"called {name} with {json.dumps(call.arguments)}")
        raise WireFault(-32602, f"Unknown tool: {name}")
    return await code(call)


async def echo(call: ToolCall) -> Any:
    """Say it back."""
    text = call.arguments.get("text", "")
    return said(text, structuredContent={"text": text})


async def count(call: ToolCall) -> Any:
    """Say how often this was called in the session, which is all that remembers it."""
    call.session.counted += 1
    return said(str(call.session.counted))


async def show_headers(call: ToolCall) -> Any:
    """Show the request's headers."""
    return said(json.dumps(call.headers))


async def exact(call: ToolCall) -> Any:
    """Answer with bytes a careless relay would change."""
    return EXACT


async def slow(call: ToolCall) -> Any:
    """Report progress."""
    steps = int(call.arguments.get("steps", 3))
    call.upstream.note("started:slow")
    for step in range(1, steps + 1):
        if call.progress_token is not None:
            progress = {"progressToken": call.progress_token, "progress": step, "total": steps}
            await call.emit("notifications/progress", {**progress, "message": f"step {step}"})
        await asyncio.sleep(float(call.arguments.get("pause", 0.01)))
    call.upstream.note("finished:slow")
    return said("done")


async def hang(call: ToolCall) -> Any:
    """Wait for the end of the world, or of the request."""
    call.upstream.note("started:hang")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        call.upstream.note("cancelled:hang")
        raise


async def log(call: ToolCall) -> Any:
    """Write one log message if somebody wants any."""
    wanted = call.params.get("_meta", {}).get("io.modelcontextprotocol/logLevel")
    if wanted or not call.modern:
        level, text = call.arguments.get("level", "info"), call.arguments.get("text", "hello")
        await call.emit("notifications/message", {"level": level, "logger": "fake", "data": text})
    return said("logged")


async def ask(call: ToolCall) -> Any:
    """Ask the person by elicitation in the manner of the era."""
    question = call.arguments.get("question", "Your name?")
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    params = {"mode": "form", "message": question, "requestedSchema": schema}
    if not call.modern:
        reply = await call.ask("elicitation/create", params)
        if "error" in reply:
            return said(f"not possible: {reply['error']['code']}", isError=True)
        return said(f"they said {json.dumps(reply['result'], sort_keys=True)}")
    responses = call.params.get("inputResponses")
    if responses is None:
        request = {"method": "elicitation/create", "params": params}
        return {
            "resultType": "input_required",
            "inputRequests": {"q1": request},
            "requestState": "state-1",
        }
    if call.params.get("requestState") != "state-1":
        raise WireFault(-32602, "requestState is not mine")
    return said(f"they said {json.dumps(responses['q1'], sort_keys=True)}")


async def interview(call: ToolCall) -> Any:
    """Ask several questions, in one round after the other."""
    rounds = call.arguments.get("rounds") or [[elicitation("Your name?")]]
    if not call.modern:
        call.upstream.note("started:interview")
        given = []
        for questions in rounds:
            await report_round(call)
            call.upstream.note("asked:interview")
            asking = [call.ask(one["method"], one.get("params", {})) for one in questions]
            given += [reply.get("result", reply) for reply in await asyncio.gather(*asking)]
            for one in questions:
                if page := one.get("params", {}).get("elicitationId"):
                    for known in (page, "another"):
                        done = {"elicitationId": known}
                        await call.emit("notifications/elicitation/complete", done)
        if call.arguments.get("hang"):
            return await hang(call)
        await asyncio.sleep(float(call.arguments.get("pause", 0)))
        call.upstream.note("finished:interview")
        return said(json.dumps(given, sort_keys=True))
    given = json.loads(call.params.get("requestState") or "[]")
    responses = call.params.get("inputResponses") or {}
    if responses:
        given += [responses[key] for key in sorted(responses)]
    done = sum(len(questions) for questions in rounds)
    if len(given) >= done:
        if call.arguments.get("pause"):
            call.upstream.note("answered:interview")
            await asyncio.sleep(float(call.arguments["pause"]))
        call.upstream.note("finished:interview")
        return said(json.dumps(given, sort_keys=True))
    if not given:
        call.upstream.note("started:interview")
    call.upstream.note("asked:interview")
    await report_round(call)
    asked = 0
    for questions in rounds:
        if asked == len(given):
            return {
                "resultType": "input_required",
                "inputRequests": {f"k{n}": one for n, one in enumerate(questions)},
                "requestState": json.dumps(given),
            }
        asked += len(questions)
    raise WireFault(-32602, "not as many answers as questions")


async def report_round(call: ToolCall) -> None:
    """Report progress from the start, as a server does that knows only of this round."""
    if call.progress_token is not None:
        for step in (1, 2):
            progress = {"progressToken": call.progress_token, "progress": step}
            await call.emit("notifications/progress", progress)


def elicitation(message: str) -> dict[str, Any]:
    """Return a question for one text."""
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    params = {"mode": "form", "message": message, "requestedSchema": schema}
    return {"method": "elicitation/create", "params": params}


async def refuse(call: ToolCall) -> Any:
    """Fail with a JSON-RPC error."""
    given = call.arguments
    raise WireFault(
        int(given.get("code", -32603)),
        given.get("message", "refused"),
        given.get("data"),
        int(given.get("status", 200)),
    )


async def fail(call: ToolCall) -> Any:
    """Answer with isError."""
    return said(call.arguments.get("text", "it failed"), isError=True)


async def blob(call: ToolCall) -> Any:
    """Answer with much text."""
    return said("x" * int(call.arguments.get("size", 65536)))


async def show_board(call: ToolCall) -> Any:
    """Show the board."""
    return said("board", structuredContent={"cells": [1, 2, 3]}, _meta={"board/private": True})


async def regional(call: ToolCall) -> Any:
    """Answer for a region."""
    return said(f"{call.arguments.get('region')}: {call.arguments.get('query')}")


async def get_prompt(call: ToolCall) -> Any:
    """Return the one prompt."""
    if call.params.get("name") != "greet":
        raise WireFault(-32602, "Unknown prompt")
    text = f"Hello {call.arguments.get('name', 'you')}"
    return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}


async def read_resource(call: ToolCall) -> Any:
    """Return a resource's contents."""
    uri = call.params.get("uri", "")
    more = {"ttlMs": 0, "cacheScope": "private"} if call.modern else {}
    if uri == BOARD:
        content = {"uri": uri, "mimeType": "text/html;profile=mcp-app", "text": "<p>board</p>"}
        content["_meta"] = {"ui": {"csp": {"connectDomains": ["https://api.example"]}}}
        return {"contents": [content], **more}
    if uri.startswith(("file:///notes/", "notes://")):
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": f"note {uri}"}], **more}
    raise WireFault(-32602 if call.modern else -32002, "Resource not found", {"uri": uri})


NAMES: Sequence[str] = ("Ada", "Alan", "Grace")


async def completion(call: ToolCall) -> Any:
    """Complete an argument."""
    value = call.params.get("argument", {}).get("value", "")
    values = [name for name in NAMES if name.startswith(value)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


METHODS = {
    "tools/call": call_tool,
    "prompts/get": get_prompt,
    "resources/read": read_resource,
    "completion/complete": completion,
}
TOOLS = {
    "echo": echo,
    "count": count,
    "headers": show_headers,
    "exact": exact,
    "slow": slow,
    "hang": hang,
    "log": log,
    "ask": ask,
    "interview": interview,
    "refuse": refuse,
    "fail": fail,
    "blob": blob,
    "show_board": show_board,
    "regional": regional,
}
