"""The result of each MCP method, in the form that both eras share."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway_site.demo.server_features import (
    Emit,
    ProtocolRefusal,
    Resource,
    Result,
    ServerFeatures,
    Tool,
    ToolRefusal,
    ToolRun,
)

METHOD_NOT_FOUND, INVALID_PARAMS = -32601, -32602
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its parameters, the person behind the credential, where interim messages go."""

    params: Mapping[str, Any]
    person: str
    emit: Emit
    log_level: str


Answer = Callable[[ServerFeatures, Asked], Awaitable[Result]]


async def answer(features: ServerFeatures, method: str, asked: Asked) -> Result:
    """Return the result of ``method``.

    Raises:
        ProtocolRefusal: unknown method, or parameters that cannot be used.
    """
    found = METHODS.get(method)
    if found is None:
        raise ProtocolRefusal(METHOD_NOT_FOUND, f"This server has no method {method}")
    return await found(features, asked)


def find_tool(features: ServerFeatures, params: Mapping[str, Any]) -> Tool | None:
    """Return the tool that ``tools/call`` names, None for one that is not there."""
    return next((tool for tool in features.tools if tool.name == params.get("name")), None)


async def _list_tools(features: ServerFeatures, asked: Asked) -> Result:
    return {"tools": [tool.listed() for tool in features.tools]}


async def _list_resources(features: ServerFeatures, asked: Asked) -> Result:
    return {"resources": [resource.listed("uri") for resource in features.resources]}


async def _list_templates(features: ServerFeatures, asked: Asked) -> Result:
    return {"resourceTemplates": [one.listed("uriTemplate") for one in features.templates]}


async def _list_prompts(features: ServerFeatures, asked: Asked) -> Result:
    return {"prompts": [prompt.listed() for prompt in features.prompts]}


async def _call_tool(features: ServerFeatures, asked: Asked) -> Result:
    tool = find_tool(features, asked.params)
    if tool is None:
        raise ProtocolRefusal(INVALID_PARAMS, f"Unknown tool: {asked.params.get('name')}")
    arguments = asked.params.get("arguments") or {}
    meta = asked.params.get("_meta") or {}
    run = ToolRun(arguments, asked.person, asked.emit, meta.get("progressToken"), asked.log_level)
    try:
        check_arguments(tool, arguments)
        structured = await tool.run(run)
    except ToolRefusal as refusal:
        return {"content": [{"type": "text", "text": str(refusal)}], "isError": True}
    text = json.dumps(structured, ensure_ascii=False)
    return {"content": [{"type": "text", "text": text}], "structuredContent": structured}


def check_arguments(tool: Tool, arguments: Any) -> None:
    """Hold the arguments against the tool's schema, as far as these schemas go.

    Raises:
        ToolRefusal: names the argument that is missing, unknown or of the wrong kind.
    """
    if not isinstance(arguments, dict):
        raise ToolRefusal("The arguments must be an object.")
    for name in tool.required:
        if name not in arguments:
            raise ToolRefusal(f"The argument {name} is missing.")
    for name, value in arguments.items():
        schema = tool.arguments.get(name)
        if schema is None:
            raise ToolRefusal(f"There is no argument {name}.")
        wanted = _TYPES[schema["type"]]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ToolRefusal(f"The argument {name} must be a {schema['type']}.")
        if "enum" in schema and value not in schema["enum"]:
            raise ToolRefusal(f"The argument {name} must be one of {', '.join(schema['enum'])}.")
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and high is not None and not low <= value <= high:
            raise ToolRefusal(f"The argument {name} must be from {low} to {high}.")


async def _read_resource(features: ServerFeatures, asked: Asked) -> Result:
    uri = str(asked.params.get("uri", ""))
    for resource in features.resources:
        if resource.uri == uri:
            return {"contents": [_contents(resource, uri, resource.read(""))]}
    for template in features.templates:
        match = re.fullmatch(re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(template.uri)), uri)
        if match:
            try:
                return {"contents": [_contents(template, uri, template.read(match.group(1)))]}
            except LookupError:
                break
    raise ProtocolRefusal(INVALID_PARAMS, f"Resource not found: {uri}")


def _contents(resource: Resource, uri: str, text: str) -> Result:
    contents: Result = {"uri": uri, "mimeType": resource.mime_type, "text": text}
    if resource.meta is not None:
        contents["_meta"] = resource.meta
    return contents


async def _get_prompt(features: ServerFeatures, asked: Asked) -> Result:
    wanted = asked.params.get("name")
    prompt = next((one for one in features.prompts if one.name == wanted), None)
    if prompt is None:
        raise ProtocolRefusal(INVALID_PARAMS, f"Unknown prompt: {wanted}")
    arguments = asked.params.get("arguments") or {}
    missing = [name for name in prompt.required if not arguments.get(name)]
    if missing:
        raise ProtocolRefusal(INVALID_PARAMS, f"Missing argument: {missing[0]}")
    content = {"type": "text", "text": prompt.render(arguments)}
    return {
        "description": prompt.description,
        "messages": [{"role": "user", "content": content}],
    }


async def _complete(features: ServerFeatures, asked: Asked) -> Result:
    if features.complete is None:
        raise ProtocolRefusal(METHOD_NOT_FOUND, "This server completes nothing")
    argument = asked.params.get("argument") or {}
    values = features.complete(str(argument.get("name", "")), str(argument.get("value", "")))
    return {"completion": {"values": values[:100], "total": len(values), "hasMore": False}}


async def _empty(features: ServerFeatures, asked: Asked) -> Result:
    return {}


METHODS: dict[str, Answer] = {
    "ping": _empty,
    "tools/list": _list_tools,
    "tools/call": _call_tool,
    "resources/list": _list_resources,
    "resources/templates/list": _list_templates,
    "resources/read": _read_resource,
    "prompts/list": _list_prompts,
    "prompts/get": _get_prompt,
    "completion/complete": _complete,
}
