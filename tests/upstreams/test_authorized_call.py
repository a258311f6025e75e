"""Calls on behalf of a person: renewed once when refused, never in a loop."""

import json

import pytest

from tests.fakes.mcp_upstream import FakeUpstream
from tests.upstreams.relaying import bearer, facts_for, text_of, tool_call
from upstreams import authorized_call, credentials, mcp_client
from upstreams.canonical_call import ClientFacts, SilentSink
from upstreams.errors import CredentialRefused, NeedsConnection, ScopeInsufficient


class Accounts:
    """Stands in for the stored accounts: what is cached, what a renewal brings."""

    def __init__(self, cached, renewed):
        self.cached, self.renewed = cached, renewed
        self.asked, self.renewals = 0, []

    def cached_credential(self, user_id, facts):
        return self.cached

    async def credential_for(self, user_id, facts):
        self.asked += 1
        return bearer("good")

    async def renew(self, user_id, facts, refused, *, scope=""):
        self.renewals.append((user_id, refused.headers[0][1], scope))
        if isinstance(self.renewed, Exception):
            raise self.renewed
        return self.renewed


@pytest.fixture
def with_accounts(monkeypatch):
    def install(cached=None, renewed=None):
        accounts = Accounts(cached, renewed)
        for name in ("cached_credential", "credential_for", "renew"):
            monkeypatch.setattr(credentials, name, getattr(accounts, name))
        return accounts

    return install


@pytest.fixture(autouse=True)
async def forgotten_afterwards():
    mcp_client.forget()
    yield
    await mcp_client.close_all()


async def call(upstream, kind="user_oauth", name="echo"):
    facts = facts_for(upstream.url, era="modern", credential_kind=kind)
    return await authorized_call.call_as(7, facts, tool_call(name, {"text": "x"}), SilentSink())


async def test_a_warm_credential_asks_nobody_and_a_cold_one_is_fetched(with_accounts):
    with FakeUpstream(tokens={"good"}).serve() as upstream:
        warm = with_accounts(cached=bearer("good"))
        assert text_of(await call(upstream)) == "x"
        assert warm.asked == 0
        cold = with_accounts()
        assert text_of(await call(upstream)) == "x"
        assert (cold.asked, cold.renewals) == (1, [])


async def test_a_refused_credential_is_renewed_and_the_call_made_once_more(with_accounts):
    accounts = with_accounts(cached=bearer("old"), renewed=bearer("good"))
    with FakeUpstream(tokens={"good"}).serve() as upstream:
        assert text_of(await call(upstream)) == "x"
        assert accounts.renewals == [(7, b"Bearer old", "")]
        assert len(upstream.calls("tools/call")) == 2


async def test_a_fresh_credential_that_is_refused_too_leads_to_reconnecting(with_accounts):
    with_accounts(cached=bearer("old"), renewed=bearer("also-bad"))
    with FakeUpstream(tokens={"good"}).serve() as upstream:
        with pytest.raises(NeedsConnection) as caught:
            await call(upstream)
        assert (caught.value.reason, caught.value.upstream_key) == ("reconnect", "fake")
        assert len(upstream.calls("tools/call")) == 2


async def test_a_shared_credential_that_stays_refused_is_no_persons_business(with_accounts):
    with_accounts(cached=bearer("old"), renewed=bearer("also-bad"))
    with FakeUpstream(tokens={"good"}).serve() as upstream, pytest.raises(CredentialRefused):
        await call(upstream, kind="fixed")


async def test_a_missing_scope_is_asked_for(with_accounts):
    needs = NeedsConnection("x", upstream_id=1, upstream_key="fake", title="Fake", reason="scope")
    accounts = with_accounts(cached=bearer("good"), renewed=needs)
    with FakeUpstream(need_scope={"echo": "files:write"}).serve() as upstream:
        with pytest.raises(NeedsConnection) as caught:
            await call(upstream)
        assert caught.value.reason == "scope"
        assert accounts.renewals == [(7, b"Bearer good", "files:write")]


async def test_a_scope_still_missing_after_renewal_leads_to_the_connect_page(with_accounts):
    with_accounts(cached=bearer("good"), renewed=bearer("better"))
    with FakeUpstream(need_scope={"echo": "files:write"}).serve() as upstream:
        with pytest.raises(NeedsConnection) as caught:
            await call(upstream)
        assert caught.value.reason == "scope"
        assert isinstance(caught.value.__cause__, ScopeInsufficient)


async def test_a_key_that_may_not_do_everything_is_not_renewed_and_works_on(with_accounts):
    accounts = with_accounts(cached=bearer("good"))
    with FakeUpstream(need_scope={"echo": "files:write"}).serve() as upstream:
        with pytest.raises(NeedsConnection) as caught:
            await call(upstream, kind="user_key")
        assert caught.value.reason == "scope"
        assert accounts.renewals == []
        assert len(upstream.calls("tools/call")) == 1


async def test_the_opening_is_read_with_the_persons_credential(with_accounts):
    with_accounts(cached=bearer("old"), renewed=bearer("good"))
    with FakeUpstream(tokens={"good"}).serve() as upstream:
        facts = facts_for(upstream.url, era="modern", credential_kind="user_oauth")
        raw = await authorized_call.opening_as(7, facts, ClientFacts())
        assert json.loads(raw)["supportedVersions"] == ["2026-07-28"]
        with_accounts(cached=bearer("old"), renewed=bearer("bad"))
        mcp_client.forget()
        with pytest.raises(NeedsConnection):
            await authorized_call.opening_as(7, facts, ClientFacts())
