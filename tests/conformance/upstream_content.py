"""What the conformance upstream offers that never asks anything back: tools, resources, prompts.

Names, texts and shapes are those the official suite looks for. The two binary samples are
built here instead of being pasted, so that what they contain can be read.
"""

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    GetPromptResult,
    ImageContent,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
)
from mcp_types import BlobResourceContents as Blob

Context = ServerRequestContext[Any, Any]
ToolBody = Callable[[Context, dict[str, Any]], Awaitable[CallToolResult]]

LEGACY_RESOURCE_NOT_FOUND = -32002
MODERN = "2026-07-28"
PAUSE = 0.05


def _png_of_one_pixel() -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    image = b"\x89PNG\r\n\x1a\n"
    image += chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(image).decode()


def _wav_of_silence() -> str:
    samples = b"\x00\x00"
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    data = struct.pack("<4sI", b"data", len(samples)) + samples
    riff = b"WAVE" + layout + data
    return base64.b64encode(struct.pack("<4sI", b"RIFF", len(riff)) + riff).decode()


PIXEL = _png_of_one_pixel()
SILENCE = _wav_of_silence()


def text(value: str, *, failed: bool = False) -> CallToolResult:
    """Wrap one text as a tool's result."""
    return CallToolResult(content=[TextContent(text=value)], is_error=failed)


def _embedded(uri: str, mime_type: str, content: str) -> EmbeddedResource:
    inner = TextResourceContents(uri=uri, mime_type=mime_type, text=content)
    return EmbeddedResource(resource=inner)


_FIXED: dict[str, tuple[str, list[ContentBlock]]] = {
    "test_simple_text": (
        "Answers with one text",
        [TextContent(text="This is a simple text response for testing.")],
    ),
    "test_image_content": (
        "Answers with one image",
        [ImageContent(data=PIXEL, mime_type="image/png")],
    ),
    "test_audio_content": (
        "Answers with one sound",
        [AudioContent(data=SILENCE, mime_type="audio/wav")],
    ),
    "test_embedded_resource": (
        "Answers with a resource inside",
        [
            _embedded(
                "test://embedded-resource", "text/plain", "This is an embedded resource content."
            )
        ],
    ),
    "test_multiple_content_types": (
        "Answers with a text, an image and a resource",
        [
            TextContent(text="Multiple content types test:"),
            ImageContent(data=PIXEL, mime_type="image/png"),
            _embedded(
                "test://mixed-content-resource",
                "application/json",
                json.dumps({"test": "data", "value": 123}),
            ),
        ],
    ),
}


def _fixed_body(content: list[ContentBlock]) -> ToolBody:
    async def answer(ctx: Context, arguments: dict[str, Any]) -> CallToolResult:
        return CallToolResult(content=content)

    return answer


async def _fail(ctx: Context, arguments: dict[str, Any]) -> CallToolResult:
    return text("This tool intentionally returns an error for testing", failed=True)


async def _report_progress(ctx: Context, arguments: dict[str, Any]) -> CallToolResult:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(PAUSE)
    return text("All steps done")


async def _write_log(ctx: Context, arguments: dict[str, Any]) -> CallToolResult:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
        await asyncio.sleep(PAUSE)
    return text("Logged three lines")


async def _need_sampling(ctx: Context, arguments: dict[str, Any]) -> CallToolResult:
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        raise MCPError(
            -32021, "This tool needs sampling", {"requiredCapabilities": {"sampling": {}}}
        )
    return text("The client declares sampling")


async def _echo_arguments(ctx: Context, arguments: dict[str, Any]) -> CallToolResult:
    return text(json.dumps(arguments))


TOOLS: dict[str, tuple[str, ToolBody]] = {
    **{name: (about, _fixed_body(content)) for name, (about, content) in _FIXED.items()},
    "test_error_handling": ("Fails on purpose", _fail),
    "test_tool_with_progress": ("Reports its progress three times", _report_progress),
    "test_tool_with_logging": ("Logs three lines", _write_log),
    "test_logging_tool": ("Logs three lines, if asked to", _write_log),
    "test_missing_capability": ("Works only for clients that can sample", _need_sampling),
    "json_schema_2020_12_tool": ("Has a schema with every keyword family", _echo_arguments),
    "test_mirrored_header": ("Has an argument that a header repeats", _echo_arguments),
}

