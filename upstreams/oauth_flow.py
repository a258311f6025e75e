"""Connect a person's account: to the authorization server and back (protocol.md e4 to e8).

``begin`` remembers who set out, from which browser, to which server; ``complete`` sends
the code to the token endpoint only if all of it is the same on the way back. Every
refusal happens before that request (security.md #76 to #80, #91).
"""

import base64
import hashlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from django.conf import settings
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme

from upstreams import accounts, oauth_tokens, sealed_secrets, token_vault
from upstreams.database_calls import in_thread
from upstreams.egress_guard import upstream_rules
from upstreams.errors import ConnectRefused, SetupFailed
from upstreams.models import (
    CredentialKind,
    PendingAuthorization,
    ScopeDelimiter,
    Upstream,
    UpstreamAccount,
    UpstreamClient,
)
from upstreams.oauth_discovery import Discovered, discover
from upstreams.oauth_registration import client_for, forget_registration
from upstreams.oauth_tokens import UNKNOWN_CLIENT, TokenEndpoint
from upstreams.server_metadata import ServerMetadata, scope_words
from upstreams.signals import audit

if TYPE_CHECKING:
    from django.contrib.auth.models import User

logger = logging.getLogger(__name__)

BY_OAUTH: Final = (CredentialKind.USER_OAUTH, CredentialKind.SHARED_OAUTH)
LIFETIME: Final = timedelta(minutes=10)
MOST_PENDING: Final = 10
MAX_STATE: Final = 200
MAX_CODE: Final = 4096
_RESERVED: Final = frozenset(
    {
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "resource",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)

_ERROR_CODES: Final = frozenset(
    {
        "consent_required",
        "interaction_required",
        "invalid_client",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "login_required",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
    }
)


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """The query of the callback; every member holds all values that were sent."""

    path: str
    state: Sequence[str] = field(repr=False)
    code: Sequence[str] = field(repr=False)
    error: Sequence[str] = ()
    iss: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Connected:
    """A finished connect; ``missing`` are scopes that were asked for and not given."""

    upstream: Upstream
    account: UpstreamAccount
    return_to: str
    missing: tuple[str, ...] = ()


class ExchangeFailed(SetupFailed):
    """The token request of a connect failed; knows where the person was going."""

    def __init__(self, cause: SetupFailed, pending: PendingAuthorization) -> None:
        super().__init__(cause.step, cause.message, detail=cause.detail, retryable=cause.transient)
        self.upstream = pending.upstream
        self.return_to = pending.return_to


def digest(value: str) -> str:
    """Return the form in which a state or browser secret is stored."""
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()


def attempt_of(address: str) -> str:
    """Return the name under which an attempt is traced, from an address that holds its state."""
    state = parse_qs(urlsplit(address).query).get("state", [""])[0]
    return digest(state)[:32] if state else ""


def new_browser_secret() -> str:
    """Return a value for the cookie that binds a connect to its browser (256 bit)."""
    return secrets.token_urlsafe(32)


async def begin(user: "User", upstream: Upstream, *, browser: str, return_to: str) -> str:
    """Prepare a connect and return the address to send the person to.

    Args:
        user: who is connecting.
        upstream: where to; its credential kind must be one by OAuth. Who may connect the account
            of everybody, ``accounts.may_connect`` says.
        browser: the secret in this browser's binding cookie.
        return_to: checked local path for afterwards.

    Raises:
        SetupFailed: names the step.
    """
    if upstream.credential_kind not in BY_OAUTH or not upstream.enabled:
        raise SetupFailed("address", f"{upstream.title} takes no sign-in at present.")
    found = await discover(upstream)
    client = await client_for(upstream, found)
    resource = found.resource if upstream.oauth_send_resource else ""
    shared = upstream.credential_kind == CredentialKind.SHARED_OAUTH
    account = await in_thread(accounts.account_of, None if shared else user.pk, upstream.pk)
    scope = " ".join(scopes_to_ask(upstream, found, account))
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    await in_thread(
        _remember,
        PendingAuthorization(
            state_digest=digest(state),
            browser_digest=digest(browser),
            user_id=user.pk,
            upstream=upstream,
            client=client,
            shared=shared,
            issuer=found.server.issuer,
            iss_required=found.server.iss_in_answer,
            sealed_verifier=await in_thread(
                sealed_secrets.seal_verifier, verifier, user_id=user.pk, upstream=upstream
            ),
            redirect_uri=client.redirect_uri,
            resource=resource,
            scope=scope,
            return_to=return_to,
            expires_at=timezone.now() + LIFETIME,
        ),
    )
    return authorization_url(found.server, client, upstream, state, verifier, resource, scope)


def _remember(pending: PendingAuthorization) -> None:
    """Store the row; a person has at most ten open ones (tabs), old ones go."""
    mine = PendingAuthorization.objects.filter(user_id=pending.user_id)
    PendingAuthorization.objects.filter(expires_at__lt=timezone.now() - timedelta(days=1)).delete()
    kept = list(mine.order_by("-created_at").values_list("pk", flat=True)[: MOST_PENDING - 1])
    mine.exclude(pk__in=kept).delete()
    pending.save()


def scopes_to_ask(
    upstream: Upstream, found: Discovered, account: UpstreamAccount | None
) -> tuple[str, ...]:
    """Choose the scopes: the administrator's, else the challenge's, else those listed (e8).

    A step-up asks for what was granted and what is wanted now, so that nothing is lost.
    ``offline_access`` is asked for only where the authorization server offers it.
    """
    chosen = scope_words(upstream.oauth_scopes)
    if not chosen:
        listed = tuple(
            word for word in found.scopes_supported if word not in ("*", "offline_access")
        )
        chosen = found.scope or listed
        if "offline_access" in found.server.scopes_supported:
            chosen = (*chosen, "offline_access")
        elif found.server.scopes_supported:
            chosen = tuple(word for word in chosen if word != "offline_access")
    if account is not None and account.wanted_scope:
        chosen = (*scope_words(account.scope), *chosen, *scope_words(account.wanted_scope))
    return tuple(dict.fromkeys(chosen))


def authorization_url(
    server: ServerMetadata,
    client: UpstreamClient,
    upstream: Upstream,
    state: str,
    verifier: str,
    resource: str,
    scope: str,
) -> str:
    """Return the address of the authorization request (RFC 6749 4.1.1, RFC 7636, RFC 8707)."""
    hashed = hashlib.sha256(verifier.encode("ascii")).digest()
    parameters = {
        name: str(value)
        for name, value in _extra_parameters(upstream).items()
        if name.lower() not in _RESERVED
    }
    if "offline_access" in scope.split():
        parameters.setdefault("prompt", "consent")
    parameters |= {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uri,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(hashed).rstrip(b"=").decode("ascii"),
        "code_challenge_method": "S256",
    }
    if scope:
        comma = upstream.oauth_scope_delimiter == ScopeDelimiter.COMMA
        parameters["scope"] = scope.replace(" ", ",") if comma else scope
    if resource:
        parameters["resource"] = resource
    endpoint = server.authorization_endpoint
    return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(parameters)}"


