"""The official Python client, version 1, as a program of the line protocol.

It runs in an environment of its own, which ``bin/test`` makes.
"""

import asyncio
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mcp import ClientSession, types
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.auth import OAuthClientMetadata
from mcp.types import PromptReference

from tests.journeys.clients.line_protocol import (
    REDIRECT_URI,
    answer_commands,
    ask_person,
    hear,
    report,
    say,
)
from tests.journeys.clients.replies import callbacks, noticing


class Memory:
    """Keeps tokens and the registration for the length of one run."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.registration: Any = None

    async def get_tokens(self) -> Any:
        """Return the tokens."""
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        """Keep the tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        """Return the registration."""
        return self.registration

    async def set_client_info(self, client_info: Any) -> None:
        """Keep the registration."""
        self.registration = client_info


class Person:
    """Opens the authorization address and remembers where it led."""

    def __init__(self) -> None:
        self.redirect = ""

    async def open(self, url: str) -> None:
        """Open the address."""
        self.redirect = await ask_person(url)

    async def came_back(self) -> tuple[str, str | None]:
        """Return what the redirect carried."""
        query = parse_qs(urlsplit(self.redirect).query)
        return query["code"][0], query.get("state", [None])[0]


class Commands:
    """What the program can do once connected."""

    def __init__(
        self, session: ClientSession, provider: OAuthClientProvider, memory: Memory, opened: Any
    ) -> None:
        self.session, self.provider, self.memory = session, provider, memory
        self.opened = opened
        self.heard: list[str] = []
        self.changes: list[str] = []
        self.running: asyncio.Task[Any] | None = None
        self.request_id = 0

    async def __call__(self, command: dict[str, Any]) -> dict[str, Any]:
        """Run one command."""
        event: dict[str, Any] = await getattr(self, command.pop("do"))(**command)
        return event

    async def connect(self) -> dict[str, Any]:
        """Tell what was agreed on."""
        return {
            "event": "connected",
            "revision": self.opened.protocolVersion,
            "instructions": self.opened.instructions,
        }

    async def tools(self) -> dict[str, Any]:
        """List the tools, page by page."""
        names, cursor = [], None
        while True:
            page = await self.session.list_tools(cursor)
            names += [tool.name for tool in page.tools]
            if not (cursor := page.nextCursor):
                return {"event": "tools", "names": names}

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool and note its progress."""
        progress: list[float] = []

        async def note(done: float, total: float | None, message: str | None) -> None:
            progress.append(done)

        result = await self.session.call_tool(name, arguments, progress_callback=note)
        text = "".join(getattr(block, "text", "") for block in result.content)
        return {
            "event": "called",
            "text": text,
            "is_error": result.isError,
            "structured": result.structuredContent,
            "progress": progress,
        }

    async def asked(self) -> dict[str, Any]:
        """Tell what the person, the model and the folders were asked."""
        return {"event": "asked", "heard": self.heard}

    async def watch(self, uris: list[str]) -> dict[str, Any]:
        """Subscribe to resources; the SDK listens by itself."""
        for uri in uris:
            await self.session.subscribe_resource(uri)  # type: ignore[arg-type]
        return {"event": "watching", "uris": uris}

    async def unwatch(self, uris: list[str]) -> dict[str, Any]:
        """Give the subscriptions back."""
        for uri in uris:
            await self.session.unsubscribe_resource(uri)  # type: ignore[arg-type]
        return {"event": "unwatched"}

    async def noticed(self) -> dict[str, Any]:
        """Tell what changed so far."""
        return {"event": "noticed", "changes": self.changes}

    async def begin(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Begin a call."""
        self.request_id = self.session._request_id
        self.running = asyncio.create_task(self.session.call_tool(name, arguments))
        return {"event": "begun"}

    async def abort(self) -> dict[str, Any]:
        """Cancel the call that was begun; this SDK leaves the notification to its user."""
        assert self.running is not None
        params = types.CancelledNotificationParams(requestId=self.request_id)
        note = types.CancelledNotification(method="notifications/cancelled", params=params)
        await self.session.send_notification(types.ClientNotification(note))
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        return {"event": "aborted"}

    async def read(self, uri: str) -> dict[str, Any]:
        """Read a resource."""
        content: Any = (await self.session.read_resource(uri)).contents[0]  # type: ignore[arg-type]
        return {"event": "read", "text": content.text, "mime": content.mimeType}

    async def resources(self) -> dict[str, Any]:
        """List the resources."""
        listed = await self.session.list_resources()
        return {"event": "resources", "uris": [str(one.uri) for one in listed.resources]}

    async def prompt(self, name: str, arguments: dict[str, str]) -> dict[str, Any]:
        """Get a prompt."""
        content: Any = (await self.session.get_prompt(name, arguments)).messages[0].content
        return {"event": "prompt", "text": content.text}

    async def complete(self, prompt: str, argument: str, value: str) -> dict[str, Any]:
        """Complete a prompt's argument."""
        reference = PromptReference(type="ref/prompt", name=prompt)
        result = await self.session.complete(reference, {"name": argument, "value": value})
        return {"event": "completed", "values": result.completion.values}

    async def expire(self) -> dict[str, Any]:
        """Take the access token for expired."""
        self.provider.context.token_expiry_time = 1.0
        return {"event": "expired"}

    async def tokens(self) -> dict[str, Any]:
        """Tell the tokens."""
        kept = self.memory.tokens
        return {"event": "tokens", "access": kept.access_token, "refresh": kept.refresh_token}


async def main(endpoint: str) -> None:
    """Connect at the first command, then answer commands."""
    memory, person = Memory(), Person()
    provider = OAuthClientProvider(
        server_url=endpoint,
        client_metadata=OAuthClientMetadata(
            client_name="Official Python client",
            redirect_uris=[REDIRECT_URI],  # type: ignore[list-item]
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            token_endpoint_auth_method="none",
        ),
        storage=memory,
        redirect_handler=person.open,
        callback_handler=person.came_back,
    )
    assert (await hear())["do"] == "connect"
    heard: list[str] = []
    changes: list[str] = []
    told = {**callbacks(types, heard), "message_handler": noticing(changes)}
    try:
        async with (
            streamablehttp_client(endpoint, auth=provider) as (reading, writing, _),
            ClientSession(reading, writing, **told) as session,
        ):
            commands = Commands(session, provider, memory, await session.initialize())
            commands.heard, commands.changes = heard, changes
            say(**await commands.connect())
            if not await answer_commands(commands):
                await hear()
            say("quit")
    except Exception as error:
        report(error)
        await hear()
        say("quit")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
