"""Renew an account's tokens exactly once, however many calls and nodes want it (e14, R35 to R37).

A refresh token that rotates may be used once. Whoever renews takes a lease on the row
first; the others wait for the row to change. The new tokens are in the database before
anybody uses them, and are written only if the row is still the one that was read.

    read row ── changed meanwhile? ─▶ use it
       └─ take lease (one UPDATE) ── lost? ─▶ wait, read again
              └─ ask the server ─▶ write if version unchanged ─▶ use
"""

import asyncio
import logging
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.db import DatabaseError, models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from upstreams import oauth_tokens, sealed_secrets, token_vault
from upstreams.database_calls import in_thread
from upstreams.egress_guard import upstream_rules
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import Upstream, UpstreamAccount, UpstreamClient
from upstreams.oauth_registration import forget_registration
from upstreams.oauth_tokens import DEAD_GRANT, UNKNOWN_CLIENT, TokenEndpoint, TokenRefused
from upstreams.sealed_secrets import StoredTokens
from upstreams.server_metadata import ServerMetadata
from upstreams.signals import audit, changed
from upstreams.token_replies import TokenReply

logger = logging.getLogger(__name__)

LEASE: Final = timedelta(seconds=10)
WAIT_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.05
LONGEST_BACK_OFF: Final = 60.0
WRITE_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class _Leased:
    """What the holder of the lease works with."""

    account: UpstreamAccount
    upstream: Upstream
    tokens: StoredTokens
    endpoint: TokenEndpoint


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


async def _renewed(account_id: int, seen_version: int) -> UpstreamAccount:
    owner = secrets.token_hex(16)
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        account = await in_thread(_current, account_id)
        if account.version != seen_version:
            return account
        _raise_if_resting(account)
        if await in_thread(_take_lease, account_id, seen_version, owner):
            return await _renew_as_holder(account_id, seen_version, owner)
        if asyncio.get_running_loop().time() > deadline:
            raise SetupFailed(
                oauth_tokens.STEP,
                f"{account.upstream.title} could not renew your sign-in in time. Try again.",
                detail="waited for another node's refresh",
                retryable=True,
            )
        await asyncio.sleep(POLL_SECONDS)