def _extra_parameters(upstream: Upstream) -> dict[str, object]:
    extra = upstream.oauth_extra_authorize_parameters
    return extra if isinstance(extra, dict) else {}


async def complete(answer: CallbackAnswer, user: "User", *, browser: str) -> Connected:
    """Finish a connect.

    Raises:
        ConnectRefused: the answer is not for this person, browser or server; no request was sent.
        ExchangeFailed: the token request failed.
    """
    pending = await in_thread(_claim, answer, user.pk, browser)
    upstream = pending.upstream
    _check_issuer(answer, pending)
    if answer.error:
        raise _declined(answer, pending)
    if len(answer.code) != 1 or not 0 < len(answer.code[0]) <= MAX_CODE:
        raise _refused("answer", "The authorization server's answer holds no code.", pending)
    endpoint, verifier = await in_thread(_open, pending)
    try:
        reply = await oauth_tokens.exchange_code(
            endpoint,
            code=answer.code[0],
            verifier=verifier,
            redirect_uri=pending.redirect_uri,
            resource=pending.resource,
        )
    except SetupFailed as error:
        if isinstance(error, oauth_tokens.TokenRefused) and error.error in UNKNOWN_CLIENT:
            await in_thread(forget_registration, pending.client)
        raise ExchangeFailed(error, pending) from error
    asked = scope_words(pending.scope)
    granted = reply.scope if reply.scope is not None else asked
    account = await in_thread(accounts.store_grant, pending, reply, " ".join(granted))
    missing = tuple(word for word in asked if word not in granted and word != "offline_access")
    return Connected(upstream, account, pending.return_to, missing)


