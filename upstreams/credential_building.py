"""A credential out of what is stored: rows, the vault, and the errors of what is missing.

All of it is blocking; ``credentials`` caches the results and renews them.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final
from urllib.parse import quote

from django.utils import timezone

from upstreams import (
    account_endings,
    accounts,
    header_values,
    refresh_outcome,
    sealed_secrets,
    token_vault,
)
from upstreams.errors import NeedsConnection, SetupFailed, UpstreamError
from upstreams.models import CredentialKind, CredentialPlacement, Upstream, UpstreamAccount
from upstreams.server_metadata import scope_words
from upstreams.upstream_facts import UpstreamFacts

# Renewing begins this long to twice this long before a token ends, at the latest after two
# thirds of its life.
RENEW_AHEAD: Final = 60.0
MOST_STEP_UPS: Final = 2
# Of what an upstream says it wants, so much is remembered and asked for.
MOST_WANTED: Final = 50
LONGEST_WANTED: Final = 2_000
MOST_COUNTED: Final = 20
BY_OAUTH: Final = frozenset({CredentialKind.USER_OAUTH, CredentialKind.SHARED_OAUTH})


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


def renew_ahead(account: UpstreamAccount) -> float:
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


def named(error: NeedsConnection, upstream: Upstream) -> NeedsConnection:
    """Return the error with the upstream it is about, also if the row is gone."""
    return NeedsConnection(
        error.message,
        upstream_id=upstream.pk,
        upstream_key=upstream.key,
        title=upstream.title,
        reason=error.reason,
    )


def for_person(error: NeedsConnection, facts: UpstreamFacts) -> NeedsConnection | SetupFailed:
    """Return the error for whoever made the call: a shared account is not theirs to connect."""
    if facts.credential_kind != CredentialKind.SHARED_OAUTH:
        return error
    return SetupFailed(
        "authorization",
        f"{facts.title} is used with an account that an administrator has to connect"
        f"{' first' if error.reason == 'not_connected' else ' again'}. Tell an administrator.",
        detail=f"{error.detail} Open the upstream's page and choose “Connect the shared account”.",
    )


def awaits_first_connection(error: UpstreamError) -> bool:
    """Return whether there is no credential only because nobody has connected one so far."""
    told = error.__cause__ if isinstance(error, SetupFailed) else error
    return isinstance(told, NeedsConnection) and told.reason == "not_connected"


def not_connected(facts: UpstreamFacts) -> NeedsConnection:
    """Return the error of a person without an account."""
    return NeedsConnection(
        f"You have not connected {facts.title} yet.",
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="not_connected",
    )


def reconnect(facts: UpstreamFacts, because: str = "") -> NeedsConnection:
    """Return the error of a connection that ended; ``because`` is of ``account_endings``."""
    return NeedsConnection(
        account_endings.message(because, facts.title),
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="reconnect",
    )


def usable_account(user_id: int, facts: UpstreamFacts) -> UpstreamAccount:
    """Read the row (blocking)."""
    holder = None if facts.credential_kind == CredentialKind.SHARED_OAUTH else user_id
    account = (
        UpstreamAccount.objects.select_related("upstream", "client")
        .filter(accounts.held_by(holder), upstream_id=facts.id)
        .first()
    )
    if account is None:
        raise not_connected(facts)
    if account.status != UpstreamAccount.Status.CONNECTED:
        raise reconnect(facts, account.ended_because)
    return account


def account_credential(account: UpstreamAccount, facts: UpstreamFacts) -> Credential:
    """Open the vault and build the header or query (blocking: decryption, one write)."""
    try:
        tokens = sealed_secrets.open_tokens(account, facts.url)
    except token_vault.VaultError as error:
        raise reconnect(facts, account_endings.UNREADABLE) from error
    _note_use(account)
    if facts.credential_kind != CredentialKind.USER_KEY:
        if account.client_id is None:
            # A pasted key is no OAuth token; the upstream's kind was changed since.
            raise reconnect(facts)
        bearer = (b"authorization", b"Bearer " + tokens.access_token.encode("ascii"))
        headers = (bearer, *_further_headers(account.upstream))
        expires = account.expires_at.timestamp() if account.expires_at else None
        renew_at = expires - renew_ahead(account) if expires is not None else 0.0
        return Credential(str(account.grant_id), headers, b"", expires, renew_at)
    if account.client_id is not None:
        raise reconnect(facts)
    return key_credential(str(account.grant_id), tokens.access_token, account.upstream, facts)


def key_credential(name: str, key: str, upstream: Upstream, facts: UpstreamFacts) -> Credential:
    """Return a person's key as the upstream wants it (blocking)."""
    return with_headers(_placed(name, key, facts), _further_headers(upstream))


def _note_use(account: UpstreamAccount) -> None:
    """Remember roughly when an account was last used, for its owner's page."""
    now = timezone.now()
    if account.last_used_at is None or now - account.last_used_at > timedelta(minutes=10):
        UpstreamAccount.objects.filter(pk=account.pk).update(last_used_at=now)


