"""What the tests of connecting share: people, upstreams, and a person's browser."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.fakes.authorization_server import FakeAuthorizationServer
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.patience import PATIENCE
from upstreams import credentials
from upstreams.credentials import Credential
from upstreams.models import CredentialKind, Upstream, UpstreamAccount
from upstreams.upstream_facts import UpstreamFacts


def person(name: str = "alice", **members: Any) -> User:
    """A person who may sign in."""
    return User.objects.create_user(name, f"{name}@example.com", "a password", **members)


def upstream_at(url: str, *, key: str = "fake", **members: Any) -> Upstream:
    """An upstream where everybody has an OAuth account, unless told otherwise."""
    kind = members.pop("credential_kind", CredentialKind.USER_OAUTH)
    return Upstream.objects.create(
        key=key, title=key.title(), url=url, credential_kind=kind, **members
    )


def facts_of(upstream: Upstream) -> UpstreamFacts:
    """The upstream's snapshot, read anew."""
    return UpstreamFacts.of(Upstream.objects.get(pk=upstream.pk))


def browser_of(user: User) -> Client:
    """A browser in which this person is signed in."""
    client = Client(HTTP_HOST="localhost:8000")
    client.force_login(user)
    return client


def begin(client: Client, upstream: Upstream, next_path: str = "/connections/") -> str:
    """Press Connect; returns the address of the authorization server."""
    answer = client.post(f"/connect/{upstream.key}/", {"next": next_path})
    assert answer.status_code == 303, answer.content.decode()
    return str(answer["Location"])


def approve(address: str) -> str:
    """Say yes at the authorization server; returns the local address of the callback."""
    answer = httpx.get(address, follow_redirects=False)
    assert answer.status_code == 302, answer.text
    parts = urlsplit(answer.headers["location"])
    return f"{parts.path}?{parts.query}"


def connect(client: Client, upstream: Upstream) -> Any:
    """Connect from start to end; returns the answer of the callback."""
    return client.get(approve(begin(client, upstream)))


def query_of(address: str) -> dict[str, str]:
    """The query of an address, first values."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def account_of(user: User, upstream: Upstream) -> UpstreamAccount:
    """The person's account, read anew."""
    return UpstreamAccount.objects.get(user=user, upstream=upstream)


def token_requests(server: FakeAuthorizationServer) -> int:
    """How many requests the token endpoint saw."""
    return len(server.calls("/token"))


async def until(true: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    """Wait until something is true; fails after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def run(work: Any) -> Any:
    """Run a coroutine on a loop of its own."""
    return asyncio.run(work)


def expire(**members: Any) -> None:
    """Have every access token be over, and nothing of it cached."""
    long_ago = timezone.now() - timedelta(hours=1)
    UpstreamAccount.objects.update(
        expires_at=timezone.now() - timedelta(seconds=5), connected_at=long_ago, **members
    )
    credentials.forget()


def bearer(credential: Credential) -> str:
    return dict(credential.headers)[b"authorization"].decode().removeprefix("Bearer ")


__all__ = ["FakeAuthorizationServer", "ProtectedUpstream"]