def _current(account_id: int) -> UpstreamAccount:
    account = (
        UpstreamAccount.objects.select_related("upstream", "client").filter(pk=account_id).first()
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
        raise needs_reconnect(account.upstream)
    return account


def needs_reconnect(upstream: Upstream) -> NeedsConnection:
    """Return the error for a grant that no longer works."""
    return NeedsConnection(
        f"Your connection to {upstream.title} has ended. Connect it again.",
        upstream_id=upstream.pk,
        upstream_key=upstream.key,
        title=upstream.title,
        reason="reconnect",
    )


def _raise_if_resting(account: UpstreamAccount) -> None:
    """After a failure that passes, answer at once instead of asking the server again."""
    resting = account.refresh_not_before
    if resting is not None and resting > timezone.now():
        raise SetupFailed(
            oauth_tokens.STEP,
            f"{account.upstream.title} is temporarily unable to renew your sign-in. Try again in "
            "a minute.",
            detail=account.last_error or "backing off",
            retryable=True,
        )


def _take_lease(account_id: int, version: int, owner: str) -> bool:
    """Take the lease unless somebody holds it; times are the database's own (R38)."""
    free = Q(refresh_lease_until__isnull=True) | Q(refresh_lease_until__lt=Now())
    until = models.ExpressionWrapper(Now() + LEASE, output_field=models.DateTimeField())
    return (
        UpstreamAccount.objects.filter(
            free, pk=account_id, version=version, status=UpstreamAccount.Status.CONNECTED
        ).update(refresh_lease_owner=owner, refresh_lease_until=until)
        == 1
    )


def _prepare(account_id: int, version: int, owner: str) -> _Leased | UpstreamAccount:
    """Read everything again under the lease; an account that changed meanwhile is the answer."""
    account = _current(account_id)
    upstream = account.upstream
    if account.version != version or account.refresh_lease_owner != owner:
        return account
    try:
        tokens = sealed_secrets.open_tokens(account, upstream.url)
        client = sealed_secrets.credential_of(account.client) if account.client else None
    except token_vault.VaultError as error:
        _rest(account, str(error))
        raise needs_reconnect(upstream) from error
    if client is None or account.client is None or not tokens.refresh_token:
        if account.expires_at is not None and account.expires_at > timezone.now():
            _unchanged(account).update(refresh_lease_until=None, refresh_lease_owner="")
            return account  # it cannot be renewed, but still serves until it ends
        _end(account, "there is no refresh token")
        raise needs_reconnect(upstream)
    server = ServerMetadata.from_json(account.client.server_metadata)
    endpoint = TokenEndpoint(server, client, upstream_rules(upstream))
    return _Leased(account, upstream, tokens, endpoint)


async def _renew_as_holder(account_id: int, version: int, owner: str) -> UpstreamAccount:
    prepared = await in_thread(_prepare, account_id, version, owner)
    if isinstance(prepared, UpstreamAccount):
        return prepared
    leased = prepared
    try:
        reply = await oauth_tokens.refresh(
            leased.endpoint,
            refresh_token=leased.tokens.refresh_token,
            resource=leased.account.resource if leased.upstream.oauth_send_resource else "",
        )
    except TokenRefused as error:
        return await in_thread(_after_refusal, leased, error)
    except SetupFailed as error:
        await in_thread(_rest, leased.account, error.detail)
        raise SetupFailed(
            oauth_tokens.STEP,
            f"{leased.upstream.title} is temporarily unable to renew your sign-in. Try again in "
            "a minute.",
            detail=error.detail,
            retryable=True,
        ) from error
    return await _keep(leased, reply)


async def _keep(leased: _Leased, reply: TokenReply) -> UpstreamAccount:
    """Write the new tokens; try hard, because the old refresh token is spent by now."""
    for attempt in range(WRITE_ATTEMPTS):
        try:
            written = await in_thread(_write, leased, reply)
            break
        except DatabaseError:
            if attempt == WRITE_ATTEMPTS - 1:
                raise
            logger.warning("renewed tokens could not be written, trying again", exc_info=True)
            await asyncio.sleep(0.2 * 2**attempt)
    if not written:
        # Disconnected or connected anew while we asked: these tokens belong to nobody.
        await oauth_tokens.revoke(leased.endpoint, reply.access_token, "access_token")
    return await in_thread(_current, leased.account.pk)


def _unchanged(account: UpstreamAccount) -> models.QuerySet[UpstreamAccount]:
    return UpstreamAccount.objects.filter(
        pk=account.pk, version=account.version, grant_id=account.grant_id
    )


def _write(leased: _Leased, reply: TokenReply) -> bool:
    account, now = leased.account, timezone.now()
    tokens = StoredTokens(reply.access_token, reply.refresh_token or leased.tokens.refresh_token)
    values: dict[str, Any] = {
        "sealed_secret": sealed_secrets.seal_tokens(
            tokens,
            user_id=account.user_id,
            upstream_id=account.upstream_id,
            bound_url=account.bound_url,
        ),
        "expires_at": now + timedelta(seconds=reply.expires_in) if reply.expires_in else None,
        "version": F("version") + 1,
        "refreshed_at": now,
        "refresh_lease_until": None,
        "refresh_lease_owner": "",
        "refresh_not_before": None,
        "refresh_failures": 0,
        "last_error": "",
    }
    if reply.scope is not None:
        values["scope"] = " ".join(reply.scope)
    return _unchanged(account).update(**values) == 1


def _rest(account: UpstreamAccount, reason: str) -> None:
    """Keep the tokens, give the lease back, and let nobody try again for a jittered while."""
    longest = min(LONGEST_BACK_OFF, 2.0 ** min(account.refresh_failures, 8))
    pause = longest * (0.5 + secrets.randbelow(500) / 1000)
    _unchanged(account).update(
        refresh_lease_until=None,
        refresh_lease_owner="",
        refresh_not_before=timezone.now() + timedelta(seconds=pause),
        refresh_failures=F("refresh_failures") + 1,
        last_error=reason[:500],
    )


def _after_refusal(leased: _Leased, error: TokenRefused) -> UpstreamAccount:
    """Decide what a refusal means; returns the account if another node renewed it meanwhile.

    Raises:
        NeedsConnection: the grant is dead.
        SetupFailed: our client is refused, or the refusal may pass.
    """
    account = leased.account
    now_stored = _current(account.pk)
    if now_stored.version != account.version or now_stored.grant_id != account.grant_id:
        return now_stored
    if error.error in UNKNOWN_CLIENT:
        return _after_unknown_client(leased, error)
    if error.error in DEAD_GRANT:
        _end(account, f"the authorization server answered {error.error}")
        raise needs_reconnect(leased.upstream) from error
    _rest(account, error.detail)
    raise SetupFailed(
        oauth_tokens.STEP,
        f"{leased.upstream.title} is temporarily unable to renew your sign-in. Try again in a "
        "minute.",
        detail=error.detail,
        retryable=True,
    ) from error


def _after_unknown_client(leased: _Leased, error: TokenRefused) -> UpstreamAccount:
    """Our registration is gone: a dynamic one is made anew, another one is the administrator's."""
    client = leased.account.client
    if client is not None and client.registration == UpstreamClient.Registration.DCR:
        _end(leased.account, "the authorization server no longer knows the gateway")
        forget_registration(client)
        raise needs_reconnect(leased.upstream) from error
    _rest(leased.account, error.detail)
    raise SetupFailed(
        oauth_tokens.STEP,
        f"{leased.upstream.title} does not accept the gateway at present. Tell an administrator.",
        detail=f"{error.detail}: check the client id and secret on the upstream's page",
    ) from error


def _end(account: UpstreamAccount, reason: str) -> None:
    """Mark a grant as dead, if it is still the one that was tried (#148)."""
    ended = _unchanged(account).update(
        status=UpstreamAccount.Status.NEEDS_RECONNECT,
        refresh_lease_until=None,
        refresh_lease_owner="",
        last_error=reason[:500],
    )
    if ended:
        audit.send(
            sender=UpstreamAccount,
            kind="account.needs_reconnect",
            user=account.user,
            target=account.upstream.key,
            details={"reason": reason},
            address="",
        )
        changed.send(
            sender=UpstreamAccount,
            kind="credential",
            key=f"{account.user_id}:{account.upstream_id}",
        )
