"""Renew an account's tokens exactly once, however many calls and nodes want it (e14, R35 to R37).

A refresh token that rotates may be used once. Whoever renews takes a lease on the row
first; the others wait for the row to change. The answer is in the journal the moment it
arrives and in the database before anybody uses it, and is written only if the row is
still the one that was read.

    read row ── changed meanwhile? ─▶ use it
       └─ take lease (one UPDATE) ── lost? ─▶ wait, read again
              └─ journal of a crash? ─▶ write that
              └─ ask the server ─▶ journal ─▶ write if version unchanged ─▶ use
                    └─ a failure that passes ─▶ pause, try again while the call can wait
"""

import asyncio
import contextlib
import logging
import secrets
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from django.db import DatabaseError
from django.utils import timezone

from upstreams import (
    account_endings,
    oauth_tokens,
    oauth_trace,
    refresh_journal,
    refresh_lease,
    refresh_outcome,
    sealed_secrets,
    token_vault,
)
from upstreams.database_calls import in_thread
from upstreams.egress_guard import upstream_rules
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import Upstream, UpstreamAccount, UpstreamClient
from upstreams.oauth_registration import forget_registration
from upstreams.oauth_tokens import DEAD_GRANT, UNKNOWN_CLIENT, TokenEndpoint, TokenRefused
from upstreams.refresh_outcome import needs_reconnect
from upstreams.sealed_secrets import StoredTokens
from upstreams.server_metadata import ServerMetadata
from upstreams.token_replies import TokenReply

logger = logging.getLogger(__name__)

# A call makes no new attempt later than this after it began to wait for one.
PATIENCE_SECONDS: Final = 10.0
# A call waits this long for an attempt of somebody else: a slow server, and a holder that died.
WAIT_SECONDS: Final = 40.0
POLL_SECONDS: Final = 0.05
# How long a database that is away is waited for with an answer in hand.
WRITE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Leased:
    """What the holder of the lease works with; ``interrupted``: a holder before it died."""

    account: UpstreamAccount
    upstream: Upstream
    tokens: StoredTokens
    endpoint: TokenEndpoint
    interrupted: bool


_running: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[int, int], asyncio.Task[UpstreamAccount]]
] = WeakKeyDictionary()


async def renewed(account: UpstreamAccount) -> UpstreamAccount:
    """Return the account with tokens newer than those of ``account``, renewing them if needed.

    Calls of one process share one attempt; a caller that goes away does not stop it,
    because a rotated token that is not written down is lost.

    Raises:
        NeedsConnection: the grant is dead; the person has to connect again.
        SetupFailed: the server cannot be asked now (``transient``), or refuses our client.
    """
    tasks = _running.setdefault(asyncio.get_running_loop(), {})
    key = (account.pk, account.version)
    task = tasks.get(key)
    if task is None:
        task = asyncio.create_task(_renewed(account.pk, account.version))
        tasks[key] = task
        task.add_done_callback(lambda _: tasks.pop(key, None))
        # Everybody who waited may have gone; then nobody reads the failure.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def finish_running(seconds: float) -> None:
    """Wait, within a bound, until what this loop is renewing is written; for the shutdown."""
    tasks = list(_running.get(asyncio.get_running_loop(), {}).values())
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


async def _renewed(account_id: int, seen_version: int) -> UpstreamAccount:
    owner = secrets.token_hex(16)
    clock = asyncio.get_running_loop().time
    begun = clock()
    while True:
        account = await in_thread(_current, account_id)
        if account.version != seen_version:
            return account
        rest = _seconds_of_rest(account)
        if rest > 0:
            if clock() + rest > begun + PATIENCE_SECONDS:
                raise _not_now(account.upstream, account.last_error or "backing off")
            await asyncio.sleep(min(rest, 0.25))
            continue
        if await in_thread(refresh_lease.take, account_id, seen_version, owner):
            interrupted = bool(account.refresh_lease_owner)
            found = await _as_holder(account_id, seen_version, owner, interrupted)
            if found is not None:
                return found
            continue
        if clock() > begun + WAIT_SECONDS:
            raise _not_now(account.upstream, "waited for another node's refresh")
        await asyncio.sleep(POLL_SECONDS)


