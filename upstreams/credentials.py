"""The credential for one person's call to one upstream.

When warm this is a dictionary lookup: no database, no thread, no decryption. What is
cached is dropped when it changes anywhere (``forget_key`` hears the change feed), when
the upstream's configuration is another one, and after a minute in any case.

    cached ─▶ use
      └─ read row, open the vault ── near its end ─▶ use, renew in the background
                └─ ended ─▶ renew (see ``token_refresh``) ── dead ─▶ NeedsConnection
"""

import asyncio
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

from django.utils import timezone

from upstreams import (
    account_endings,
    header_values,
    refresh_outcome,
    sealed_secrets,
    token_refresh,
    token_vault,
)
from upstreams.database_calls import in_thread
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import CredentialKind, CredentialPlacement, Upstream, UpstreamAccount
from upstreams.sealed_secrets import StoredTokens
from upstreams.server_metadata import scope_words
from upstreams.upstream_facts import UpstreamFacts

CACHE_SECONDS: Final = 60.0
CACHE_ENTRIES: Final = 20_000
# Renewing begins this long to twice this long before a token ends, at the latest after two
# thirds of its life.
RENEW_AHEAD: Final = 60.0
# A token is not used any more this shortly before it ends: the request has to arrive too.
LAST_SECONDS: Final = 3.0
# A token refused this soon after it was made will not be mended by another one (#151).
JUST_RENEWED: Final = timedelta(seconds=30)
_SHARED_USER: Final = 0


@dataclass(frozen=True, slots=True)
class Credential:
    """What is added to a request; ``expires_at`` is a Unix time, None where it is not known,
    and ``renew_at`` the one from which on it is renewed.

    ``id`` stays the same for as long as the grant does and is safe to use in cache keys.
    """

    id: str
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    query: bytes = field(default=b"", repr=False)
    expires_at: float | None = None
    renew_at: float = 0.0


NO_CREDENTIAL: Final = Credential(id="none")


@dataclass(frozen=True, slots=True)
class _Cached:
    credential: Credential
    facts: UpstreamFacts
    until: float


_cache: OrderedDict[tuple[int, int], _Cached] = OrderedDict()
_lock = threading.Lock()
_generation = 0
_background: set[asyncio.Task[Any]] = set()


def _cache_key(user_id: int, facts: UpstreamFacts) -> tuple[int, int]:
    personal = facts.credential_kind in (CredentialKind.USER_KEY, CredentialKind.USER_OAUTH)
    return (user_id if personal else _SHARED_USER, facts.id)


def cached_credential(user_id: int, facts: UpstreamFacts) -> Credential | None:
    """Return the credential if it is at hand; None means: ask ``credential_for``."""
    if facts.credential_kind == CredentialKind.NONE:
        return NO_CREDENTIAL
    found = _cache.get(_cache_key(user_id, facts))
    if found is None or found.until < time.time():
        return None
    if found.facts is not facts and found.facts != facts:
        return None
    return found.credential


def forget(user_id: int | None = None, upstream_id: int | None = None) -> None:
    """Drop cached credentials of a person, of an upstream, of both together, or all."""
    global _generation
    with _lock:
        _generation += 1
        for key in [
            key for key in _cache if user_id in (None, key[0]) and upstream_id in (None, key[1])
        ]:
            del _cache[key]


def forget_key(key: str) -> None:
    """Drop what a ``changed`` signal of kind ``credential`` names: ``user:upstream`` or parts."""
    user, _, upstream = key.partition(":")
    forget(int(user) if user.isdigit() else None, int(upstream) if upstream.isdigit() else None)


def _keep(user_id: int, facts: UpstreamFacts, credential: Credential, generation: int) -> None:
    """Cache a credential unless something was forgotten while it was being read."""
    now = time.time()
    until = now + CACHE_SECONDS
    if credential.expires_at is not None:
        if credential.renew_at > now:
            until = min(until, credential.renew_at)
        else:
            until = min(now + 1.0, credential.expires_at - LAST_SECONDS)
    with _lock:
        if generation != _generation or until <= now:
            return
        _cache[_cache_key(user_id, facts)] = _Cached(credential, facts, until)
        while len(_cache) > CACHE_ENTRIES:
            _cache.popitem(last=False)


async def credential_for(user_id: int, facts: UpstreamFacts) -> Credential:
    """Return the credential for a call, renewing it where that is due.

    Raises:
        NeedsConnection: the person has to connect (again).
        SetupFailed: an administrator has to act, or (``transient``) it may work later.
    """
    if facts.credential_kind == CredentialKind.NONE:
        return NO_CREDENTIAL
    generation = _generation
    if facts.credential_kind == CredentialKind.FIXED:
        credential = await in_thread(_fixed_credential, facts)
    else:
        account = await in_thread(_usable_account, user_id, facts)
        account = await _fresh(account)
        credential = await in_thread(_account_credential, account, facts)
    _keep(user_id, facts, credential, generation)
    return credential


