"""Fixtures of this room's tests."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from tests.fakes.authorization_server import FakeAuthorizationServer
from tests.fakes.protected_upstream import ProtectedUpstream
from tests.upstreams.connecting import browser_of, connect, person, upstream_at
from upstreams import accounts, credentials
from upstreams.models import Upstream


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


@pytest.fixture
def connected(transactional_db: None, protected: ProtectedUpstream) -> tuple[User, Upstream]:
    """A person with an account; returns (person, upstream)."""
    alice, upstream = person(), upstream_at(protected.url)
    assert connect(browser_of(alice), upstream).status_code == 303
    return alice, upstream
