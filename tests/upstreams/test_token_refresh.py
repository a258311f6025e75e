"""One renewal however many ask, and which failures end a connection (security.md #147 to #149)."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db.models import F
from django.utils import timezone

from tests.fakes.authorization_server import Fault
from tests.upstreams.connecting import (
    account_of,
    bearer,
    browser_of,
    connect,
    expire,
    facts_of,
    person,
    run,
    until,
    upstream_at,
)
from upstreams import (
    account_endings,
    accounts,
    actions,
    credentials,
    refresh_outcome,
    sealed_secrets,
    token_refresh,
)
from upstreams.credentials import Credential, credential_for
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import (
    UpstreamAccount,
    UpstreamClient,
)
from upstreams.signals import changed

pytestmark = pytest.mark.django_db(transaction=True)


def test_147_fifty_calls_with_an_expired_token_make_one_refresh(server, connected) -> None:
    alice, upstream = connected
    server.delay = 0.2
    expire()

    async def fifty() -> list[Credential]:
        facts = await asyncio.to_thread(facts_of, upstream)
        return await asyncio.gather(*(credential_for(alice.pk, facts) for _ in range(50)))

    found = run(fifty())
    assert server.refreshes == 1
    assert len({bearer(credential) for credential in found}) == 1
    assert bearer(found[0]) in server.tokens


def test_r35_fifty_threads_as_many_nodes_make_one_refresh(server, connected) -> None:
    alice, upstream = connected
    facts = facts_of(upstream)
    for _ in range(3):
        expire()
        before = server.refreshes
        start = threading.Barrier(50)

        def one_node(_: int) -> str:
            start.wait(20)  # noqa: B023
            return bearer(run(credential_for(alice.pk, facts)))

        with ThreadPoolExecutor(50) as pool:
            found = set(pool.map(one_node, range(50)))
        assert server.refreshes - before == 1
        assert len(found) == 1
    assert accounts.status_for(alice, upstream).state == "connected"


def test_a_renewed_token_is_stored_before_it_is_used(server, connected) -> None:
    alice, upstream = connected
    before = account_of(alice, upstream)
    expire()
    found = run(credential_for(alice.pk, facts_of(upstream)))
    after = account_of(alice, upstream)
    tokens = sealed_secrets.open_tokens(after, upstream.url)
    assert tokens.access_token == bearer(found)
    assert tokens.refresh_token in server.refresh_tokens
    assert (after.grant_id, after.version) == (before.grant_id, before.version + 1)
    assert (after.refresh_lease_owner, after.refresh_lease_until) == ("", None)
    assert server.calls("/token")[-1].form["resource"] == upstream.url


def test_a_server_that_keeps_its_refresh_token_is_understood(server, connected) -> None:
    alice, upstream = connected
    server.rotate = False
    server.reply_changes = {"refresh_token": None}
    for _ in range(2):
        expire()
        run(credential_for(alice.pk, facts_of(upstream)))
    assert server.refreshes == 2


def test_a_token_near_its_end_is_renewed_while_it_is_still_used(server, connected) -> None:
    alice, upstream = connected
    UpstreamAccount.objects.update(
        expires_at=timezone.now() + timedelta(seconds=20),
        connected_at=timezone.now() - timedelta(hours=1),
    )
    old = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url).access_token

    async def use() -> str:
        facts = await asyncio.to_thread(facts_of, upstream)
        found = bearer(await credential_for(alice.pk, facts))

        async def another() -> bool:
            return bearer(await credential_for(alice.pk, facts)) != found

        await until(another)
        return found

    assert run(use()) == old
    assert server.refreshes == 1


def test_a_caller_that_leaves_does_not_lose_the_rotated_token(server, connected) -> None:
    alice, upstream = connected
    server.delay = 0.2
    expire()

    async def leave() -> None:
        facts = await asyncio.to_thread(facts_of, upstream)
        call = asyncio.create_task(credential_for(alice.pk, facts))

        async def asked() -> bool:
            return len(server.calls("/token")) > 1

        async def renewed() -> bool:
            return (await asyncio.to_thread(account_of, alice, upstream)).version > 1

        await until(asked)
        call.cancel()
        await until(renewed)

    run(leave())
    tokens = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
    assert tokens.refresh_token in server.refresh_tokens


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(503),
        Fault(429),
        Fault(200, b"<html>", "text/html"),
        Fault(200, b"{"),
        Fault(400, b"not json"),
        Fault(400, b'{"error":"temporarily_unavailable"}'),
        Fault(302),
        Fault(200, b"{}"),
        Fault(200, b'{"access_token":"x","token_type":"DPoP"}'),
    ],
)
def test_149_a_failure_that_may_pass_keeps_the_tokens_and_backs_off(
    server, connected, fault, monkeypatch
) -> None:
    monkeypatch.setattr(token_refresh, "PATIENCE_SECONDS", 0)
    alice, upstream = connected
    facts = facts_of(upstream)
    expire()
    server.token_faults = [fault]
    for _ in range(3):
        with pytest.raises(SetupFailed) as error:
            run(credential_for(alice.pk, facts))
        assert error.value.transient
        assert "temporarily" in error.value.message
    assert server.refreshes == 1
    UpstreamAccount.objects.update(refresh_not_before=timezone.now())
    assert bearer(run(credential_for(alice.pk, facts))) in server.tokens


def test_a_server_that_cannot_be_reached_is_a_failure_that_may_pass(connected, monkeypatch) -> None:
    monkeypatch.setattr(token_refresh, "PATIENCE_SECONDS", 0)
    alice, upstream = connected
    client = UpstreamClient.objects.get()
    client.server_metadata["token_endpoint"] = "http://127.0.0.1:1/token"
    client.save()
    expire()
    with pytest.raises(SetupFailed) as error:
        run(credential_for(alice.pk, facts_of(upstream)))
    assert error.value.transient
    assert accounts.status_for(alice, upstream).state == "connected"


@pytest.mark.parametrize("code", ["invalid_grant", "unauthorized_client"])
def test_a_dead_grant_asks_the_person_to_connect_again(server, connected, code: str) -> None:
    alice, upstream = connected
    expire()
    server.token_faults = [Fault(400, b'{"error":"%s"}' % code.encode())]
    for _ in range(3):
        with pytest.raises(NeedsConnection) as error:
            run(credential_for(alice.pk, facts_of(upstream)))
        assert error.value.reason == "reconnect"
        assert error.value.upstream_key == upstream.key
        assert "no longer accepts the sign-in" in error.value.message
    assert server.refreshes == 1
    status = accounts.status_for(alice, upstream)
    assert status.state == "needs_reconnect"
    assert "no longer accepts the sign-in" in status.reason


def test_148_a_refusal_is_not_believed_when_another_node_has_just_renewed(
    server, connected, monkeypatch
) -> None:
    alice, upstream = connected
    expire()
    real = token_refresh.oauth_tokens.refresh

    async def late(endpoint, **members):
        await asyncio.to_thread(renew_elsewhere)
        return await real(endpoint, **members)

    def renew_elsewhere() -> None:
        account = account_of(alice, upstream)
        old = sealed_secrets.open_tokens(account, upstream.url)
        family, grant = server.refresh_tokens.pop(old.refresh_token)
        server.refresh_tokens["rt-other"] = (family, grant)
        server.tokens.add("at-other")
        account.sealed_secret = sealed_secrets.seal_tokens(
            sealed_secrets.StoredTokens("at-other", "rt-other"),
            user_id=alice.pk,
            upstream_id=upstream.pk,
            bound_url=upstream.url,
        )
        account.version += 1
        account.expires_at = timezone.now() + timedelta(hours=1)
        account.save()

    monkeypatch.setattr(token_refresh.oauth_tokens, "refresh", late)
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) == "at-other"
    assert accounts.status_for(alice, upstream).state == "connected"


def test_tokens_renewed_for_a_connection_that_ended_meanwhile_are_not_kept(
    server, connected, monkeypatch
) -> None:
    alice, upstream = connected
    expire()
    real = refresh_outcome.keep

    def gone(*members):
        accounts.disconnect(alice, upstream, actor=alice)
        return real(*members)

    monkeypatch.setattr(refresh_outcome, "keep", gone)
    with pytest.raises(NeedsConnection):
        run(credential_for(alice.pk, facts_of(upstream)))
    assert not UpstreamAccount.objects.exists()
    # What the server gave last is revoked whole, not its access token alone.
    assert set(server.refresh_tokens) & set(server.revoked)


def test_an_answer_that_another_process_wrote_from_the_journal_is_not_revoked(
    server, connected, monkeypatch
) -> None:
    alice, upstream = connected
    expire()
    real = refresh_outcome.keep

    def second(*members):
        assert real(*members)  # the other process, or a commit whose connection broke
        return real(*members)

    monkeypatch.setattr(refresh_outcome, "keep", second)
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert server.revoked == []


def test_an_answer_for_a_connection_made_anew_meanwhile_ends_only_its_own_token(
    server, connected, monkeypatch
) -> None:
    alice, upstream = connected
    expire()
    real = refresh_outcome.keep

    def anew(*members):
        UpstreamAccount.objects.update(grant_id=uuid.uuid4(), version=F("version") + 1)
        return real(*members)

    monkeypatch.setattr(refresh_outcome, "keep", anew)
    run(credential_for(alice.pk, facts_of(upstream)))
    (token,) = server.revoked
    assert token.startswith("at-") and token not in server.tokens


def test_a_grant_that_was_renewed_after_all_lives_again(server, connected, monkeypatch) -> None:
    alice, upstream = connected
    expire()
    real, heard = refresh_outcome.keep, []

    def hear(sender, kind, key, **_):
        heard.append((kind, key))

    def taken_for_dead(account, *members):
        refresh_outcome.end(account, account_endings.REFUSED, "asked with a spent token")
        heard.clear()
        return real(account, *members)

    monkeypatch.setattr(refresh_outcome, "keep", taken_for_dead)
    changed.connect(hear)
    try:
        assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    finally:
        changed.disconnect(hear)
    assert accounts.status_for(alice, upstream).state == "connected"
    assert account_of(alice, upstream).ended_because == ""
    assert heard == [("credential", f"{alice.pk}:{upstream.pk}")]


def test_r37_a_lease_whose_holder_died_is_taken_over(server, connected) -> None:
    alice, upstream = connected
    expire(refresh_lease_owner="dead", refresh_lease_until=timezone.now() + timedelta(seconds=0.6))
    begun = time.monotonic()
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert 0.3 < time.monotonic() - begun < 25
    assert server.refreshes == 1


def test_an_unknown_client_of_an_administrator_keeps_everybody_connected(server, protected) -> None:
    server.register("ours", client_secret="s1")
    alice, upstream = person(), upstream_at(protected.url, oauth_client_id="ours")
    actions.set_oauth_client_secret(upstream, "s1", None)
    connect(browser_of(alice), upstream)
    server.clients["ours"]["client_secret"] = "s2"
    expire()
    with pytest.raises(SetupFailed) as error:
        run(credential_for(alice.pk, facts_of(upstream)))
    assert "administrator" in error.value.message
    actions.set_oauth_client_secret(upstream, "s2", None)
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens


def test_an_unknown_client_of_our_own_making_is_forgotten(server, connected) -> None:
    alice, upstream = connected
    server.clients.clear()
    expire()
    with pytest.raises(NeedsConnection):
        run(credential_for(alice.pk, facts_of(upstream)))
    assert not UpstreamClient.objects.filter(retired_at__isnull=True).exists()
    reason = accounts.status_for(alice, upstream).reason
    assert "no longer knows this gateway" in reason


def test_a_token_that_cannot_be_renewed_serves_until_it_ends(server, connected) -> None:
    alice, upstream = connected
    account = account_of(alice, upstream)
    account.sealed_secret = sealed_secrets.seal_tokens(
        sealed_secrets.StoredTokens("at-only"),
        user_id=alice.pk,
        upstream_id=upstream.pk,
        bound_url=upstream.url,
    )
    account.expires_at = timezone.now() + timedelta(seconds=20)
    account.connected_at = timezone.now() - timedelta(hours=1)
    account.save()
    facts = facts_of(upstream)

    async def use() -> None:
        for _ in range(3):
            credentials.forget()
            assert bearer(await credential_for(alice.pk, facts)) == "at-only"
            await asyncio.gather(*list(credentials._background))

    run(use())
    assert accounts.status_for(alice, upstream).state == "connected"
    expire()
    with pytest.raises(NeedsConnection):
        run(credential_for(alice.pk, facts))
    assert accounts.status_for(alice, upstream).state == "needs_reconnect"
    assert server.refreshes == 0