async def _fresh(account: UpstreamAccount) -> UpstreamAccount:
    """Return the account with a token that still lives, renewing it in time."""
    if account.expires_at is None:
        return account
    left = (account.expires_at - timezone.now()).total_seconds()
    if left > _renew_ahead(account):
        return account
    if left > LAST_SECONDS:
        _in_background(_renew_quietly(account))
        return account
    try:
        return await token_refresh.renewed(account)
    except NeedsConnection as error:
        raise _named(error, account.upstream) from error


def _renew_ahead(account: UpstreamAccount) -> float:
    """Return how many seconds before its end a token is renewed.

    Differs from account to account by up to half, so that what was connected in one hour
    is not renewed in one second; the same for every node and call.
    """
    if account.expires_at is None:
        return 0.0
    begun = account.refreshed_at or account.connected_at
    spread = zlib.crc32(f"{account.grant_id}:{account.version}".encode()) / 2**32
    ahead = RENEW_AHEAD * (1 + spread)
    return min(ahead, (account.expires_at - begun).total_seconds() * (0.35 + 0.15 * spread))


async def _renew_quietly(account: UpstreamAccount) -> None:
    try:
        await token_refresh.renewed(account)
    except (NeedsConnection, SetupFailed):
        return  # written on the account; the call that finds no token any more says so
    forget(account.user_id, account.upstream_id)


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)


def _named(error: NeedsConnection, upstream: Upstream) -> NeedsConnection:
    """Return the error with the upstream it is about, also if the row is gone."""
    return NeedsConnection(
        error.message,
        upstream_id=upstream.pk,
        upstream_key=upstream.key,
        title=upstream.title,
        reason=error.reason,
    )


def _not_connected(facts: UpstreamFacts) -> NeedsConnection:
    return NeedsConnection(
        f"You have not connected {facts.title} yet.",
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="not_connected",
    )


def _reconnect(facts: UpstreamFacts, because: str = "") -> NeedsConnection:
    return NeedsConnection(
        account_endings.message(because, facts.title),
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="reconnect",
    )


def _usable_account(user_id: int, facts: UpstreamFacts) -> UpstreamAccount:
    """Read the row (blocking)."""
    account = (
        UpstreamAccount.objects.select_related("upstream", "client")
        .filter(user_id=user_id, upstream_id=facts.id)
        .first()
    )
    if account is None:
        raise _not_connected(facts)
    if account.status != UpstreamAccount.Status.CONNECTED:
        raise _reconnect(facts, account.ended_because)
    return account


def _account_credential(account: UpstreamAccount, facts: UpstreamFacts) -> Credential:
    """Open the vault and build the header or query (blocking: decryption, one write)."""
    try:
        tokens = sealed_secrets.open_tokens(account, facts.url)
    except token_vault.VaultError as error:
        raise _reconnect(facts, account_endings.UNREADABLE) from error
    _note_use(account)
    if facts.credential_kind == CredentialKind.USER_OAUTH:
        if account.client_id is None:
            # A pasted key is no OAuth token; the upstream's kind was changed since.
            raise _reconnect(facts)
        headers = ((b"authorization", b"Bearer " + tokens.access_token.encode("ascii")),)
        expires = account.expires_at.timestamp() if account.expires_at else None
        renew_at = expires - _renew_ahead(account) if expires is not None else 0.0
        return Credential(str(account.grant_id), headers, b"", expires, renew_at)
    if account.client_id is not None:
        raise _reconnect(facts)
    return _placed(str(account.grant_id), tokens.access_token, facts)


def _note_use(account: UpstreamAccount) -> None:
    """Remember roughly when an account was last used, for its owner's page."""
    now = timezone.now()
    if account.last_used_at is None or now - account.last_used_at > timedelta(minutes=10):
        UpstreamAccount.objects.filter(pk=account.pk).update(last_used_at=now)


def _fixed_credential(facts: UpstreamFacts) -> Credential:
    """Open the shared credential (blocking)."""
    upstream = Upstream.objects.filter(pk=facts.id).first()
    if upstream is None or not upstream.sealed_fixed_credential:
        raise SetupFailed(
            "authorization",
            f"{facts.title} is not ready: an administrator has to enter its credential.",
        )
    try:
        value = sealed_secrets.open_fixed(upstream)
    except token_vault.VaultError as error:
        raise SetupFailed(
            "authorization",
            f"{facts.title} is not ready: an administrator has to enter its credential again.",
            detail=f"{error} (its address may have been changed)",
        ) from error
    return _placed(f"fixed:{facts.id}", value, facts)


