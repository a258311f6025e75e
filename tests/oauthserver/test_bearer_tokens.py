"""The token check of every call: exact, quick when warm, and never wrong for long."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User
from django.db import OperationalError
from django.utils import timezone
from oauth2_provider.models import AccessToken

from oauthserver import actions, bearer_tokens
from oauthserver.bearer_tokens import TokenHolder, TokenRefusal, authenticate, cached, forget
from oauthserver.challenges import bearer_challenge
from oauthserver.models import OAuthClient
from tests.oauthserver.conftest import Session
from tests.oauthserver.flows import BASE, OTHER_RESOURCE, RESOURCE
from tests.patience import PATIENCE

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls("tests.oauthserver.addresses"),
]


def in_thread(function: Any, *args: Any, **kwargs: Any) -> Any:
    return sync_to_async(function, thread_sensitive=False)(*args, **kwargs)


def header(session: Session) -> bytes:
    return b"Bearer " + str(session.tokens["access_token"]).encode()


async def test_a_valid_token_names_its_holder(session_async: Session, alice: User) -> None:
    group = await Group.objects.acreate(name="staff")
    await alice.groups.aadd(group)
    holder = await authenticate([header(session_async)], RESOURCE)
    assert isinstance(holder, TokenHolder)
    assert (holder.user_id, holder.username) == (alice.pk, "alice")
    assert (holder.client_id, holder.client_name) == (session_async.client_id, "Test client")
    assert (holder.scopes, holder.audience) == (frozenset({"mcp:tools"}), RESOURCE)
    assert holder.group_ids == {group.pk}
    assert 3500 < holder.expires_at - time.time() <= 3600
    assert session_async.tokens["access_token"] not in repr(holder)


async def test_the_cache_answers_without_the_database(
    session_async: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cached(header(session_async), RESOURCE) is None
    holder = await authenticate([header(session_async)], RESOURCE)
    monkeypatch.setattr(bearer_tokens, "_load", lambda *a: pytest.fail("asked the database"))
    assert cached(header(session_async), RESOURCE) is holder
    assert cached(header(session_async), OTHER_RESOURCE) is None
    assert cached(b"bearer" + header(session_async)[6:], RESOURCE) is None
    assert cached(header(session_async)[:-1], RESOURCE) is None
    assert cached(b"", RESOURCE) is None


async def test_an_entry_lives_thirty_seconds_at_most(
    session_async: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await authenticate([header(session_async)], RESOURCE)
    now = time.monotonic()
    monkeypatch.setattr(bearer_tokens.time, "monotonic", lambda: now + 29)
    assert cached(header(session_async), RESOURCE) is not None
    monkeypatch.setattr(bearer_tokens.time, "monotonic", lambda: now + 31)
    assert cached(header(session_async), RESOURCE) is None


async def test_an_entry_never_outlives_its_token(
    session_async: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await AccessToken.objects.aupdate(expires=timezone.now() + timedelta(seconds=5))
    await authenticate([header(session_async)], RESOURCE)
    now = time.monotonic()
    monkeypatch.setattr(bearer_tokens.time, "monotonic", lambda: now + 6)
    assert cached(header(session_async), RESOURCE) is None


async def test_a_token_is_good_for_its_own_resource_only(session_async: Session) -> None:
    for audience in (
        OTHER_RESOURCE,
        RESOURCE + "s",
        RESOURCE[:-1],
        RESOURCE.upper(),
        RESOURCE + "//",
        RESOURCE + "/x",
        BASE,
        f"{BASE}/v1/mcp/",
        "",
    ):
        refused = await authenticate([header(session_async)], audience)
        assert isinstance(refused, TokenRefusal), audience
        assert refused.error == "invalid_token"
    slashed = await authenticate([header(session_async)], RESOURCE + "/")
    assert isinstance(slashed, TokenHolder)


async def test_a_token_without_exactly_one_resource_opens_nothing(
    session_async: Session,
) -> None:
    for resource in ([], [RESOURCE, OTHER_RESOURCE], [RESOURCE, RESOURCE], [BASE]):
        await AccessToken.objects.aupdate(resource=resource)
        assert isinstance(await authenticate([header(session_async)], RESOURCE), TokenRefusal)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([], ""),
        ([b""], "invalid_token"),
        ([b"Bearer"], "invalid_token"),
        ([b"Bearer "], "invalid_token"),
        ([b"Bearer a b"], "invalid_token"),
        ([b"Basic YTpi"], "invalid_token"),
        ([b"GOOD, Bearer x"], "invalid_token"),
        ([b"GOOD,GOOD"], "invalid_token"),
        ([b"GOOD", b"GOOD"], "invalid_request"),
        ([b"GOOD", b"Basic YTpi"], "invalid_request"),
        ([b"GOOD" + b"a" * 16_000], "invalid_token"),
        ([b"GOOD\xff"], "invalid_token"),
        ([b"GOOD\n"], "invalid_token"),
        ([b"Bearer\tx"], "invalid_token"),
        ([b"Bearer mcpgw_at_" + b"A" * 43], "invalid_token"),
        ([b"Bearer \xc3\xbc"], "invalid_token"),
    ],
)
async def test_anything_but_one_good_header_is_refused(
    session_async: Session, values: list[bytes], error: str
) -> None:
    sent = [value.replace(b"GOOD", header(session_async)) for value in values]
    refused = await authenticate(sent, RESOURCE)
    assert isinstance(refused, TokenRefusal)
    assert refused.error == error
    assert bool(refused.description) == bool(error)


async def test_the_scheme_may_be_written_in_any_case(session_async: Session) -> None:
    for scheme in (b"bearer", b"BEARER", b"Bearer "):
        value = scheme + header(session_async)[6:]
        assert isinstance(await authenticate([value], RESOURCE), TokenHolder)


@pytest.mark.parametrize("kind", ["refresh_token", "code"])
async def test_other_credentials_are_no_access_token(session_async: Session, kind: str) -> None:
    other = session_async.code if kind == "code" else session_async.tokens[kind]
    refused = await authenticate([b"Bearer " + other.encode()], RESOURCE)
    assert refused == TokenRefusal("invalid_token", bearer_tokens._INVALID)


async def test_an_expired_token_is_refused(session_async: Session) -> None:
    await AccessToken.objects.aupdate(expires=timezone.now() - timedelta(seconds=1))
    assert isinstance(await authenticate([header(session_async)], RESOURCE), TokenRefusal)


async def test_a_closed_account_or_client_is_refused(session_async: Session) -> None:
    await User.objects.aupdate(is_active=False)
    assert isinstance(await authenticate([header(session_async)], RESOURCE), TokenRefusal)
    await User.objects.aupdate(is_active=True)
    await OAuthClient.objects.aupdate(enabled=False)
    assert isinstance(await authenticate([header(session_async)], RESOURCE), TokenRefusal)


@pytest.mark.parametrize("way", ["person", "client", "switch_off", "delete"])
async def test_ending_tokens_is_felt_at_once(session_async: Session, alice: User, way: str) -> None:
    await authenticate([header(session_async)], RESOURCE)
    assert cached(header(session_async), RESOURCE) is not None
    client = await OAuthClient.objects.aget(client_id=session_async.client_id)
    if way == "person":
        await in_thread(actions.revoke_client_for_user, alice, client, actor=alice)
    elif way == "client":
        await in_thread(actions.revoke_tokens, actor=None, client=client)
    elif way == "switch_off":
        await in_thread(actions.set_client_enabled, client, False, actor=None)
    else:
        await in_thread(actions.delete_client, client, actor=None)
    assert cached(header(session_async), RESOURCE) is None
    assert isinstance(await authenticate([header(session_async)], RESOURCE), TokenRefusal)


async def test_an_answer_older_than_a_revocation_is_not_kept(
    session_async: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = bearer_tokens._load

    def revoked_meanwhile(*args: Any) -> Any:
        found = load(*args)
        forget()
        return found

    monkeypatch.setattr(bearer_tokens, "_load", revoked_meanwhile)
    assert isinstance(await authenticate([header(session_async)], RESOURCE), TokenHolder)
    assert cached(header(session_async), RESOURCE) is None


async def test_forgetting_can_be_for_one_person_client_or_token(
    session_async: Session, alice: User
) -> None:
    holder = await authenticate([header(session_async)], RESOURCE)
    assert isinstance(holder, TokenHolder)
    for other in ({"user_id": alice.pk + 1}, {"client_id": "x"}, {"token_digest": "x"}):
        forget(**other)  # type: ignore[arg-type]
        assert cached(header(session_async), RESOURCE) is holder
    for own in (
        {"user_id": alice.pk},
        {"client_id": holder.client_id},
        {"token_digest": holder.token_digest},
        {},
    ):
        await authenticate([header(session_async)], RESOURCE)
        forget(**own)  # type: ignore[arg-type]
        assert cached(header(session_async), RESOURCE) is None


async def test_the_cache_is_bounded_and_keeps_what_is_used(
    session_async: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bearer_tokens, "MAX_ENTRIES", 2)
    holder = await authenticate([header(session_async)], RESOURCE)
    assert isinstance(holder, TokenHolder)
    bearer_tokens._remember(b"a", holder, bearer_tokens._generation)
    await authenticate([header(session_async)], RESOURCE)
    bearer_tokens._remember(b"b", holder, bearer_tokens._generation)
    assert cached(header(session_async), RESOURCE) is not None
    assert cached(b"Bearer a", RESOURCE) is None
    assert len(bearer_tokens._entries) == 2


async def test_a_database_that_is_down_is_an_error_and_no_refusal(
    session_async: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(bearer_tokens, "_load", down)
    with pytest.raises(OperationalError):
        await authenticate([header(session_async)], RESOURCE)


async def test_use_is_written_down_beside_the_answer(session_async: Session) -> None:
    await OAuthClient.objects.aupdate(last_used_at=None)
    bearer_tokens._noted.clear()
    await authenticate([header(session_async)], RESOURCE)
    for task in list(bearer_tokens._notes):
        await asyncio.wait_for(task, PATIENCE)
    client = await OAuthClient.objects.aget(client_id=session_async.client_id)
    assert client.last_used_at is not None
    await authenticate([header(session_async)], RESOURCE)
    assert not bearer_tokens._notes


def test_a_challenge_names_the_metadata_and_the_scope() -> None:
    assert bearer_challenge("https://gw/.well-known/x") == (
        'Bearer resource_metadata="https://gw/.well-known/x", scope="mcp:tools"'
    )
    assert bearer_challenge("https://gw/x", "a b", "invalid_token", "It expired.") == (
        'Bearer resource_metadata="https://gw/x", scope="a b", error="invalid_token", '
        'error_description="It expired."'
    )
    odd = bearer_challenge("https://gw/x", description='a"b\\c\r\nSet-Cookie: x\u00fc')
    assert "\r" not in odd
    assert "\n" not in odd
    assert odd.isascii()
    assert odd.count('"') == 6
