"""What tests of the router need: people, Virtual MCPs over real fake upstreams, requests."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from channels.db import database_sync_to_async
from django.contrib.auth.models import Group, User
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Model

from gateway_site.models import AuditEvent, ChangeNotice
from oauthserver.bearer_tokens import TokenHolder
from tests.fakes.mcp_upstream import FakeUpstream
from tests.virtualmcp.background_writes import settled as settled
from upstreams import credentials, mcp_client
from upstreams.canonical_call import ClientFacts, Outcome, QuestionNotPossible
from upstreams.models import Upstream, UpstreamAccount, UpstreamHealth
from upstreams.revisions import LEGACY_LATEST, META_CLIENT_CAPABILITIES, META_VERSION, MODERN, Era
from virtualmcp import (
    definition_pins,
    published_lists,
    route_table,
    tool_catalogue,
    upstream_openings,
)
from virtualmcp.models import PublicName, ToolDefinition, UpstreamChoice, VirtualMcp
from virtualmcp.route_table import VirtualMcpFacts
from virtualmcp.routing import method_table, resource_routes
from virtualmcp.routing.client_request import Answer, ClientRequest

# Children first.
_WRITTEN: list[type[Model]] = [
    ToolDefinition,
    PublicName,
    UpstreamChoice,
    VirtualMcp.groups.through,
    VirtualMcp,
    UpstreamAccount,
    UpstreamHealth,
    Upstream,
    AuditEvent,
    ChangeNotice,
    User.groups.through,
    User,
    Group,
]
URL_MODE: dict[str, Any] = {"elicitation": {"url": {}}}


def forget_everything() -> None:
    """Begin as a process that was just started."""
    route_table.forget()
    tool_catalogue.catalogue.forget()
    upstream_openings.forget()
    published_lists.forget()
    definition_pins.forget()
    resource_routes.forget()
    credentials.forget()
    mcp_client.forget()


@contextlib.contextmanager
def own_rows(blocker: Any) -> Iterator[None]:
    """Let every thread write to the test database, and leave it empty.

    Much faster than emptying all tables as transactional tests do.
    """
    with blocker.unblock():
        forget_everything()
        yield
        forget_everything()
        with connection.cursor() as cursor:
            for model in _WRITTEN:
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(model._meta.db_table)}")


def in_thread(work: Any, *args: Any, **more: Any) -> Any:
    """Run something blocking from an asynchronous test."""
    return database_sync_to_async(work, thread_sensitive=False)(*args, **more)


@contextlib.contextmanager
def counted_queries() -> Iterator[list[str]]:
    """Collect the SQL of every thread while the block runs."""
    seen: list[str] = []
    execute = CursorWrapper.execute

    def counting(self: Any, sql: Any, params: Any = None) -> Any:
        seen.append(str(sql))
        return execute(self, sql, params)

    CursorWrapper.execute = counting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        CursorWrapper.execute = execute  # type: ignore[method-assign]


def person(name: str = "ada") -> User:
    """Make a person."""
    return User.objects.create_user(name)


def upstream(fake: FakeUpstream | None, key: str, **more: Any) -> Upstream:
    """Register a fake upstream, or with none an address where nobody listens."""
    url = fake.url if fake is not None else "http://127.0.0.1:9/mcp"
    return Upstream.objects.create(
        key=key, **{"title": key.capitalize(), "url": url, "list_timeout": 10, **more}
    )


def virtual_mcp(*upstreams: Upstream, slug: str = "team", **more: Any) -> VirtualMcp:
    """Make a Virtual MCP for everyone over these upstreams, in this order."""
    row = VirtualMcp.objects.create(
        slug=slug, **{"title": "Team", "audience": VirtualMcp.Audience.EVERYONE, **more}
    )
    for position, chosen in enumerate(upstreams):
        UpstreamChoice.objects.create(virtual_mcp=row, upstream=chosen, position=position)
    return row


def holder(
    user_id: int = 1, client_id: str = "client", groups: frozenset[int] = frozenset()
) -> Any:
    """Make who presented a token."""
    return TokenHolder(
        user_id=user_id,
        username="ada",
        client_id=client_id,
        client_name="Client",
        scopes=frozenset({"mcp:tools"}),
        audience="",
        expires_at=0.0,
        group_ids=groups,
        token_digest="",
    )


class Heard:
    """A sink that keeps what it hears and answers questions from ``replies``."""

    def __init__(self, *replies: dict[str, Any]) -> None:
        self.notices: list[tuple[str, Any]] = []
        self.questions: list[tuple[str, Any]] = []
        self._replies = list(replies)

    async def notify(self, method: str, params: bytes) -> None:
        self.notices.append((method, json.loads(params or b"null")))

    async def ask(self, method: str, params: bytes, origin: object = None) -> Outcome:
        self.questions.append((method, json.loads(params)))
        if not self._replies:
            raise QuestionNotPossible(method)
        return Outcome(result=json.dumps(self._replies.pop(0)).encode())

    async def answered(self, question_id: bytes) -> None: ...

    async def resumable(self, origin: object) -> None: ...


@dataclass
class Client:
    """A client of one Virtual MCP, below the wire."""

    slug: str = "team"
    revision: str = MODERN
    user_id: int = 1
    client_id: str = "client"
    capabilities: dict[str, Any] = field(default_factory=dict)
    sink: Heard = field(default_factory=Heard)

    @property
    def facts(self) -> ClientFacts:
        """What the client says of itself."""
        raw = json.dumps(self.capabilities).encode()
        return ClientFacts(self.revision, raw, b"", hashlib.sha256(raw).hexdigest()[:16])

    async def server(self) -> VirtualMcpFacts:
        """Return the snapshot a request would get."""
        found = route_table.cached(self.slug) or await route_table.load(self.slug)
        assert found is not None
        return found

    async def send(
        self, method: str, params: dict[str, Any] | bytes | None = None, **more: Any
    ) -> Answer:
        """Make a request."""
        modern = self.revision == MODERN
        if not isinstance(params, bytes):
            params = dict(params or {})
            if modern:
                meta = {META_VERSION: MODERN, META_CLIENT_CAPABILITIES: self.capabilities}
                params["_meta"] = {**meta, **params.get("_meta", {})}
            params = json.dumps(params).encode()
        request = ClientRequest(
            server=await self.server(),
            holder=holder(self.user_id, self.client_id),
            era=Era.MODERN if modern else Era.LEGACY,
            method=method,
            params=params,
            client=self.facts,
            **more,
        )
        return await method_table.answer(request, self.sink)

    async def result(self, method: str, params: Any = None, **more: Any) -> Any:
        """Make a request that succeeds."""
        answer = await self.send(method, params, **more)
        assert answer.error is None, answer.error
        return json.loads(answer.whole())

    async def error(self, method: str, params: Any = None, **more: Any) -> Any:
        """Make a request that fails; returns the wire error."""
        answer = await self.send(method, params, **more)
        assert answer.error is not None, answer.result
        return answer.error

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool that exists."""
        return await self.result("tools/call", {"name": tool, "arguments": arguments})

    async def names(self, method: str = "tools/list") -> list[str]:
        """Return what a list names."""
        member, identity = {
            "tools/list": ("tools", "name"),
            "prompts/list": ("prompts", "name"),
            "resources/list": ("resources", "uri"),
            "resources/templates/list": ("resourceTemplates", "uriTemplate"),
        }[method]
        return [entry[identity] for entry in (await self.result(method))[member]]


def legacy(**more: Any) -> Client:
    """A stateful client of the newest stateful revision."""
    return Client(revision=LEGACY_LATEST, **more)
