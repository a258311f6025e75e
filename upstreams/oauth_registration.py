"""Which OAuth client the gateway is at an authorization server (protocol.md e9 to e12).

Pre-registered by an administrator, else by client ID metadata document, else by dynamic
registration (RFC 7591), else the administrator is told what to enter. A registration
belongs to one issuer and is never shown to another.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from upstreams import http_client, sealed_secrets
from upstreams.client_authentication import can_sign_for
from upstreams.client_documents import (
    callback_url,
    client_name,
    document_url,
)
from upstreams.database_calls import in_thread
from upstreams.egress_guard import upstream_rules
from upstreams.errors import SetupFailed, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from upstreams.fetched_answer import FetchedAnswer
from upstreams.models import CredentialKind, Upstream, UpstreamClient
from upstreams.oauth_discovery import Discovered
from upstreams.server_metadata import ServerMetadata
from upstreams.signals import audit

logger = logging.getLogger(__name__)

STEP: Final = "registration"
MAX_CLIENT_ID: Final = 500
MAX_SECRET: Final = 2000
_EXPIRY_MARGIN: Final = timedelta(minutes=10)
# At a server that lists none, RFC 8414 says client_secret_basic.
_SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")


async def client_for(upstream: Upstream, found: Discovered) -> UpstreamClient:
    """Return the client to use at the discovered server, registering it where that is possible.

    Raises:
        SetupFailed: step ``registration``; its text says what an administrator has to enter.
    """
    if upstream.oauth_client_id:
        return await in_thread(_preregistered, upstream, found.server)
    document = document_for(found.server, upstream.oauth_auth_method)
    if document:
        method = "private_key_jwt" if document.endswith("/gateway.json") else "none"
        return await in_thread(_documented, upstream, found.server, document, method)
    return await _registered(upstream, found)


def document_for(server: ServerMetadata, chosen: str = "") -> str:
    """Return which of our client documents a server takes; "" for neither.

    ``chosen`` is the administrator's way of authentication, "" for the server's own.

    Only a gateway on https can be fetched and trusted by its address.
    """
    if not (settings.SERVED_OVER_TLS and server.client_documents):
        return ""
    if chosen:
        names = {"private_key_jwt": "gateway.json", "none": "gateway-public.json"}
        return document_url(names[chosen]) if chosen in names else ""
    if "private_key_jwt" in server.auth_methods and can_sign_for(server.signing_algorithms):
        return document_url("gateway.json")
    if "none" in server.auth_methods or not server.auth_methods:
        return document_url("gateway-public.json")
    return ""


def redirect_uri_for(upstream: Upstream, server: ServerMetadata) -> str:
    """Return the redirect URI to register: the upstream's own where answers name no issuer."""
    return callback_url() if server.iss_in_answer else callback_url(upstream.key)


def secret_method(server: ServerMetadata, *, has_secret: bool, chosen: str = "") -> str:
    """Return how to authenticate with (or without) a client secret; ``chosen`` wins."""
    if chosen:
        return chosen
    offered = server.auth_methods or ("client_secret_basic",)
    if has_secret:
        return next((name for name in _SECRET_METHODS if name in offered), "client_secret_basic")
    if offered == ("private_key_jwt",) and can_sign_for(server.signing_algorithms):
        return "private_key_jwt"
    return "none"


def _preregistered(upstream: Upstream, server: ServerMetadata) -> UpstreamClient:
    """Return the administrator's client, pinned to the first issuer it was used at."""
    pinned = (
        UpstreamClient.objects.filter(
            upstream=upstream,
            registration=UpstreamClient.Registration.PREREGISTERED,
            retired_at__isnull=True,
        )
        .exclude(issuer=server.issuer)
        .first()
    )
    if pinned is not None and upstream.oauth_issuer != server.issuer:
        raise SetupFailed(
            STEP,
            "The upstream now names another authorization server than before. An administrator "
            "has to confirm that.",
            detail=f"The client id belongs to {pinned.issuer!r}; the upstream now names "
            f"{server.issuer!r}. If that is right, enter the new authorization server and the "
            "client id it gave out on the upstream's page.",
        )
    secret = (
        sealed_secrets.open_configured_secret(upstream)
        if upstream.sealed_oauth_client_secret
        else ""
    )
    values: dict[str, Any] = {
        "client_id": upstream.oauth_client_id,
        "sealed_client_secret": sealed_secrets.seal_client_secret(
            upstream.pk, server.issuer, secret
        )
        if secret
        else "",
        "token_endpoint_auth_method": secret_method(
            server, has_secret=bool(secret), chosen=upstream.oauth_auth_method
        ),
        "registration": UpstreamClient.Registration.PREREGISTERED,
        "secret_expires_at": None,
    }
    return _store(upstream, server, callback_url(), values)


