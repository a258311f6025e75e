"""What the person, the model and the folders behind the official Python clients answer."""

from typing import Any


def callbacks(types: Any, heard: list[str]) -> dict[str, Any]:
    """Return an SDK's callbacks; ``types`` is its module of messages, ``heard`` what was asked."""

    async def elicit(context: Any, params: Any) -> Any:
        heard.append(params.message)
        return types.ElicitResult(action="accept", content={"answer": "Ada"})

    async def sample(context: Any, params: Any) -> Any:
        heard.append("sampling")
        said = types.TextContent(type="text", text="said")
        return types.CreateMessageResult(role="assistant", content=said, model="m")

    async def roots(context: Any) -> Any:
        heard.append("roots")
        return types.ListRootsResult(roots=[types.Root(uri="file:///work", name="work")])

    return {
        "elicitation_callback": elicit,
        "sampling_callback": sample,
        "list_roots_callback": roots,
    }


def noticing(noticed: list[str]) -> Any:
    """Return an SDK's message handler that writes down what changed."""

    async def handle(message: Any) -> None:
        notice = getattr(message, "root", message)
        name = type(notice).__name__
        if name == "ToolListChangedNotification":
            noticed.append("tools")
        elif name == "ResourceUpdatedNotification":
            noticed.append(f"updated {notice.params.uri}")

    return handle