def _not_now(upstream: Upstream, detail: str) -> SetupFailed:
    return SetupFailed(
        oauth_tokens.STEP,
        f"{upstream.title} is temporarily unable to renew your sign-in. Try again in a minute.",
        detail=detail,
        retryable=True,
    )


def _current(account_id: int) -> UpstreamAccount:
    account = (
        UpstreamAccount.objects.select_related("upstream", "client", "user")
        .filter(pk=account_id)
        .first()
    )
    if account is None:
        raise NeedsConnection(
            "This account was disconnected. Connect it again.",
            upstream_id=0,
            upstream_key="",
            title="",
            reason="not_connected",
        )
    if account.status != UpstreamAccount.Status.CONNECTED:
        raise needs_reconnect(account.upstream, account.ended_because)
    return account


def _seconds_of_rest(account: UpstreamAccount) -> float:
    """Return how long after a failure that passes nobody asks the server again."""
    resting = account.refresh_not_before
    return (resting - timezone.now()).total_seconds() if resting is not None else 0.0


def _prepare(
    account_id: int, version: int, owner: str, interrupted: bool
) -> _Leased | UpstreamAccount:
    """Read everything again under the lease; an account that changed meanwhile is the answer."""
    account = _current(account_id)
    upstream = account.upstream
    if account.version != version or account.refresh_lease_owner != owner:
        return account
    try:
        tokens = sealed_secrets.open_tokens(account, upstream.url)
        client = sealed_secrets.credential_of(account.client) if account.client else None
    except token_vault.VaultError as error:
        refresh_outcome.pause(account, str(error))
        raise needs_reconnect(upstream, account_endings.UNREADABLE) from error
    answered = refresh_journal.read(account)
    if answered is not None:
        logger.warning("writing a renewed sign-in at %s that a crash had left", upstream.key)
        refresh_outcome.keep(account, tokens, answered)
        return _current(account_id)
    if client is None or account.client is None or not tokens.refresh_token:
        if account.expires_at is not None and account.expires_at > timezone.now():
            refresh_lease.give_back(account)
            return account  # it cannot be renewed, but still serves until it ends
        refresh_outcome.end(account, account_endings.NOT_RENEWABLE, "there is no refresh token")
        raise needs_reconnect(upstream, account_endings.NOT_RENEWABLE)
    server = ServerMetadata.from_json(account.client.server_metadata)
    endpoint = TokenEndpoint(server, client, upstream_rules(upstream))
    return _Leased(account, upstream, tokens, endpoint, interrupted)