def fixed_credential(facts: UpstreamFacts) -> Credential:
    """Open the shared credential (blocking)."""
    upstream = Upstream.objects.filter(pk=facts.id).first()
    headers = _further_headers(upstream) if upstream is not None else ()
    if upstream is None or not (upstream.sealed_fixed_credential or headers):
        raise SetupFailed(
            "authorization",
            f"{facts.title} is not ready: an administrator has to enter its credential.",
        )
    if not upstream.sealed_fixed_credential:
        return Credential(f"fixed:{facts.id}", headers)
    try:
        value = sealed_secrets.open_fixed(upstream)
    except token_vault.VaultError as error:
        raise SetupFailed(
            "authorization",
            f"{facts.title} is not ready: an administrator has to enter its credential again.",
            detail=f"{error} (its address may have been changed)",
        ) from error
    return with_headers(_placed(f"fixed:{facts.id}", value, facts), headers)


def open_credential(facts: UpstreamFacts) -> Credential:
    """Return what an upstream without a credential is sent: its further headers, if any."""
    upstream = Upstream.objects.filter(pk=facts.id).first()
    headers = _further_headers(upstream) if upstream is not None else ()
    return with_headers(NO_CREDENTIAL, headers)


def with_headers(credential: Credential, further: tuple[tuple[bytes, bytes], ...]) -> Credential:
    """Return the credential with further headers; its own win over one of the same name."""
    own = {name for name, _ in credential.headers}
    added = tuple(pair for pair in further if pair[0] not in own)
    return replace(credential, headers=(*credential.headers, *added)) if added else credential


def _further_headers(upstream: Upstream) -> tuple[tuple[bytes, bytes], ...]:
    """Open the further headers (blocking).

    Raises:
        SetupFailed: they were entered for another address.
    """
    if not upstream.sealed_further_headers:
        return ()
    try:
        found = sealed_secrets.open_further_headers(upstream)
    except token_vault.VaultError as error:
        raise SetupFailed(
            "authorization",
            f"{upstream.title} is not ready: an administrator has to enter its headers again.",
            detail=f"{error} (its address may have been changed)",
        ) from error
    return tuple(
        (
            header_values.checked_header_name(name).lower().encode("ascii"),
            header_values.checked_value(value).encode("ascii"),
        )
        for name, value in found.items()
    )


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


def key_refused(user_id: int, facts: UpstreamFacts, refused: Credential) -> NeedsConnection:
    """Mark a person's key as refused, so that their page says so too (blocking).

    A key that took its place meanwhile was not refused and stays.
    """
    account = usable_account(user_id, facts)
    if str(account.grant_id) == refused.id:
        refresh_outcome.end(account, account_endings.KEY_REFUSED, "the upstream refused the key")
    return reconnect(facts, account_endings.KEY_REFUSED)


def has_refresh_token(account: UpstreamAccount, facts: UpstreamFacts) -> bool:
    """Return whether an account can be renewed (blocking)."""
    try:
        tokens = sealed_secrets.open_tokens(account, facts.url)
    except token_vault.VaultError:
        return False
    return bool(tokens.refresh_token)


def _bounded(words: Iterable[str]) -> list[str]:
    """Return the first words, as many as may travel in an address (RFC 6749 3.3)."""
    kept: list[str] = []
    for word in words:
        if len(kept) == MOST_WANTED or len(" ".join((*kept, word))) > LONGEST_WANTED:
            break
        kept.append(word)
    return kept


def _count_step_up(account: UpstreamAccount, facts: UpstreamFacts, missing: str) -> None:
    """Count how often these scopes were asked for (protocol.md 5.13).

    Raises:
        SetupFailed: often enough; the authorization server does not grant them.
    """
    asked = int(account.step_ups.get(missing, 0))
    if asked >= MOST_STEP_UPS:
        raise SetupFailed(
            "authorization",
            f"{facts.title} asks for permissions that its sign-in did not give although you were "
            "asked twice. Tell an administrator.",
            detail=f"not granted: {missing[:300]!r}; see the scopes on the upstream's page, or "
            "have the person disconnect and connect again",
        )
    kept = [pair for pair in account.step_ups.items() if pair[0] != missing]
    account.step_ups = dict([*kept[1 - MOST_COUNTED :], (missing, asked + 1)])


def want_scope(user_id: int, facts: UpstreamFacts, scope: str) -> None:
    """Remember what the upstream asks for, for the next connect, and say so.

    Raises:
        NeedsConnection: reason ``scope``.
        SetupFailed: all of it was granted already; connecting again would only go in circles.
    """
    account = usable_account(user_id, facts)
    words = _bounded(scope_words(scope))
    granted, wanted = set(scope_words(account.scope)), set(words)
    if wanted and wanted <= granted:
        raise SetupFailed(
            "authorization",
            f"{facts.title} refuses this although you granted what it asks for.",
            detail=f"answered insufficient_scope for {scope[:200]!r}, all of it granted",
        )
    pending = set(scope_words(account.wanted_scope))
    if not wanted <= pending or not wanted:
        _count_step_up(account, facts, " ".join(sorted(wanted - granted)))
        # What is asked for now is kept, whatever was asked for before.
        all_wanted = _bounded(dict.fromkeys((*words, *scope_words(account.wanted_scope))))
        UpstreamAccount.objects.filter(pk=account.pk).update(
            wanted_scope=" ".join(all_wanted), step_ups=account.step_ups
        )
    raise NeedsConnection(
        f"{facts.title} asks for further permissions. Connect it again to grant them.",
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="scope",
    )