def _claim(answer: CallbackAnswer, user_id: int, browser: str) -> PendingAuthorization:
    """Find what this answer belongs to, check every binding, and use it up."""
    state = answer.state[0] if len(answer.state) == 1 else ""
    if not state or len(state) > MAX_STATE:
        raise ConnectRefused("unknown", "This address belongs to no connection in progress.")
    pending = (
        PendingAuthorization.objects.select_related("upstream", "client", "user")
        .filter(state_digest=digest(state))
        .first()
    )
    if pending is None:
        raise ConnectRefused("unknown", "This address belongs to no connection in progress.")
    _check_bindings(answer, pending, user_id, browser)
    used = PendingAuthorization.objects.filter(pk=pending.pk, consumed_at__isnull=True).update(
        consumed_at=timezone.now()
    )
    if used != 1:
        raise _refused("used", "This answer was already used.", pending)
    if pending.expires_at < timezone.now():
        raise _refused("expired", "Connecting took longer than ten minutes.", pending)
    return pending


def _check_bindings(
    answer: CallbackAnswer, pending: PendingAuthorization, user_id: int, browser: str
) -> None:
    """Refuse an answer that another person, browser or address brings; it stays unused."""
    problem = ""
    if pending.user_id != user_id:
        problem = "other_person"
    elif not browser or not secrets.compare_digest(pending.browser_digest, digest(browser)):
        problem = "other_browser"
    elif answer.path != urlsplit(pending.redirect_uri).path:
        problem = "other_address"
    elif not (pending.upstream.enabled and accounts.may_connect(pending.user, pending.upstream)):
        problem = "not_allowed"
    if problem:
        audit.send(
            sender=PendingAuthorization,
            kind="account.connect_refused",
            user=None,
            target=pending.upstream.key,
            details={"reason": problem, "begun_by": pending.user_id, "brought_by": user_id},
            address="",
        )
        raise ConnectRefused(
            problem,
            "This connection was begun by somebody else or in another browser. Nothing was "
            "connected.",
        )


def _refused(reason: str, message: str, pending: PendingAuthorization) -> ConnectRefused:
    return ConnectRefused(
        reason, message, upstream_key=pending.upstream.key, return_to=pending.return_to
    )


def _check_issuer(answer: CallbackAnswer, pending: PendingAuthorization) -> None:
    """Compare ``iss`` by the table of RFC 9207 2.4: plain strings, errors too (e6)."""
    if answer.iss and (len(answer.iss) != 1 or answer.iss[0] != pending.issuer):
        logger.warning("an answer for %s came from another issuer", pending.upstream.key)
    elif pending.iss_required and not answer.iss:
        logger.warning("an answer for %s does not name its issuer", pending.upstream.key)
    else:
        return
    raise _refused("issuer", "The answer did not come from the server you were sent to.", pending)


def _declined(answer: CallbackAnswer, pending: PendingAuthorization) -> ConnectRefused:
    """Turn an error answer into our own words; the server's text is shown to nobody."""
    if answer.error[0] == "access_denied":
        return _refused("denied", f"Access to {pending.upstream.title} was declined.", pending)
    known = answer.error[0] if answer.error[0] in _ERROR_CODES else "an unknown error"
    refusal = _refused(
        "answer", f"The authorization server of {pending.upstream.title} refused.", pending
    )
    refusal.detail = f"authorization answered {known}"
    refusal.code_given = known
    return refusal


def _open(pending: PendingAuthorization) -> tuple[TokenEndpoint, str]:
    upstream = pending.upstream
    try:
        verifier = sealed_secrets.open_verifier(pending, upstream)
        client = sealed_secrets.credential_of(pending.client)
    except token_vault.VaultError as error:
        raise _refused(
            "other_address", "The upstream was changed meanwhile. Connect again.", pending
        ) from error
    server = ServerMetadata.from_json(pending.client.server_metadata)
    if server.issuer != pending.issuer:
        raise _refused("issuer", "The upstream was changed meanwhile. Connect again.", pending)
    return TokenEndpoint(server, client, upstream_rules(upstream)), verifier


def local_path(value: str, default: str = "/connections/") -> str:
    """Return ``value`` if it is a path on this site, else ``default`` (no open redirect)."""
    fits = len(value) <= 8000 and value.startswith("/") and "\\" not in value
    if fits and url_has_allowed_host_and_scheme(
        value, allowed_hosts=None, require_https=settings.SERVED_OVER_TLS
    ):
        return value
    return default