def _documented(
    upstream: Upstream, server: ServerMetadata, client_id: str, method: str
) -> UpstreamClient:
    values = {
        "client_id": client_id,
        "sealed_client_secret": "",
        "token_endpoint_auth_method": method,
        "registration": UpstreamClient.Registration.CIMD,
        "secret_expires_at": None,
    }
    return _store(upstream, server, callback_url(), values)


def _store(
    upstream: Upstream, server: ServerMetadata, redirect_uri: str, values: dict[str, Any]
) -> UpstreamClient:
    """Store a client; one with another id stays behind for the accounts made with it.

    Their refresh tokens are bound to that id (RFC 6749 6).
    """
    key: dict[str, Any] = {
        "upstream": upstream,
        "issuer": server.issuer,
        "redirect_uri": redirect_uri,
        "retired_at": None,
    }
    known = {**values, "server_metadata": server.as_json()}
    try:
        with transaction.atomic():
            UpstreamClient.objects.filter(**key).exclude(client_id=values["client_id"]).update(
                retired_at=timezone.now()
            )
            UpstreamClient.objects.filter(
                upstream=upstream,
                retired_at__isnull=False,
                upstreamaccount__isnull=True,
                pendingauthorization__isnull=True,
            ).delete()
            client, _ = UpstreamClient.objects.update_or_create(**key, defaults=known)
    except IntegrityError:
        client = UpstreamClient.objects.get(**key)
    return client


def _stored_registration(upstream: Upstream, server: ServerMetadata) -> UpstreamClient | None:
    """Return a usable earlier registration at this issuer, with its metadata brought up to date."""
    client = UpstreamClient.objects.filter(
        upstream=upstream,
        issuer=server.issuer,
        redirect_uri=redirect_uri_for(upstream, server),
        registration=UpstreamClient.Registration.DCR,
        retired_at__isnull=True,
    ).first()
    if client is None:
        return None
    expires = client.secret_expires_at
    if expires is not None and expires < timezone.now() + _EXPIRY_MARGIN:
        return None
    if client.server_metadata != server.as_json():
        client.server_metadata = server.as_json()
        client.save(update_fields=["server_metadata", "updated_at"])
    return client


async def _registered(upstream: Upstream, found: Discovered) -> UpstreamClient:
    server = found.server
    known = await in_thread(_stored_registration, upstream, server)
    if known is not None:
        return known
    if not server.registration_endpoint:
        raise ask_administrator(server)
    request = registration_request(upstream, found)
    try:
        answer = await http_client.post_json(
            server.registration_endpoint, request, rules=upstream_rules(upstream)
        )
        if answer.status not in (200, 201):
            raise _refused(server, answer)
        values = await in_thread(registration_values, answer.json_object(), upstream, server)
    except SetupFailed:
        raise
    except UpstreamError as error:
        raise SetupFailed(
            STEP,
            "The gateway could not register itself at the authorization server.",
            detail=f"{server.registration_endpoint}: {error.detail}",
            retryable=isinstance(error, UpstreamUnreachable | UpstreamTimeout),
        ) from error
    client = await in_thread(_store, upstream, server, request["redirect_uris"][0], values)
    await in_thread(_report, upstream, client)
    return client


