"""People's accounts on upstreams: how they stand, and what is done to them."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from upstreams import (
    account_endings,
    enterprise_identity,
    header_values,
    oauth_tokens,
    sealed_secrets,
    token_vault,
)
from upstreams.egress_guard import upstream_rules
from upstreams.errors import SetupFailed
from upstreams.models import (
    CredentialKind,
    PendingAuthorization,
    Upstream,
    UpstreamAccount,
    UpstreamClient,
)
from upstreams.oauth_tokens import TokenEndpoint
from upstreams.sealed_secrets import StoredTokens
from upstreams.server_metadata import ServerMetadata
from upstreams.signals import audit, changed, credential_key
from upstreams.token_replies import TokenReply

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

AccountState = Literal["connected", "not_connected", "needs_reconnect", "not_needed", "unavailable"]
ConnectRule = Callable[[Any, Upstream], bool]
PERSONAL: Final = (CredentialKind.USER_KEY, CredentialKind.USER_OAUTH)


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """How a person stands at an upstream, in words for their page.

    ``label`` names the account where the upstream told us; ``reason`` says why a state
    other than ``connected`` holds.
    """

    state: AccountState
    label: str = ""
    scope: str = ""
    reason: str = ""


_rule: ConnectRule | None = None
_revocations = ThreadPoolExecutor(max_workers=2, thread_name_prefix="revocation")


def register_connect_rule(rule: ConnectRule) -> None:
    """Have another room decide who may connect to an upstream; called once at start."""
    global _rule
    _rule = rule


def may_connect(user: Any, upstream: Upstream) -> bool:
    """Return whether a person may connect (blocking).

    The shared account is for administrators only. They also connect an account of their own before
    anybody is offered the upstream: the test of a connection asks for one.
    """
    if not getattr(user, "is_active", False):
        return False
    if user.is_staff and user.has_perm("upstreams.change_upstream"):
        return True
    if upstream.credential_kind == CredentialKind.SHARED_OAUTH:
        return False
    return _rule is None or _rule(user, upstream)


def held_by(user_id: int | None) -> Q:
    """Return the condition for a person's account, or without one for the shared account."""
    return Q(user__isnull=True) if user_id is None else Q(user_id=user_id)


def account_of(user_id: int | None, upstream_id: int) -> UpstreamAccount | None:
    """Return the row, None if there is none; without a person the shared one (blocking)."""
    return (
        UpstreamAccount.objects.select_related("upstream", "client")
        .filter(held_by(user_id), upstream_id=upstream_id)
        .first()
    )


def status_for(user: "User", upstream: Upstream) -> AccountStatus:
    """Say how a person stands at an upstream (blocking)."""
    if not upstream.enabled:
        return AccountStatus("unavailable", reason="An administrator has switched this off.")
    if upstream.credential_kind not in PERSONAL:
        return _common_status(user, upstream)
    account = account_of(user.pk, upstream.pk)
    if account is None:
        return AccountStatus("not_connected", reason="Not connected yet.")
    return status_of(account, upstream)


def _common_status(user: "User", upstream: Upstream) -> AccountStatus:
    """Say how it stands where a person has nothing to connect; who it acts as (#155)."""
    kind = upstream.credential_kind
    if kind == CredentialKind.FIXED:
        if not (upstream.sealed_fixed_credential or upstream.sealed_further_headers):
            return AccountStatus(
                "unavailable", reason="An administrator has to enter the shared credential."
            )
        return AccountStatus(
            "not_needed", reason="Provided by your administrator: everybody uses one account."
        )
    if kind == CredentialKind.SHARED_OAUTH:
        return _shared_status(upstream)
    if kind == CredentialKind.ENTERPRISE:
        return _company_status(user, upstream)
    return AccountStatus("not_needed", reason="No sign-in is needed.")


def _company_status(user: "User", upstream: Upstream) -> AccountStatus:
    """Say how it stands where the company's sign-in is the account."""
    token = enterprise_identity.subject_token(
        user.pk, upstream.enterprise_subject_token, upstream.enterprise_provider
    )
    if token is None and not _alive(account_of(user.pk, upstream.pk)):
        if enterprise_identity.providers_to_choose_from(upstream.enterprise_provider):
            reason = "An administrator has to say which identity provider vouches for people here."
            return AccountStatus("unavailable", reason=reason)
        reason = "Sign in to the gateway with your company's identity provider to use this."
        return AccountStatus("needs_reconnect", reason=reason)
    return AccountStatus("not_needed", reason="Used as you, by your company's sign-in.")


