"""A stateful server made with the official SDK, whose tool counts the calls of its session."""

from collections import Counter
from typing import Any

from mcp.server.lowlevel import Server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool
from starlette.applications import Starlette


def counting_app(counted: Counter[str]) -> Starlette:
    """Make the ASGI application, which needs its lifespan run; it counts in ``counted``."""

    async def list_tools(ctx: Any, params: Any) -> ListToolsResult:
        schema = {"type": "object", "properties": {}}
        return ListToolsResult(tools=[Tool(name="count", description="", input_schema=schema)])

    async def call_tool(ctx: Any, params: Any) -> CallToolResult:
        session = ctx.request.headers["mcp-session-id"]
        counted[session] += 1
        return CallToolResult(content=[TextContent(type="text", text=str(counted[session]))])

    server: Server[Any] = Server("counting", on_list_tools=list_tools, on_call_tool=call_tool)
    return server.streamable_http_app()