def _report(upstream: Upstream, client: UpstreamClient) -> None:
    audit.send(
        sender=UpstreamClient,
        kind="upstream.client_registered",
        user=None,
        target=upstream.key,
        details={"issuer": client.issuer, "client_id": client.client_id},
        address="",
    )


def registration_request(upstream: Upstream, found: Discovered) -> dict[str, Any]:
    """Return the RFC 7591 request."""
    offered = found.server.auth_methods or ("client_secret_basic",)
    if upstream.oauth_auth_method:
        offered = (upstream.oauth_auth_method,)
    method = next((name for name in (*_SECRET_METHODS, "none") if name in offered), "none")
    request: dict[str, Any] = {
        "client_name": client_name(),
        "client_uri": settings.PUBLIC_URL,
        "redirect_uris": [redirect_uri_for(upstream, found.server)],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "application_type": "web",
    }
    if upstream.credential_kind == CredentialKind.ENTERPRISE:
        request["grant_types"] = ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    scope = upstream.oauth_scopes or " ".join(found.scope or found.scopes_supported)
    if scope:
        request["scope"] = scope
    return request


def registration_values(
    answer: dict[str, Any], upstream: Upstream, server: ServerMetadata
) -> dict[str, Any]:
    """Check a registration answer and return what to store.

    Raises:
        SetupFailed: no usable client id or secret in it.
    """
    client_id, secret = answer.get("client_id"), answer.get("client_secret") or ""
    if not _usable(client_id, MAX_CLIENT_ID) or (secret and not _usable(secret, MAX_SECRET)):
        raise SetupFailed(
            STEP,
            "The authorization server's answer to the registration cannot be used.",
            detail=f"{server.registration_endpoint}: no usable client_id or client_secret",
        )
    method = answer.get("token_endpoint_auth_method")
    if method not in (*_SECRET_METHODS, "none") or (method != "none" and not secret):
        method = secret_method(server, has_secret=bool(secret))
    expires = answer.get("client_secret_expires_at")
    lasting = not secret or not isinstance(expires, int | float) or isinstance(expires, bool)
    return {
        "client_id": client_id,
        "sealed_client_secret": sealed_secrets.seal_client_secret(
            upstream.pk, server.issuer, secret
        )
        if secret
        else "",
        "token_endpoint_auth_method": method,
        "registration": UpstreamClient.Registration.DCR,
        "secret_expires_at": None if lasting else _moment(expires),
    }


def _moment(seconds: float | Any) -> datetime | None:
    """Return a time stamp as date; 0 (never, RFC 7591 3.2.1) and nonsense give None."""
    if not 0 < seconds < 32_503_680_000:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC)


def _usable(value: Any, limit: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= limit and value.isprintable()


def _refused(server: ServerMetadata, answer: FetchedAnswer) -> SetupFailed:
    code = ""
    try:
        code = str(answer.json_object().get("error", ""))[:60]
    except UpstreamError:
        logger.info("a registration was refused without an OAuth error")
    passing = answer.status >= 500 or answer.status == 429
    refusal = ask_administrator(server)
    return SetupFailed(
        STEP,
        "The authorization server refused to register the gateway."
        + ("" if passing else f" {refusal.message}"),
        detail=f"{server.registration_endpoint} answered {answer.status} {code!r}. "
        f"{refusal.detail}",
        retryable=passing,
    )


def ask_administrator(server: ServerMetadata) -> SetupFailed:
    """Return the refusal that says what to register by hand and where to enter it."""
    return SetupFailed(
        STEP,
        "An administrator has to register the gateway at this upstream's authorization server.",
        detail=f"{server.issuer} offers no registration that the gateway can use. Register a web "
        f"application there with the redirect URI {callback_url()} and enter its client id (and "
        "secret, if it has one) on the upstream's page.",
    )


def forget_registration(client: UpstreamClient) -> None:
    """Retire a registration that its server no longer knows, so that the next connect makes one.

    Other people's accounts keep it: what they have works until it has to be renewed.
    """
    if client.registration == UpstreamClient.Registration.DCR:
        UpstreamClient.objects.filter(pk=client.pk, retired_at__isnull=True).update(
            retired_at=timezone.now()
        )