@contextlib.asynccontextmanager
async def _held(account_id: int, owner: str) -> AsyncIterator[None]:
    """Extend the lease for as long as the block runs."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(refresh_lease.HEARTBEAT_SECONDS)
            try:
                await in_thread(refresh_lease.extend, account_id, owner)
            except DatabaseError:
                logger.warning("a lease could not be extended", exc_info=True)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


async def _as_holder(
    account_id: int, version: int, owner: str, interrupted: bool
) -> UpstreamAccount | None:
    """Renew under the lease; returns None after a failure that passes."""
    prepared = await in_thread(_prepare, account_id, version, owner, interrupted)
    if isinstance(prepared, UpstreamAccount):
        return prepared
    leased = prepared
    async with _held(account_id, owner):
        try:
            async with oauth_trace.recording(
                oauth_trace.Purpose.REFRESH,
                leased.upstream.pk,
                leased.account.user_id,
                in_background=True,
            ):
                reply = await oauth_tokens.refresh(
                    leased.endpoint,
                    refresh_token=leased.tokens.refresh_token,
                    resource=leased.account.resource if leased.upstream.oauth_send_resource else "",
                )
                # Before anything is awaited: from here on a crash loses nothing.
                refresh_journal.write(leased.account, reply)
        except TokenRefused as error:
            return await in_thread(_after_refusal, leased, error)
        except SetupFailed as error:
            await in_thread(refresh_outcome.pause, leased.account, error.detail, error.retry_after)
            return None
        return await _keep(leased, reply)


async def _keep(leased: _Leased, reply: TokenReply) -> UpstreamAccount:
    """Write the new tokens; try hard, because the old refresh token is spent by now."""
    pause, deadline = 0.1, asyncio.get_running_loop().time() + WRITE_SECONDS
    while True:
        try:
            written = await in_thread(refresh_outcome.keep, leased.account, leased.tokens, reply)
            break
        except DatabaseError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise _not_now(leased.upstream, "the database is away") from error
            logger.warning("renewed tokens could not be written, trying again", exc_info=True)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
    if not written:
        await _revoke_if_nobodys(leased, reply)
    return await in_thread(_current, leased.account.pk)


async def _revoke_if_nobodys(leased: _Leased, reply: TokenReply) -> None:
    """Revoke tokens that were not written, unless the row holds this grant's next version.

    Then it may hold exactly these: written from the journal by another process, or by an
    attempt of ours whose commit succeeded although its connection broke.
    """
    account = leased.account
    found = await in_thread(_grant_now, account.pk)
    if found == account.grant_id:
        return
    if found is None and reply.refresh_token:
        # Disconnected while we asked. With a refresh token goes its whole grant (RFC 7009 2.1).
        await oauth_tokens.revoke(leased.endpoint, reply.refresh_token, "refresh_token")
        return
    # Connected anew: a server may end the new grant with a refresh token of the old one.
    await oauth_tokens.revoke(leased.endpoint, reply.access_token, "access_token")


def _grant_now(account_id: int) -> uuid.UUID | None:
    return UpstreamAccount.objects.filter(pk=account_id).values_list("grant_id", flat=True).first()


def _after_refusal(leased: _Leased, error: TokenRefused) -> UpstreamAccount | None:
    """Decide what a refusal means; returns the account if another node renewed it meanwhile.

    Returns None where the refusal may pass.

    Raises:
        NeedsConnection: the grant is dead.
        SetupFailed: our client is refused.
    """
    account = leased.account
    now_stored = _current(account.pk)
    if now_stored.version != account.version or now_stored.grant_id != account.grant_id:
        return now_stored
    if error.error in UNKNOWN_CLIENT:
        raise _unknown_client(leased, error) from error
    if error.error in DEAD_GRANT:
        code = account_endings.INTERRUPTED if leased.interrupted else account_endings.REFUSED
        refresh_outcome.end(account, code, f"the authorization server answered {error.error}")
        raise needs_reconnect(leased.upstream, code) from error
    refresh_outcome.pause(account, error.detail)
    return None


def _unknown_client(leased: _Leased, error: TokenRefused) -> NeedsConnection | SetupFailed:
    """Our registration is gone: a dynamic one is made anew, another one is the administrator's."""
    client = leased.account.client
    if client is not None and client.registration == UpstreamClient.Registration.DCR:
        code = account_endings.UNKNOWN_CLIENT
        refresh_outcome.end(
            leased.account, code, "the authorization server no longer knows the gateway"
        )
        forget_registration(client)
        return needs_reconnect(leased.upstream, code)
    refresh_outcome.pause(leased.account, error.detail)
    return SetupFailed(
        oauth_tokens.STEP,
        f"{leased.upstream.title} does not accept the gateway at present. Tell an administrator.",
        detail=f"{error.detail}: check the client id and secret on the upstream's page",
    )


def settle_journal() -> int:
    """Write what a crash left in the journal; returns how many sign-ins that saved (blocking)."""
    saved = 0
    for account in refresh_journal.left_behind():
        answered = refresh_journal.read(account)
        try:
            old = sealed_secrets.open_tokens(account, account.bound_url)
        except token_vault.VaultError:
            continue
        if answered is not None and refresh_outcome.keep(account, old, answered):
            saved += 1
            logger.warning("saved a renewed sign-in at %s that a crash had left", account.upstream)
    return saved
