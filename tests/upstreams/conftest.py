"""Fixtures of this room's tests."""

from collections.abc import Iterator

import pytest

from tests.fakes.authorization_server import FakeAuthorizationServer, ProtectedUpstream
from upstreams import accounts, credentials


@pytest.fixture(autouse=True)
def fresh_caches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing cached from another test; everybody may connect to everything."""
    monkeypatch.setattr(accounts, "_rule", None)
    credentials.forget()
    yield
    credentials.forget()


@pytest.fixture
def server() -> Iterator[FakeAuthorizationServer]:
    """A running authorization server."""
    with FakeAuthorizationServer().serve() as running:
        yield running


@pytest.fixture
def protected(server: FakeAuthorizationServer) -> Iterator[ProtectedUpstream]:
    """A running MCP server behind it."""
    with ProtectedUpstream(server).serve() as running:
        yield running
