"""What the person, the model and the folders behind the official Python clients answer."""

from typing import Any


def callbacks(types: Any, heard: list[str]) -> dict[str, Any]:
    """Return an SDK's callbacks; ``types`` is its module of messages, ``heard`` what was asked."""

    async def elicit(context: Any, params: Any) -> Any:
        heard.append(params.message)
        if params.mode == "url":  # A page is opened; what is entered there stays there.
            return types.ElicitResult(action="accept")
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


LIST_CHANGES = {
    "ToolListChangedNotification": "tools",
    "PromptListChangedNotification": "prompts",
    "ResourceListChangedNotification": "resources",
    # The names of the same things on a stream that was opened for them.
    "ToolsListChanged": "tools",
    "PromptsListChanged": "prompts",
    "ResourcesListChanged": "resources",
}


def change_of(notice: Any) -> str:
    """Return what a notice says changed, "" if it is about something else."""
    name = type(notice).__name__
    if name == "ResourceUpdatedNotification":
        return f"updated {notice.params.uri}"
    return f"updated {notice.uri}" if name == "ResourceUpdated" else LIST_CHANGES.get(name, "")


def noticing(noticed: list[str]) -> Any:
    """Return an SDK's message handler that writes down what changed."""

    async def handle(message: Any) -> None:
        if change := change_of(getattr(message, "root", message)):
            noticed.append(change)

    return handle