def _placed(name: str, value: str, facts: UpstreamFacts) -> Credential:
    """Put a value where the upstream wants it, refusing whatever could inject."""
    secret = header_values.checked_value(value)
    if facts.credential_placement == CredentialPlacement.QUERY:
        parameter = header_values.checked_query_name(facts.credential_name)
        return Credential(name, (), f"{parameter}={quote(secret, safe='')}".encode("ascii"))
    header = header_values.checked_header_name(facts.credential_name)
    prefix = header_values.checked_prefix(facts.credential_prefix)
    pair = (header.lower().encode("ascii"), f"{prefix}{secret}".encode("ascii"))
    return Credential(name, (pair,))


async def renew(
    user_id: int, facts: UpstreamFacts, refused: Credential, *, scope: str = ""
) -> Credential:
    """Return another credential after the upstream refused one (401, or 403 with a scope).

    Returns what is stored now if it is not the refused one; else renews it once.

    Raises:
        NeedsConnection: the person has to connect again; reason ``scope`` where the upstream
            asks for more than was granted.
        SetupFailed: a credential that is not the person's was refused, or (``transient``) it
            cannot be renewed now.
    """
    forget(None if facts.credential_kind == CredentialKind.FIXED else user_id, facts.id)
    if facts.credential_kind == CredentialKind.NONE:
        raise SetupFailed(
            "authorization",
            f"{facts.title} asks for a sign-in that is not set up. Tell an administrator.",
            detail="answered 401 although configured without credential",
        )
    if scope and facts.credential_kind == CredentialKind.USER_OAUTH:
        await in_thread(_want_scope, user_id, facts, scope)
    current = await credential_for(user_id, facts)
    if (current.headers, current.query) != (refused.headers, refused.query):
        return current
    if facts.credential_kind == CredentialKind.FIXED:
        raise SetupFailed(
            "authorization",
            f"{facts.title} refused the shared credential. Tell an administrator.",
            detail="answered 401; enter a valid credential on the upstream's page",
        )
    if facts.credential_kind == CredentialKind.USER_KEY:
        raise await in_thread(_key_refused, user_id, facts)
    return await _renew_refused(user_id, facts, refused)


def _key_refused(user_id: int, facts: UpstreamFacts) -> NeedsConnection:
    """Mark a person's key as refused, so that their page says so too (blocking)."""
    account = _usable_account(user_id, facts)
    refresh_outcome.end(account, account_endings.KEY_REFUSED, "the upstream refused the key")
    return _reconnect(facts, account_endings.KEY_REFUSED)


async def _renew_refused(user_id: int, facts: UpstreamFacts, refused: Credential) -> Credential:
    generation = _generation
    account = await in_thread(_usable_account, user_id, facts)
    present = await in_thread(_account_credential, account, facts)
    if present.headers != refused.headers:
        # Renewed for another call between the caller's reading and this one.
        _keep(user_id, facts, present, generation)
        return present
    renewed_at = account.refreshed_at
    if renewed_at is not None and timezone.now() - renewed_at < JUST_RENEWED:
        raise _reconnect(facts, account_endings.TOKEN_REFUSED)
    if not await in_thread(_has_refresh_token, account, facts):
        # Kept as it is: the upstream may have refused by mistake.
        raise _reconnect(facts, account_endings.NOT_RENEWABLE)
    generation = _generation
    try:
        account = await token_refresh.renewed(account)
    except NeedsConnection as error:
        raise _named(error, account.upstream) from error
    credential = await in_thread(_account_credential, account, facts)
    _keep(user_id, facts, credential, generation)
    return credential


def _has_refresh_token(account: UpstreamAccount, facts: UpstreamFacts) -> bool:
    try:
        tokens: StoredTokens = sealed_secrets.open_tokens(account, facts.url)
    except token_vault.VaultError:
        return False
    return bool(tokens.refresh_token)


def _want_scope(user_id: int, facts: UpstreamFacts, scope: str) -> None:
    """Remember what the upstream asks for, for the next connect, and say so.

    Raises:
        NeedsConnection: reason ``scope``.
        SetupFailed: all of it was granted already; connecting again would only go in circles.
    """
    account = _usable_account(user_id, facts)
    granted, wanted = set(scope_words(account.scope)), set(scope_words(scope))
    if wanted and wanted <= granted:
        raise SetupFailed(
            "authorization",
            f"{facts.title} refuses this although you granted what it asks for.",
            detail=f"answered insufficient_scope for {scope[:200]!r}, all of it granted",
        )
    words = dict.fromkeys((*scope_words(account.wanted_scope), *scope_words(scope)))
    UpstreamAccount.objects.filter(pk=account.pk).update(wanted_scope=" ".join(words))
    raise NeedsConnection(
        f"{facts.title} asks for further permissions. Connect it again to grant them.",
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="scope",
    )


def hear_change(sender: Any, kind: str = "", key: str = "", **kwargs: Any) -> None:
    """Receiver of this room's ``changed`` signal in the process that made the change."""
    if kind == "credential":
        forget_key(key)
    elif kind == "configuration":
        forget()