# The keywords of JSON Schema 2020-12 that must come through tools/list untouched.
SCHEMAS: dict[str, dict[str, Any]] = {
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {
            "properties": {"contactMethod": {"const": "phone"}},
            "required": ["contactMethod"],
        },
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
    "test_mirrored_header": {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        "required": ["region"],
    },
    "test_sampling": {
        "type": "object",
        "properties": {"prompt": {"type": "string"}},
        "required": ["prompt"],
    },
    "test_elicitation": {
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
    },
}


async def list_resources(ctx: Context, params: Any) -> ListResourcesResult:
    """Answer ``resources/list``."""
    rows = [
        ("test://static-text", "Static text", "A text that never changes", "text/plain"),
        ("test://static-binary", "Static image", "An image of one pixel", "image/png"),
        ("test://watched-resource", "Watched", "One that may be subscribed to", "text/plain"),
    ]
    return ListResourcesResult(
        resources=[
            Resource(uri=uri, name=name, description=about, mime_type=mime)
            for uri, name, about, mime in rows
        ]
    )


async def list_templates(ctx: Context, params: Any) -> ListResourceTemplatesResult:
    """Answer ``resources/templates/list``."""
    template = ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="Data by id",
        description="A small record of the id asked for",
        mime_type="application/json",
    )
    return ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(ctx: Context, params: Any) -> ReadResourceResult:
    """Answer ``resources/read``; unknown URIs get the error code of the caller's revision."""
    uri = str(params.uri)
    parts = uri.removeprefix("test://template/").split("/")
    if uri == "test://static-text":
        content = "This is the content of the static text resource."
        return ReadResourceResult(
            contents=[TextResourceContents(uri=uri, mime_type="text/plain", text=content)]
        )
    if uri == "test://static-binary":
        return ReadResourceResult(contents=[Blob(uri=uri, mime_type="image/png", blob=PIXEL)])
    if uri == "test://watched-resource":
        watched = TextResourceContents(uri=uri, mime_type="text/plain", text="Watched")
        return ReadResourceResult(contents=[watched])
    if uri.startswith("test://template/") and len(parts) == 2 and parts[1] == "data":
        record = {"id": parts[0], "templateTest": True, "data": f"Data for ID: {parts[0]}"}
        body = TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(record))
        return ReadResourceResult(contents=[body])
    modern = ctx.protocol_version == MODERN
    code = INVALID_PARAMS if modern else LEGACY_RESOURCE_NOT_FOUND
    raise MCPError(code, "Resource not found", {"uri": uri})


def _argument(name: str, about: str) -> PromptArgument:
    return PromptArgument(name=name, description=about, required=True)


async def list_prompts(ctx: Context, params: Any) -> ListPromptsResult:
    """Answer ``prompts/list``."""
    return ListPromptsResult(
        prompts=[
            Prompt(name="test_simple_prompt", description="One fixed message"),
            Prompt(
                name="test_prompt_with_arguments",
                description="One message with two arguments in it",
                arguments=[_argument("arg1", "The first"), _argument("arg2", "The second")],
            ),
            Prompt(
                name="test_prompt_with_embedded_resource",
                description="Carries the resource it is told to",
                arguments=[_argument("resourceUri", "Which resource")],
            ),
            Prompt(name="test_prompt_with_image", description="Carries an image"),
            Prompt(
                name="test_input_required_result_prompt", description="Asks before it is rendered"
            ),
        ]
    )


def render_prompt(name: str, arguments: dict[str, str]) -> GetPromptResult:
    """Render a prompt that asks nothing back.

    Raises:
        MCPError: there is no prompt of that name.
    """
    rendered: list[ContentBlock]
    if name == "test_simple_prompt":
        rendered = [TextContent(text="This is a simple prompt for testing.")]
    elif name == "test_prompt_with_arguments":
        first, second = arguments.get("arg1", ""), arguments.get("arg2", "")
        rendered = [TextContent(text=f"Prompt with arguments: arg1='{first}', arg2='{second}'")]
    elif name == "test_prompt_with_embedded_resource":
        uri = arguments.get("resourceUri", "test://example")
        rendered = [
            _embedded(uri, "text/plain", "Embedded resource content for testing."),
            TextContent(text="Please process the embedded resource above."),
        ]
    elif name == "test_prompt_with_image":
        rendered = [
            ImageContent(data=PIXEL, mime_type="image/png"),
            TextContent(text="Please analyze the image above."),
        ]
    else:
        raise MCPError(INVALID_PARAMS, f"Unknown prompt: {name}")
    return GetPromptResult(messages=[PromptMessage(role="user", content=one) for one in rendered])