def _alive(account: UpstreamAccount | None) -> bool:
    """Return whether an access token still serves without another one."""
    if account is None or account.status != UpstreamAccount.Status.CONNECTED:
        return False
    return account.expires_at is None or account.expires_at > timezone.now()


def _shared_status(upstream: Upstream) -> AccountStatus:
    account = account_of(None, upstream.pk)
    if account is None:
        return AccountStatus(
            "unavailable", reason="An administrator has to connect the shared account first."
        )
    status = status_of(account, upstream)
    if status.state != "connected":
        reason = f"An administrator has to connect the shared account again. {status.reason}"
        return AccountStatus("unavailable", scope=status.scope, reason=reason)
    name = f" ({status.label})" if status.label else ""
    reason = f"Provided by your administrator: everybody uses one account{name}."
    return AccountStatus("not_needed", label=status.label, scope=status.scope, reason=reason)


def status_of(account: UpstreamAccount, upstream: Upstream) -> AccountStatus:
    """Say how an account stands."""
    facts = {"label": account.account_label, "scope": account.scope}
    if account.status != UpstreamAccount.Status.CONNECTED:
        why = account_endings.sentence(account.ended_because, upstream.title)
        return AccountStatus("needs_reconnect", **facts, reason=why or "The connection has ended.")
    try:
        sealed_secrets.open_tokens(account, upstream.url)
    except token_vault.VaultError:
        return AccountStatus(
            "needs_reconnect", **facts, reason="The server's address has changed since."
        )
    if account.wanted_scope:
        return AccountStatus(
            "needs_reconnect", **facts, reason="The server asks for further permissions."
        )
    return AccountStatus("connected", **facts)


def _tell(user_id: int | None, upstream_id: int) -> None:
    key = credential_key(user_id, upstream_id)
    changed.send(sender=UpstreamAccount, kind="credential", key=key)


def store_grant(pending: PendingAuthorization, reply: TokenReply, scope: str) -> UpstreamAccount:
    """Store the tokens of a finished connect; an earlier grant is replaced only now (#82)."""
    upstream = pending.upstream
    holder = None if pending.shared else pending.user_id
    tokens = StoredTokens(reply.access_token, reply.refresh_token)
    values: dict[str, Any] = {
        "client": pending.client,
        "sealed_secret": sealed_secrets.seal_tokens(
            tokens, user_id=holder, upstream_id=upstream.pk, bound_url=upstream.url
        ),
        "bound_url": upstream.url,
        "issuer": pending.issuer,
        "resource": pending.resource,
        "scope": scope,
        "account_label": reply.account_label,
        "expires_at": _end_of(reply),
    }
    account = _replace(holder, upstream, values)
    _report("account.connected", account, actor=pending.user, label=reply.account_label)
    return account


def store_enterprise_grant(
    user_id: int,
    upstream: Upstream,
    client: UpstreamClient,
    reply: TokenReply,
    *,
    resource: str,
    scope: str,
) -> UpstreamAccount:
    """Store what a person's sign-in at the company brought; the grant stays the same one."""
    before = account_of(user_id, upstream.pk)
    tokens = StoredTokens(reply.access_token)
    values: dict[str, Any] = {
        "client": client,
        "sealed_secret": sealed_secrets.seal_tokens(
            tokens, user_id=user_id, upstream_id=upstream.pk, bound_url=upstream.url
        ),
        "bound_url": upstream.url,
        "issuer": client.issuer,
        "resource": resource,
        "scope": scope,
        "account_label": reply.account_label,
        "expires_at": _end_of(reply),
    }
    if before is None:
        account = _replace(user_id, upstream, values)
        _report("account.connected", account, actor=account.user, label="company sign-in")
        return account
    values |= {"status": UpstreamAccount.Status.CONNECTED, "ended_because": "", "last_error": ""}
    UpstreamAccount.objects.filter(pk=before.pk).update(
        **values, version=F("version") + 1, refreshed_at=timezone.now()
    )
    return UpstreamAccount.objects.select_related("upstream", "client").get(pk=before.pk)


def _end_of(reply: TokenReply) -> datetime | None:
    return timezone.now() + timedelta(seconds=reply.expires_in) if reply.expires_in else None


