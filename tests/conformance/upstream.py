"""The conformance upstream: one MCP server that answers both eras and scores full marks itself.

``python -m tests.conformance.upstream --port 28800`` serves it by hand at ``/mcp``.
"""

import argparse
import warnings
from typing import Any

import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    CompleteResult,
    Completion,
    EmptyResult,
    ListToolsResult,
    Tool,
)
from starlette.applications import Starlette

from tests.conformance.upstream_content import (
    SCHEMAS,
    TOOLS,
    Context,
    list_prompts,
    list_resources,
    list_templates,
    read_resource,
    render_prompt,
    text,
)
from tests.conformance.upstream_questions import ASKING_TOOLS, asking_prompt

NAME = "conformance-upstream"
_TRIGGERS = {
    "test_trigger_tool_change": ToolsListChanged,
    "test_trigger_prompt_change": PromptsListChanged,
}
_CACHED = (
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)


async def _list_tools(ctx: Context, params: Any) -> ListToolsResult:
    about = {name: entry[0] for name, entry in {**TOOLS, **ASKING_TOOLS}.items()}
    about |= dict.fromkeys(_TRIGGERS, "Says that a list changed")
    empty = {"type": "object", "properties": {}}
    return ListToolsResult(
        tools=[
            Tool(name=name, description=words, input_schema=SCHEMAS.get(name, empty))
            for name, words in about.items()
        ]
    )


async def _complete(ctx: Context, params: Any) -> CompleteResult:
    begun = params.argument.value
    values = [word for word in ("paris", "party", "test", "testing") if word.startswith(begun)]
    return CompleteResult(completion=Completion(values=values, total=len(values), has_more=False))


async def _get_prompt(ctx: Context, params: Any) -> Any:
    if params.name == "test_input_required_result_prompt":
        return await asking_prompt(ctx, params)
    return render_prompt(params.name, params.arguments or {})


async def _accept(ctx: Context, params: Any) -> EmptyResult:
    return EmptyResult()


def server() -> Server[Any]:
    """Make the server with everything the suite asks for."""
    bus = InMemorySubscriptionBus()

    async def call_tool(ctx: Context, params: Any) -> Any:
        if params.name in _TRIGGERS:
            await bus.publish(_TRIGGERS[params.name]())
            return text("Announced")
        if params.name in ASKING_TOOLS:
            return await ASKING_TOOLS[params.name][1](ctx, params)
        if params.name in TOOLS:
            result: CallToolResult = await TOOLS[params.name][1](ctx, params.arguments or {})
            return result
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")

    with warnings.catch_warnings():
        # Logging is deprecated in the newest revision and still asked for by the older suite.
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        made: Server[Any] = Server(
            NAME,
            version="1.0.0",
            cache_hints={name: CacheHint(ttl_ms=60_000, scope="public") for name in _CACHED},
            on_list_tools=_list_tools,
            on_call_tool=call_tool,
            on_list_resources=list_resources,
            on_list_resource_templates=list_templates,
            on_read_resource=read_resource,
            on_subscribe_resource=_accept,
            on_unsubscribe_resource=_accept,
            on_subscriptions_listen=ListenHandler(bus),
            on_list_prompts=list_prompts,
            on_get_prompt=_get_prompt,
            on_completion=_complete,
            on_set_logging_level=_accept,
        )
    made.middleware.append(
        RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME)
    )
    return made


def app() -> Starlette:
    """Make the ASGI application; it needs its lifespan run."""
    return server().streamable_http_app()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=28800)
    uvicorn.run(app(), port=arguments.parse_args().port, log_level="warning")
