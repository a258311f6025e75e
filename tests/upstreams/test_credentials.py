"""The credential of a call: cached, renewed exactly once, never another person's."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.fakes.authorization_server import Fault
from tests.upstreams.connecting import (
    account_of,
    browser_of,
    connect,
    facts_of,
    person,
    until,
    upstream_at,
)
from upstreams import accounts, actions, credentials, sealed_secrets, token_refresh
from upstreams.credentials import Credential, cached_credential, credential_for, renew
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import (
    CredentialKind,
    CredentialPlacement,
    Upstream,
    UpstreamAccount,
    UpstreamClient,
)

pytestmark = pytest.mark.django_db(transaction=True)


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


@pytest.fixture
def connected(server, protected):
    """A person with an account; returns (person, upstream)."""
    alice, upstream = person(), upstream_at(protected.url)
    assert connect(browser_of(alice), upstream).status_code == 303
    return alice, upstream


# Kinds of credentials.


def test_without_a_credential_nothing_is_sent() -> None:
    facts = facts_of(upstream_at("https://x.example/", credential_kind=CredentialKind.NONE))
    assert cached_credential(7, facts) == credentials.NO_CREDENTIAL
    assert run(credential_for(7, facts)).headers == ()


def test_a_fixed_credential_is_the_same_for_everybody(django_assert_num_queries) -> None:
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.FIXED)
    actions.set_fixed_credential(upstream, "sk-1", None)
    facts = facts_of(upstream)
    found = run(credential_for(7, facts))
    assert found.headers == ((b"authorization", b"Bearer sk-1"),)
    with django_assert_num_queries(0):
        assert cached_credential(8, facts) == found


def test_a_query_credential_is_escaped() -> None:
    upstream = upstream_at(
        "https://x.example/",
        credential_kind=CredentialKind.FIXED,
        credential_placement=CredentialPlacement.QUERY,
        credential_name="api_key",
    )
    actions.set_fixed_credential(upstream, "a&b=c d/%", None)
    found = run(credential_for(7, facts_of(upstream)))
    assert (found.headers, found.query) == ((), b"api_key=a%26b%3Dc%20d%2F%25")


@pytest.mark.parametrize("name", ["Host", "content-length", "Mcp-Session-Id", "X\r\nY", "", "a b"])
def test_a_header_that_is_not_the_credentials_to_set_is_refused(name: str) -> None:
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.FIXED)
    actions.set_fixed_credential(upstream, "sk-1", None)
    Upstream.objects.update(credential_name=name)
    with pytest.raises(SetupFailed):
        run(credential_for(7, facts_of(upstream)))


def test_the_missing_shared_credential_is_the_administrators_task() -> None:
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.FIXED)
    with pytest.raises(SetupFailed) as error:
        run(credential_for(7, facts_of(upstream)))
    assert "administrator" in error.value.message


def test_a_persons_key_is_theirs_alone() -> None:
    alice, bob = person(), person("bob")
    upstream = upstream_at(
        "https://x.example/",
        credential_kind=CredentialKind.USER_KEY,
        credential_name="X-Key",
        credential_prefix="",
    )
    accounts.save_user_key(alice, upstream, "sk-alice", actor=alice)
    facts = facts_of(upstream)
    assert run(credential_for(alice.pk, facts)).headers == ((b"x-key", b"sk-alice"),)
    with pytest.raises(NeedsConnection) as error:
        run(credential_for(bob.pk, facts))
    assert (error.value.reason, error.value.upstream_key) == ("not_connected", "fake")
    assert cached_credential(bob.pk, facts) is None


def test_a_copied_row_does_not_open(connected) -> None:
    alice, upstream = connected
    bob = person("bob")
    account = account_of(alice, upstream)
    account.pk, account.user = None, bob
    account.save()
    with pytest.raises(NeedsConnection):
        run(credential_for(bob.pk, facts_of(upstream)))


def test_nothing_shows_a_secret_by_being_printed(connected) -> None:
    alice, upstream = connected
    credential = run(credential_for(alice.pk, facts_of(upstream)))
    tokens = sealed_secrets.open_tokens(account_of(alice, upstream), upstream.url)
    for shown in (repr(credential), repr(tokens), repr(account_of(alice, upstream))):
        assert tokens.access_token not in shown
        assert tokens.refresh_token not in shown


def test_the_warm_path_asks_no_database(connected, django_assert_num_queries) -> None:
    alice, upstream = connected
    facts = facts_of(upstream)
    found = run(credential_for(alice.pk, facts))
    with django_assert_num_queries(0):
        for _ in range(3):
            assert cached_credential(alice.pk, facts) is found
    assert cached_credential(alice.pk + 1, facts) is None


def test_what_is_disconnected_is_forgotten_at_once(connected) -> None:
    alice, upstream = connected
    facts = facts_of(upstream)
    run(credential_for(alice.pk, facts))
    accounts.disconnect(alice, upstream, actor=alice)
    assert cached_credential(alice.pk, facts) is None
    with pytest.raises(NeedsConnection):
        run(credential_for(alice.pk, facts))


def test_a_disconnect_while_reading_leaves_nothing_in_the_cache(connected, monkeypatch) -> None:
    alice, upstream = connected
    facts = facts_of(upstream)
    real = credentials._account_credential

    def slow(account, facts):
        found = real(account, facts)
        accounts.disconnect(alice, upstream, actor=alice)
        return found

    monkeypatch.setattr(credentials, "_account_credential", slow)
    run(credential_for(alice.pk, facts))
    assert cached_credential(alice.pk, facts) is None


# Renewal.


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
    server, connected, fault
) -> None:
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


def test_a_server_that_cannot_be_reached_is_a_failure_that_may_pass(connected) -> None:
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
    assert server.refreshes == 1
    assert accounts.status_for(alice, upstream).state == "needs_reconnect"


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
    real = token_refresh._write

    def gone(leased, reply):
        accounts.disconnect(alice, upstream, actor=alice)
        return real(leased, reply)

    monkeypatch.setattr(token_refresh, "_write", gone)
    with pytest.raises(NeedsConnection):
        run(credential_for(alice.pk, facts_of(upstream)))
    assert not UpstreamAccount.objects.exists()


def test_r37_a_lease_whose_holder_died_is_taken_over(server, connected) -> None:
    alice, upstream = connected
    expire(refresh_lease_owner="dead", refresh_lease_until=timezone.now() + timedelta(seconds=0.6))
    begun = time.monotonic()
    assert bearer(run(credential_for(alice.pk, facts_of(upstream)))) in server.tokens
    assert 0.3 < time.monotonic() - begun < 10
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
    assert not UpstreamClient.objects.exists()


# After a refusal by the upstream.


def test_a_refused_token_is_renewed_once(server, connected) -> None:
    alice, upstream = connected
    facts = facts_of(upstream)

    async def use() -> tuple[Credential, list[Credential]]:
        old = await credential_for(alice.pk, facts)
        return old, await asyncio.gather(*(renew(alice.pk, facts, old) for _ in range(20)))

    old, fresh = run(use())
    assert server.refreshes == 1
    assert {bearer(credential) for credential in fresh} != {bearer(old)}
    assert cached_credential(alice.pk, facts) is not None


def test_151_a_fresh_token_that_is_refused_too_ends_the_loop(server, connected) -> None:
    alice, upstream = connected
    facts = facts_of(upstream)

    async def use() -> None:
        first = await credential_for(alice.pk, facts)
        second = await renew(alice.pk, facts, first)
        for _ in range(3):
            with pytest.raises(NeedsConnection):
                await renew(alice.pk, facts, second)

    run(use())
    assert server.refreshes == 1


def test_a_refused_shared_credential_is_the_administrators_task() -> None:
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.FIXED)
    actions.set_fixed_credential(upstream, "sk-1", None)
    facts = facts_of(upstream)

    async def use() -> None:
        old = await credential_for(7, facts)
        with pytest.raises(SetupFailed) as error:
            await renew(7, facts, old)
        assert "administrator" in error.value.message

    run(use())
    old = run(credential_for(7, facts))
    actions.set_fixed_credential(upstream, "sk-2", None)
    assert run(renew(7, facts, old)).headers == ((b"authorization", b"Bearer sk-2"),)


def test_a_refused_key_asks_for_another() -> None:
    alice = person()
    upstream = upstream_at("https://x.example/", credential_kind=CredentialKind.USER_KEY)
    accounts.save_user_key(alice, upstream, "sk-1", actor=alice)
    facts = facts_of(upstream)
    old = run(credential_for(alice.pk, facts))
    with pytest.raises(NeedsConnection) as error:
        run(renew(alice.pk, facts, old))
    assert error.value.reason == "reconnect"


def test_a_step_up_asks_for_both_scopes_and_not_in_circles(server, protected) -> None:
    alice, upstream = person(), upstream_at(protected.url, oauth_scopes="read")
    browser = browser_of(alice)
    connect(browser, upstream)
    facts = facts_of(upstream)
    old = run(credential_for(alice.pk, facts))
    with pytest.raises(NeedsConnection) as error:
        run(renew(alice.pk, facts, old, scope="write"))
    assert error.value.reason == "scope"
    assert accounts.status_for(alice, upstream).state == "needs_reconnect"
    connect(browser, upstream)
    assert account_of(alice, upstream).scope == "read write"
    assert accounts.status_for(alice, upstream).state == "connected"
    old = run(credential_for(alice.pk, facts))
    with pytest.raises(SetupFailed):
        run(renew(alice.pk, facts, old, scope="write"))


# What a token endpoint may answer (#145).


@pytest.mark.parametrize(
    ("changes", "lives"),
    [
        ({"expires_in": "3600"}, 3600),
        ({"expires_in": 1e12}, 365 * 24 * 3600),
        ({"expires_in": -1}, None),
        ({"expires_in": 0}, None),
        ({"expires_in": "soon"}, None),
        ({"expires_in": True}, None),
        ({"expires_in": None}, None),
        ({"expires_in": 1}, 10),
        ({"token_type": "bearer"}, 3600),
        ({"token_type": None}, 3600),
        ({"refresh_token": None}, 3600),
        ({"scope": 7}, 3600),
        ({"id_token": "a.b.c"}, 3600),
        ({"id_token": "x" * 20_000}, 3600),
    ],
)
def test_145_odd_answers_are_clamped(server, protected, changes, lives) -> None:
    server.reply_changes = changes
    if "expires_in" in changes:
        server.expires_in = changes["expires_in"]
    alice, upstream = person(), upstream_at(protected.url)
    assert connect(browser_of(alice), upstream).status_code == 303
    expires = account_of(alice, upstream).expires_at
    if lives is None:
        assert expires is None
    else:
        assert abs((expires - timezone.now()).total_seconds() - lives) < 10


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": value}
        for value in ("a\r\nX: y", "a b", "", None, 7, "x" * 16_384, "é", "a\x00", 'a"b', ["x"])
    ]
    + [{"refresh_token": value} for value in ("a\r\nb", "x" * 16_384, 7)]
    + [{"token_type": value} for value in ("DPoP", "mac", 7)],
)
def test_145_hostile_answers_are_refused(server, protected, changes) -> None:
    server.reply_changes = changes
    answer = connect(browser_of(person()), upstream_at(protected.url))
    assert answer.status_code == 502
    assert not UpstreamAccount.objects.exists()
