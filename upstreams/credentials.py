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
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.utils import timezone

from upstreams import account_endings, credential_building, enterprise_grants, token_refresh
from upstreams.credential_building import NO_CREDENTIAL, Credential
from upstreams.database_calls import in_thread
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import CredentialKind, UpstreamAccount
from upstreams.upstream_facts import UpstreamFacts

__all__ = ["NO_CREDENTIAL", "Credential", "cached_credential", "credential_for", "renew"]

CACHE_SECONDS: Final = 60.0
CACHE_ENTRIES: Final = 20_000
# A token is not used any more this shortly before it ends: the request has to arrive too.
LAST_SECONDS: Final = 3.0
# A token refused this soon after it was made will not be mended by another one (#151).
JUST_RENEWED: Final = timedelta(seconds=30)
_SHARED_USER: Final = 0
_PERSONAL: Final = frozenset(
    {CredentialKind.USER_KEY, CredentialKind.USER_OAUTH, CredentialKind.ENTERPRISE}
)


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
    return (user_id if facts.credential_kind in _PERSONAL else _SHARED_USER, facts.id)


def cached_credential(user_id: int, facts: UpstreamFacts) -> Credential | None:
    """Return the credential if it is at hand; None means: ask ``credential_for``."""
    if facts.credential_kind == CredentialKind.NONE and not facts.further_header_names:
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
    if facts.credential_kind == CredentialKind.NONE and not facts.further_header_names:
        return NO_CREDENTIAL
    generation = _generation
    if facts.credential_kind == CredentialKind.NONE:
        credential = await in_thread(credential_building.open_credential, facts)
    elif facts.credential_kind == CredentialKind.FIXED:
        credential = await in_thread(credential_building.fixed_credential, facts)
    else:
        try:
            account = await _fresh(await _account(user_id, facts), facts)
            credential = await in_thread(credential_building.account_credential, account, facts)
        except NeedsConnection as error:
            raise credential_building.for_person(error, facts) from error
    _keep(user_id, facts, credential, generation)
    return credential


async def _account(user_id: int, facts: UpstreamFacts) -> UpstreamAccount:
    if facts.credential_kind == CredentialKind.ENTERPRISE:
        return await enterprise_grants.account_for(user_id, facts.id)
    return await in_thread(credential_building.usable_account, user_id, facts)


async def _fresh(account: UpstreamAccount, facts: UpstreamFacts) -> UpstreamAccount:
    """Return the account with a token that still lives, renewing it in time."""
    if account.expires_at is None:
        return account
    left = (account.expires_at - timezone.now()).total_seconds()
    if left > credential_building.renew_ahead(account):
        return account
    if left > LAST_SECONDS:
        _in_background(_renew_quietly(account, facts))
        return account
    return await _renewed(account, facts)


async def _renewed(account: UpstreamAccount, facts: UpstreamFacts) -> UpstreamAccount:
    if facts.credential_kind == CredentialKind.ENTERPRISE:
        return await enterprise_grants.renewed(account)
    try:
        return await token_refresh.renewed(account)
    except NeedsConnection as error:
        raise credential_building.named(error, account.upstream) from error


async def _renew_quietly(account: UpstreamAccount, facts: UpstreamFacts) -> None:
    try:
        await _renewed(account, facts)
    except (NeedsConnection, SetupFailed):
        return  # written on the account; the call that finds no token any more says so
    forget(account.user_id, account.upstream_id)


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)


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
    forget(user_id if facts.credential_kind in _PERSONAL else None, facts.id)
    if facts.credential_kind == CredentialKind.NONE:
        raise SetupFailed(
            "authorization",
            f"{facts.title} asks for a sign-in that is not set up. Tell an administrator.",
            detail="answered 401 although configured without credential",
        )
    if scope and facts.credential_kind in credential_building.BY_OAUTH:
        try:
            await in_thread(credential_building.want_scope, user_id, facts, scope)
        except NeedsConnection as error:
            raise credential_building.for_person(error, facts) from error
    current = await credential_for(user_id, facts)
    stored = (current.id, current.headers, current.query)
    if stored != (refused.id, refused.headers, refused.query):
        return current
    if facts.credential_kind == CredentialKind.FIXED:
        raise SetupFailed(
            "authorization",
            f"{facts.title} refused the shared credential. Tell an administrator.",
            detail="answered 401; enter a valid credential on the upstream's page",
        )
    if facts.credential_kind == CredentialKind.USER_KEY:
        raise await in_thread(credential_building.key_refused, user_id, facts, refused)
    try:
        return await _renew_refused(user_id, facts, refused)
    except NeedsConnection as error:
        raise credential_building.for_person(error, facts) from error


async def _renew_refused(user_id: int, facts: UpstreamFacts, refused: Credential) -> Credential:
    generation = _generation
    account = await _account(user_id, facts)
    present = await in_thread(credential_building.account_credential, account, facts)
    if present.headers != refused.headers:
        # Renewed for another call between the caller's reading and this one.
        _keep(user_id, facts, present, generation)
        return present
    renewed_at = account.refreshed_at
    if renewed_at is not None and timezone.now() - renewed_at < JUST_RENEWED:
        raise credential_building.reconnect(facts, account_endings.TOKEN_REFUSED)
    enterprise = facts.credential_kind == CredentialKind.ENTERPRISE
    if not enterprise and not await in_thread(
        credential_building.has_refresh_token, account, facts
    ):
        # Kept as it is: the upstream may have refused by mistake.
        raise credential_building.reconnect(facts, account_endings.NOT_RENEWABLE)
    generation = _generation
    account = await _renewed(account, facts)
    credential = await in_thread(credential_building.account_credential, account, facts)
    _keep(user_id, facts, credential, generation)
    return credential


def hear_change(sender: Any, kind: str = "", key: str = "", **kwargs: Any) -> None:
    """Receiver of this room's ``changed`` signal in the process that made the change."""
    if kind == "credential":
        forget_key(key)
    elif kind == "configuration":
        forget()
