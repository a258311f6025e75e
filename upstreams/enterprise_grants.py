"""Accounts by the company's own sign-in: nobody connects anything (MCP enterprise-managed
authorization; draft-ietf-oauth-identity-assertion-authz-grant).

    token of the sign-in ──▶ company's identity provider (RFC 8693) ──▶ ID-JAG
    ID-JAG ──▶ the upstream's authorization server (RFC 7523) ──▶ access token

Nothing rotates here, so several attempts at once do no harm; those of one process are one.
"""

import asyncio
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from upstreams import accounts, enterprise_identity, oauth_tokens, sealed_secrets, token_vault
from upstreams.client_authentication import ClientCredential
from upstreams.database_calls import in_thread
from upstreams.egress_guard import upstream_rules
from upstreams.enterprise_identity import SubjectToken
from upstreams.errors import NeedsConnection, SetupFailed
from upstreams.models import ClientAuthentication, Upstream, UpstreamAccount, UpstreamClient
from upstreams.oauth_discovery import Discovered, discover
from upstreams.oauth_registration import client_for, forget_registration
from upstreams.oauth_tokens import UNKNOWN_CLIENT, Assertion, TokenEndpoint, TokenRefused
from upstreams.server_metadata import scope_words
from upstreams.token_replies import TokenReply

STEP = "enterprise"


@dataclass(frozen=True, slots=True)
class _Request:
    """What is read before anything is sent."""

    upstream: Upstream
    subject: SubjectToken
    client: ClientCredential


_running: WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[tuple[int, int], asyncio.Task[UpstreamAccount]]
] = WeakKeyDictionary()


async def account_for(user_id: int, upstream_id: int) -> UpstreamAccount:
    """Return the person's account, made by their sign-in if there is none yet.

    Raises:
        NeedsConnection: they have to sign in to the gateway again.
        SetupFailed: the provider or the server says no; names the step.
    """
    account = await in_thread(accounts.account_of, user_id, upstream_id)
    if account is not None and account.status == UpstreamAccount.Status.CONNECTED:
        return account
    return await _once(user_id, upstream_id)


async def renewed(account: UpstreamAccount) -> UpstreamAccount:
    """Return the account with another access token; raises as ``account_for``."""
    assert account.user_id is not None
    return await _once(account.user_id, account.upstream_id)


async def _once(user_id: int, upstream_id: int) -> UpstreamAccount:
    tasks = _running.setdefault(asyncio.get_running_loop(), {})
    key = (user_id, upstream_id)
    task = tasks.get(key)
    if task is None:
        task = tasks[key] = asyncio.create_task(_obtain(user_id, upstream_id))
        task.add_done_callback(lambda _: tasks.pop(key, None))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def _obtain(user_id: int, upstream_id: int) -> UpstreamAccount:
    request = await in_thread(_prepare, user_id, upstream_id)
    upstream = request.upstream
    found = await discover(upstream)
    client = await client_for(upstream, found)
    assertion = await _assertion(request, found)
    reply = await _redeemed(upstream, client, found, assertion)
    granted = reply.scope if reply.scope is not None else scope_words(upstream.oauth_scopes)
    return await in_thread(
        accounts.store_enterprise_grant,
        user_id,
        upstream,
        client,
        reply,
        resource=found.resource,
        scope=" ".join(granted),
    )


def sign_in_again(upstream: Upstream) -> NeedsConnection:
    """Return the error for a person whose sign-in no longer vouches for them."""
    return NeedsConnection(
        f"{upstream.title} is used with your company's sign-in. Sign in to the gateway again with "
        "it, then repeat this.",
        upstream_id=upstream.pk,
        upstream_key=upstream.key,
        title=upstream.title,
        reason="reconnect",
    )


def _prepare(user_id: int, upstream_id: int) -> _Request:
    upstream = Upstream.objects.get(pk=upstream_id)
    if enterprise_identity.providers_to_choose_from(upstream.enterprise_provider):
        raise SetupFailed(
            STEP,
            f"{upstream.title} is not ready: an administrator has to say which identity provider "
            "vouches for people there.",
            detail="several identity providers are set up; enter the id of one as the enterprise "
            "provider on the upstream's page",
        )
    subject = enterprise_identity.subject_token(
        user_id, upstream.enterprise_subject_token, upstream.enterprise_provider
    )
    if subject is None:
        raise sign_in_again(upstream)
    secret = ""
    if upstream.sealed_enterprise_client_secret:
        try:
            secret = sealed_secrets.open_enterprise_secret(upstream)
        except token_vault.VaultError as error:
            raise SetupFailed(
                STEP,
                f"{upstream.title} is not ready: an administrator has to enter the client secret "
                "for the identity provider again.",
                detail=str(error),
            ) from error
    method = upstream.enterprise_auth_method or (
        ClientAuthentication.BASIC if secret else ClientAuthentication.NONE
    )
    return _Request(
        upstream, subject, ClientCredential(upstream.enterprise_client_id, method, secret)
    )


async def _assertion(request: _Request, found: Discovered) -> str:
    """Have the identity provider vouch for the person at the upstream's server."""
    upstream = request.upstream
    form = {
        "requested_token_type": oauth_tokens.ID_JAG,
        "subject_token": request.subject.token,
        "subject_token_type": request.subject.token_type,
    }
    if upstream.enterprise_audience_parameter:
        form[upstream.enterprise_audience_parameter] = (
            upstream.enterprise_audience or found.server.issuer
        )
    if upstream.enterprise_resource_parameter:
        form[upstream.enterprise_resource_parameter] = found.resource
    if upstream.oauth_scopes:
        form["scope"] = " ".join(scope_words(upstream.oauth_scopes))
    try:
        return await oauth_tokens.exchange_for_assertion(
            upstream.enterprise_token_url, request.client, form, upstream_rules(upstream)
        )
    except TokenRefused as error:
        if error.error in ("invalid_grant", "invalid_token"):
            raise sign_in_again(upstream) from error
        raise SetupFailed(
            STEP,
            f"Your company's identity provider does not let you use {upstream.title}. Ask an "
            "administrator.",
            detail=f"{error.detail} (token exchange at the identity provider)",
        ) from error


async def _redeemed(
    upstream: Upstream, client: UpstreamClient, found: Discovered, assertion: str
) -> TokenReply:
    credential = await in_thread(sealed_secrets.credential_of, client)
    endpoint = TokenEndpoint(found.server, credential, upstream_rules(upstream))
    resource = found.resource if upstream.oauth_send_resource else ""
    try:
        return await oauth_tokens.redeem_assertion(
            endpoint, Assertion(assertion), scope=upstream.oauth_scopes, resource=resource
        )
    except TokenRefused as error:
        if error.error in UNKNOWN_CLIENT:
            await in_thread(forget_registration, client)
        raise SetupFailed(
            STEP,
            f"{upstream.title} does not accept your company's sign-in. Tell an administrator.",
            detail=f"{error.detail} (assertion of the identity provider)",
        ) from error
