"""What an attempt to renew leaves on the account's row: new tokens, a pause, or the end.

Every write is conditional: it changes the row only if it is still the one that the attempt
began with (security.md #148). All of it is blocking.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from upstreams import account_endings, refresh_journal, sealed_secrets
from upstreams.errors import NeedsConnection
from upstreams.models import Upstream, UpstreamAccount
from upstreams.refresh_lease import unchanged
from upstreams.sealed_secrets import StoredTokens
from upstreams.signals import audit, changed, credential_key
from upstreams.token_replies import TokenReply

LONGEST_BACK_OFF: Final = 60.0


@contextmanager
def _on_disk() -> Iterator[None]:
    """Have SQLite wait for the disk at this commit, which it does not by default here.

    A call record lost with the power is a pity; a spent refresh token is somebody's account.
    """
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous=NORMAL")


def keep(account: UpstreamAccount, old: StoredTokens, reply: TokenReply) -> bool:
    """Write renewed tokens; returns whether the row was still the one that was read.

    A grant that another attempt took for dead meanwhile lives: the server renewed it.
    """
    now = timezone.now()
    tokens = StoredTokens(reply.access_token, reply.refresh_token or old.refresh_token)
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
    connected = UpstreamAccount.Status.CONNECTED
    with _on_disk(), transaction.atomic():
        revived = unchanged(account).exclude(status=connected)
        was_dead = revived.update(status=connected, ended_because="") == 1
        written = unchanged(account).update(**values) == 1
        if was_dead:
            _tell_change(account)
    refresh_journal.discard(account)
    return written


def pause(account: UpstreamAccount, reason: str, retry_after: float | None = None) -> None:
    """Keep the tokens, give the lease back, and let nobody try again for a jittered while."""
    longest = min(LONGEST_BACK_OFF, 2.0 ** min(account.refresh_failures, 8))
    seconds = max(longest * (0.5 + secrets.randbelow(500) / 1000), retry_after or 0.0)
    unchanged(account).update(
        refresh_lease_until=None,
        refresh_lease_owner="",
        refresh_not_before=timezone.now() + timedelta(seconds=seconds),
        refresh_failures=F("refresh_failures") + 1,
        last_error=reason[:500],
    )


def end(account: UpstreamAccount, code: str, reason: str) -> None:
    """Mark a grant as dead, if it is still the one that was tried (#148).

    ``code`` is one of ``account_endings``, ``reason`` is for administrators.
    """
    with transaction.atomic():
        ended = unchanged(account).update(
            status=UpstreamAccount.Status.NEEDS_RECONNECT,
            ended_because=code,
            refresh_lease_until=None,
            refresh_lease_owner="",
            last_error=reason[:500],
        )
        if ended:
            _tell(account, code, reason)


def _tell(account: UpstreamAccount, code: str, reason: str) -> None:
    audit.send(
        sender=UpstreamAccount,
        kind="account.needs_reconnect",
        user=account.user,
        target=account.upstream.key,
        details={"because": code, "reason": reason},
        address="",
    )
    _tell_change(account)


def _tell_change(account: UpstreamAccount) -> None:
    changed.send(
        sender=UpstreamAccount,
        kind="credential",
        key=credential_key(account.user_id, account.upstream_id),
    )


def needs_reconnect(upstream: Upstream, code: str) -> NeedsConnection:
    """Return the error for a grant that no longer works."""
    return NeedsConnection(
        account_endings.message(code, upstream.title),
        upstream_id=upstream.pk,
        upstream_key=upstream.key,
        title=upstream.title,
        reason="reconnect",
    )
