"""What an MCP server of the demo offers: facts, handed to the wire."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Result = dict[str, Any]
# Sends one notification to the caller: method, params.
Emit = Callable[[str, Result], Awaitable[None]]
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


class ToolRefusal(Exception):
    """A tool cannot do what was asked; the text goes to the model as an error result."""


class ProtocolRefusal(Exception):
    """The request itself is wrong; becomes a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class ToolRun:
    """One running call: its arguments, who calls, and a way to say how far it is."""

    arguments: Mapping[str, Any]
    person: str
    emit: Emit
    progress_token: Any = None
    log_level: str = ""

    async def progress(self, done: float, total: float, message: str) -> None:
        """Report progress, if the caller asked for it."""
        if self.progress_token is not None:
            await self.emit(
                "notifications/progress",
                {
                    "progressToken": self.progress_token,
                    "progress": done,
                    "total": total,
                    "message": message,
                },
            )

    async def log(self, level: str, data: Any, logger: str) -> None:
        """Send a log message, if the caller wants messages of this level."""
        if self.log_level and LEVELS.index(level) >= LEVELS.index(self.log_level):
            params = {"level": level, "logger": logger, "data": data}
            await self.emit("notifications/message", params)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool; ``run`` returns structured content, which also goes out as text."""

    name: str
    title: str
    description: str
    run: Callable[[ToolRun], Awaitable[Result]]
    arguments: Mapping[str, Result] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    output: Result | None = None
    read_only: bool = True
    destructive: bool = False
    streams: bool = False
    meta: Result | None = None

    def listed(self) -> Result:
        """Return the entry of ``tools/list``."""
        schema: Result = {
            "type": "object",
            "properties": dict(self.arguments),
            "additionalProperties": False,
        }
        if self.required:
            schema["required"] = list(self.required)
        entry: Result = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": schema,
            "annotations": {
                "readOnlyHint": self.read_only,
                "destructiveHint": self.destructive,
                "openWorldHint": False,
            },
        }
        if self.output is not None:
            entry["outputSchema"] = self.output
        if self.meta is not None:
            entry["_meta"] = self.meta
        return entry


@dataclass(frozen=True, slots=True)
class Resource:
    """A readable text; ``template`` resources have a ``{name}`` in their URI."""

    uri: str
    name: str
    title: str
    mime_type: str
    read: Callable[[str], str]
    description: str = ""
    meta: Result | None = None

    def listed(self, address: str) -> Result:
        """Return the entry of a list; ``address`` is ``uri`` or ``uriTemplate``."""
        entry: Result = {
            address: self.uri,
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "mimeType": self.mime_type,
        }
        if self.meta is not None:
            entry["_meta"] = self.meta
        return entry


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with text arguments."""

    name: str
    title: str
    description: str
    arguments: Mapping[str, str]
    render: Callable[[Mapping[str, str]], str]
    required: tuple[str, ...] = ()

    def listed(self) -> Result:
        """Return the entry of ``prompts/list``."""
        arguments = [
            {"name": name, "description": words, "required": name in self.required}
            for name, words in self.arguments.items()
        ]
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "arguments": arguments,
        }


@dataclass(frozen=True, slots=True)
class ServerFeatures:
    """Everything one server offers; ``complete(argument, begun)`` suggests values."""

    name: str
    title: str
    instructions: str
    tools: tuple[Tool, ...]
    resources: tuple[Resource, ...] = ()
    templates: tuple[Resource, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    complete: Callable[[str, str], list[str]] | None = None
    version: str = "1.0.0"

    def capabilities(self) -> Result:
        """Return what the server declares: exactly what it serves."""
        declared: Result = {"tools": {}, "logging": {}}
        if self.resources or self.templates:
            declared["resources"] = {}
        if self.prompts:
            declared["prompts"] = {}
        if self.complete is not None:
            declared["completions"] = {}
        if any(resource.uri.startswith("ui://") for resource in self.resources):
            mime_types = ["text/html;profile=mcp-app"]
            declared["extensions"] = {"io.modelcontextprotocol/ui": {"mimeTypes": mime_types}}
        return declared
