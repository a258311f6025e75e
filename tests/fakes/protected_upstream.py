"""A fake MCP server behind a fake authorization server, with its resource metadata."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.asgi_server import serve
from tests.fakes.authorization_server import FakeAuthorizationServer, Fault, as_json, reply
from tests.fakes.mcp_upstream import FakeUpstream

PRM = "/.well-known/oauth-protected-resource"


@dataclass
class ProtectedUpstream:
    """A fake MCP server that takes the tokens of an authorization server, with its metadata.

    Knobs: ``challenge`` (None = names its metadata; "" = no header at all), ``resource``,
    ``servers`` (None = the authorization server's issuer), ``at`` ("path" | "root" | "none" |
    "named": where its metadata is), ``prm_fault``, ``scopes``, ``challenge_scope``, and those of
    ``mcp`` (a FakeUpstream).
    """

    server: FakeAuthorizationServer
    mcp: FakeUpstream = field(default_factory=FakeUpstream)
    challenge: str | None = None
    challenge_scope: str = ""
    resource: str = ""
    servers: list[str] | None = None
    at: str = "path"
    prm_fault: Fault | None = None
    scopes: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.origin = ""
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return f"{self.origin}/mcp"

    @contextlib.contextmanager
    def serve(self, *, tls: bool = False) -> Iterator["ProtectedUpstream"]:
        """Run until the block ends."""
        with serve(self, tls=tls) as origin:
            self.origin = origin
            self.mcp.challenge = self._challenge()
            yield self

    def _challenge(self) -> str:
        if self.challenge is not None:
            return self.challenge
        place = {"path": f"{PRM}/mcp", "named": "/meta/resource", "root": PRM, "none": ""}[self.at]
        parts = ['Bearer realm="fake, \\"one\\""']
        if place:
            parts.append(f'resource_metadata="{self.origin}{place}"')
        if self.challenge_scope:
            parts.append(f'scope="{self.challenge_scope}"')
        return ", ".join(parts)

    def document(self) -> dict[str, Any]:
        """The protected resource metadata."""
        found = {
            "resource": self.resource or self.url,
            "authorization_servers": (
                [self.server.issuer] if self.servers is None else self.servers
            ),
            **({"scopes_supported": self.scopes} if self.scopes else {}),
            **self.changes,
        }
        return {name: value for name, value in found.items() if value is not None}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer for the metadata, hand the rest to the MCP server."""
        path = scope["path"]
        place = {"path": f"{PRM}/mcp", "named": "/meta/resource", "root": PRM, "none": ""}[self.at]
        if path != "/mcp":
            self.fetched.append(path)
            found = path == place
            right = self.prm_fault or as_json(self.document())
            await reply(send, right if found else as_json({}, 404))
            return
        # An empty set would mean that the fake asks for no token.
        self.mcp.tokens = self.server.tokens or {"nobody has one yet"}
        await self.mcp(scope, receive, send)
