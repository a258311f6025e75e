"""The official Python client, version 2, as a program of the line protocol."""

import asyncio
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mcp_types
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from mcp_types import PromptReference

from tests.journeys.clients.line_protocol import (
    REDIRECT_URI,
    answer_commands,
    ask_person,
    hear,
    report,
    say,
)
from tests.journeys.clients.replies import callbacks, change_of, noticing


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

    async def came_back(self) -> AuthorizationCodeResult:
        """Return what the redirect carried."""
        query = parse_qs(urlsplit(self.redirect).query)
        state, iss = query.get("state", [None])[0], query.get("iss", [None])[0]
        return AuthorizationCodeResult(code=query["code"][0], state=state, iss=iss)


class Commands:
    """What the program can do once connected."""

    def __init__(
        self, client: Client, provider: OAuthClientProvider, memory: Memory, heard: list[str]
    ) -> None:
        self.client, self.provider, self.memory = client, provider, memory
        self.heard = heard
        self.changes: list[str] = []
        self.listening: asyncio.Task[None] | None = None
        self.running: asyncio.Task[Any] | None = None

    async def __call__(self, command: dict[str, Any]) -> dict[str, Any]:
        """Run one command."""
        event: dict[str, Any] = await getattr(self, command.pop("do"))(**command)
        return event

    async def connect(self) -> dict[str, Any]:
        """Tell what was agreed on."""
        return {
            "event": "connected",
            "revision": self.client.protocol_version,
            "instructions": self.client.instructions,
        }

    async def tools(self) -> dict[str, Any]:
        """List the tools, page by page."""
        names, cursor = [], None
        while True:
            page = await self.client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            if not (cursor := page.next_cursor):
                return {"event": "tools", "names": names}

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool and note its progress."""
        progress: list[float] = []

        async def note(done: float, total: float | None, message: str | None) -> None:
            progress.append(done)

        result = await self.client.call_tool(name, arguments, progress_callback=note)
        text = "".join(getattr(block, "text", "") for block in result.content)
        return {
            "event": "called",
            "text": text,
            "is_error": result.is_error,
            "structured": result.structured_content,
            "progress": progress,
        }

    async def asked(self) -> dict[str, Any]:
        """Tell what the person, the model and the folders were asked."""
        return {"event": "asked", "heard": self.heard}

    async def watch(self, uris: list[str]) -> dict[str, Any]:
        """Listen in the manner of the revision; tells which resources will be told of."""
        if self.client.protocol_version == "2026-07-28":
            ready: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
            self.listening = asyncio.create_task(self._listen(uris, ready))
            return {"event": "watching", "uris": await ready}
        for uri in uris:
            await self.client.subscribe_resource(uri)
        return {"event": "watching", "uris": uris}

    async def _listen(self, uris: list[str], ready: "asyncio.Future[list[str]]") -> None:
        listening = self.client.listen(
            tools_list_changed=True,
            prompts_list_changed=True,
            resources_list_changed=True,
            resource_subscriptions=uris,
        )
        async with listening as subscription:
            honoured: Any = subscription.honored
            ready.set_result(list(honoured.resource_subscriptions or ()))
            async for event in subscription:
                self.changes.append(change_of(event))

    async def unwatch(self, uris: list[str]) -> dict[str, Any]:
        """Give the subscriptions back, in the manner of the revision."""
        if self.listening is not None:
            self.listening.cancel()
            await asyncio.gather(self.listening, return_exceptions=True)
            return {"event": "unwatched"}
        for uri in uris:
            await self.client.unsubscribe_resource(uri)
        return {"event": "unwatched"}

    async def noticed(self) -> dict[str, Any]:
        """Tell what changed so far."""
        return {"event": "noticed", "changes": self.changes}

    async def begin(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Begin a call."""
        self.running = asyncio.create_task(self.client.call_tool(name, arguments))
        return {"event": "begun"}

    async def abort(self) -> dict[str, Any]:
        """Cancel the call that was begun."""
        assert self.running is not None
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        return {"event": "aborted"}

    async def read(self, uri: str) -> dict[str, Any]:
        """Read a resource."""
        content: Any = (await self.client.read_resource(uri)).contents[0]
        return {"event": "read", "text": content.text, "mime": content.mime_type}

    async def resources(self) -> dict[str, Any]:
        """List the resources."""
        listed = await self.client.list_resources()
        return {"event": "resources", "uris": [str(one.uri) for one in listed.resources]}

    async def prompt(self, name: str, arguments: dict[str, str]) -> dict[str, Any]:
        """Get a prompt."""
        content: Any = (await self.client.get_prompt(name, arguments)).messages[0].content
        return {"event": "prompt", "text": content.text}

    async def complete(self, prompt: str, argument: str, value: str) -> dict[str, Any]:
        """Complete a prompt's argument."""
        asked = {"name": argument, "value": value}
        result = await self.client.complete(PromptReference(name=prompt), asked)
        return {"event": "completed", "values": result.completion.values}

    async def expire(self) -> dict[str, Any]:
        """Take the access token for expired."""
        self.provider.context.token_expiry_time = 1.0
        return {"event": "expired"}

    async def tokens(self) -> dict[str, Any]:
        """Tell the tokens."""
        kept = self.memory.tokens
        return {"event": "tokens", "access": kept.access_token, "refresh": kept.refresh_token}


async def main(endpoint: str, mode: str) -> None:
    """Connect at the first command, then answer commands."""
    memory, person = Memory(), Person()
    provider = OAuthClientProvider(
        server_url=endpoint,
        client_metadata=OAuthClientMetadata(
            client_name="Official Python client",
            redirect_uris=[REDIRECT_URI],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            token_endpoint_auth_method="none",
        ),
        storage=memory,
        redirect_handler=person.open,
        callback_handler=person.came_back,
    )
    assert (await hear())["do"] == "connect"
    try:
        async with create_mcp_http_client(auth=provider) as http:
            transport = streamable_http_client(endpoint, http_client=http)
            heard: list[str] = []
            changes: list[str] = []
            asked = {**callbacks(mcp_types, heard), "message_handler": noticing(changes)}
            async with Client(transport, mode=mode, **asked) as client:
                commands = Commands(client, provider, memory, heard)
                commands.changes = changes
                say(**await commands.connect())
                if not await answer_commands(commands):
                    await hear()
                if commands.listening is not None:
                    commands.listening.cancel()
                say("quit")
    except Exception as error:
        report(error)
        await hear()
        say("quit")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