def _replace(user_id: int | None, upstream: Upstream, values: dict[str, Any]) -> UpstreamAccount:
    """Write a new grant over whatever was there, in one step."""
    fresh = {
        **values,
        "status": UpstreamAccount.Status.CONNECTED,
        "grant_id": uuid.uuid4(),
        "wanted_scope": "",
        "refreshed_at": None,
        "refresh_not_before": None,
        "refresh_failures": 0,
        "refresh_lease_until": None,
        "refresh_lease_owner": "",
        "last_error": "",
        "ended_because": "",
        "connected_at": timezone.now(),
    }
    with transaction.atomic():
        key: dict[str, Any] = {"user_id": user_id, "upstream": upstream}
        account, made = UpstreamAccount.objects.select_for_update().get_or_create(
            **key, defaults=fresh
        )
        if not made:
            for name, value in fresh.items():
                setattr(account, name, value)
            account.version += 1
            account.save()
        _tell(user_id, upstream.pk)
    return account


def check_takes_key(upstream: Upstream) -> None:
    """Refuse a key where none is taken.

    Raises:
        SetupFailed: the upstream is off, or takes another kind of credential.
    """
    if upstream.credential_kind != CredentialKind.USER_KEY or not upstream.enabled:
        raise SetupFailed("authorization", f"{upstream.title} takes no keys at present.")


def save_user_key(user: "User", upstream: Upstream, key: str, *, actor: Any) -> UpstreamAccount:
    """Store a person's own key, as it is; ``user_keys`` tries it at the upstream first.

    Raises:
        SetupFailed: this upstream takes no keys, or the key cannot travel in a header.
    """
    check_takes_key(upstream)
    value = header_values.checked_value(key.strip())
    sealed = sealed_secrets.seal_tokens(
        StoredTokens(value), user_id=user.pk, upstream_id=upstream.pk, bound_url=upstream.url
    )
    values = {
        "client": None,
        "sealed_secret": sealed,
        "bound_url": upstream.url,
        "issuer": "",
        "resource": "",
        "scope": "",
        "account_label": "",
        "expires_at": None,
    }
    account = _replace(user.pk, upstream, values)
    _report("account.connected", account, actor=actor, label="own key")
    return account


def disconnect(user: "User | None", upstream: Upstream, *, actor: Any) -> bool:
    """Delete an account here, and revoke its tokens there as far as possible (#86).

    Without a person it is the shared one. Returns whether there was one (blocking).
    """
    user_id = user.pk if user is not None else None
    account = account_of(user_id, upstream.pk)
    if account is None:
        return False
    endpoint = _revocation(account)
    UpstreamAccount.objects.filter(pk=account.pk).delete()
    mine = {"shared": True} if user is None else {"user": user}
    PendingAuthorization.objects.filter(upstream=upstream, **mine).delete()
    _tell(user_id, upstream.pk)
    _report("account.disconnected", account, actor=actor)
    if endpoint is not None:
        transaction.on_commit(lambda: _revoke(*endpoint), robust=True)
    return True


def drop_accounts(upstream: Upstream, *, actor: Any, reason: str) -> int:
    """Delete every account of an upstream whose secrets must not be sent any more."""
    dropped, _ = UpstreamAccount.objects.filter(upstream=upstream).delete()
    PendingAuthorization.objects.filter(upstream=upstream).delete()
    changed.send(sender=UpstreamAccount, kind="credential", key=f":{upstream.pk}")
    if dropped:
        audit.send(
            sender=UpstreamAccount,
            kind="account.all_disconnected",
            user=actor,
            target=upstream.key,
            details={"accounts": dropped, "reason": reason},
            address="",
        )
    return dropped


def _revocation(account: UpstreamAccount) -> tuple[TokenEndpoint, StoredTokens] | None:
    """Return what a revocation needs, None where there is nothing to revoke."""
    if account.client is None:
        return None
    try:
        tokens = sealed_secrets.open_tokens(account, account.upstream.url)
        client = sealed_secrets.credential_of(account.client)
    except token_vault.VaultError:
        return None
    server = ServerMetadata.from_json(account.client.server_metadata)
    return TokenEndpoint(server, client, upstream_rules(account.upstream)), tokens


def _revoke(endpoint: TokenEndpoint, tokens: StoredTokens) -> None:
    token, hint = tokens.refresh_token, "refresh_token"
    if not token:
        token, hint = tokens.access_token, "access_token"
    # Nobody waits for a server that may take its time.
    _revocations.submit(asyncio.run, oauth_tokens.revoke(endpoint, token, hint))


def _report(kind: str, account: UpstreamAccount, *, actor: Any, label: str = "") -> None:
    audit.send(
        sender=UpstreamAccount,
        kind=kind,
        user=actor,
        target=account.upstream.key,
        details={"account_of": account.user_id, "label": label, "scope": account.scope},
        address="",
    )
