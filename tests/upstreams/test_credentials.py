"""The credential of a call: cached, renewed exactly once, never another person's."""

import asyncio

import pytest

from tests.upstreams.connecting import (
    account_of,
    bearer,
    browser_of,
    connect,
    facts_of,
    person,
    run,
    upstream_at,
)
from upstreams import accounts, actions, credential_building, credentials, sealed_secrets
from upstreams.credentials import Credential, cached_credential, credential_for, renew
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import (
    CredentialKind,
    CredentialPlacement,
    Upstream,
)

pytestmark = pytest.mark.django_db(transaction=True)


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
    real = credential_building.account_credential

    def slow(account, facts):
        found = real(account, facts)
        accounts.disconnect(alice, upstream, actor=alice)
        return found

    monkeypatch.setattr(credential_building, "account_credential", slow)
    run(credential_for(alice.pk, facts))
    assert cached_credential(alice.pk, facts) is None


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


def test_what_an_upstream_asks_for_is_remembered_within_bounds(server, protected) -> None:
    alice, upstream = person(), upstream_at(protected.url, oauth_scopes="read")
    connect(browser_of(alice), upstream)
    facts = facts_of(upstream)
    old = run(credential_for(alice.pk, facts))
    for number in range(30):
        wanted = " ".join(f"s{number}-{word}" for word in range(9)) + " " + "x" * 150
        with pytest.raises(NeedsConnection):
            run(renew(alice.pk, facts, old, scope=wanted))
    account = account_of(alice, upstream)
    words = account.wanted_scope.split()
    assert words[0] == "s29-0" and len(words) <= 50
    assert len(account.wanted_scope) <= 2_000
    assert len(account.step_ups) <= 20
    for _ in range(3):  # the same round
        with pytest.raises(NeedsConnection):
            run(renew(alice.pk, facts, old, scope=" ".join(f"{'y' * 90}{n}" for n in range(90))))
    assert len(account_of(alice, upstream).wanted_scope) <= 2_000


def test_scopes_that_a_server_never_grants_are_asked_for_twice_and_not_again(
    server, protected
) -> None:
    alice, upstream = person(), upstream_at(protected.url, oauth_scopes="read")
    browser = browser_of(alice)
    connect(browser, upstream)
    facts = facts_of(upstream)
    server.granted_scope = "read"
    for _ in range(2):
        old = run(credential_for(alice.pk, facts))
        for _ in range(3):  # many calls of one round count once
            with pytest.raises(NeedsConnection) as error:
                run(renew(alice.pk, facts, old, scope="write"))
            assert error.value.reason == "scope"
        connect(browser, upstream)
    with pytest.raises(SetupFailed) as refused:
        run(renew(alice.pk, facts, run(credential_for(alice.pk, facts)), scope="write"))
    assert "asked twice" in refused.value.message
    assert accounts.status_for(alice, upstream).state == "connected"
    accounts.disconnect(alice, upstream, actor=alice)
    server.granted_scope = None
    connect(browser, upstream)
    with pytest.raises(NeedsConnection):
        run(renew(alice.pk, facts, run(credential_for(alice.pk, facts)), scope="write"))
