"""What an administrator does to upstreams: check, change, tell, in one transaction each.

Admin, configuration file and REST interface all come through here, so that nowhere a
change of address lets an old secret go to a new place (security.md #152).
"""

from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from upstreams import accounts, header_values, sealed_secrets
from upstreams.errors import SetupFailed
from upstreams.models import CredentialKind, Upstream, UpstreamAccount, UpstreamClient
from upstreams.oauth_discovery import covers
from upstreams.oauth_registration import secret_method
from upstreams.server_metadata import ServerMetadata, origin_of
from upstreams.signals import audit, changed
from upstreams.upstream_validation import check_upstream

EDITABLE: Final = (
    "key",
    "title",
    "description",
    "url",
    "enabled",
    "era",
    "credential_kind",
    "credential_placement",
    "credential_name",
    "credential_prefix",
    "user_key_help",
    "oauth_issuer",
    "oauth_client_id",
    "oauth_scopes",
    "oauth_scope_delimiter",
    "oauth_auth_method",
    "oauth_resource",
    "oauth_send_resource",
    "oauth_extra_authorize_parameters",
    "oauth_allowed_hosts",
    "oauth_allow_missing_pkce",
    "enterprise_token_url",
    "enterprise_provider",
    "enterprise_client_id",
    "enterprise_auth_method",
    "enterprise_subject_token",
    "enterprise_audience",
    "enterprise_audience_parameter",
    "enterprise_resource_parameter",
    "private_network",
    "session_scope",
    "call_timeout",
    "list_timeout",
    "max_in_flight",
    "max_answer_mib",
    "sampling_per_minute",
    "sampling_tokens_per_day",
)
MOST_HEADERS: Final = 20
_SHOWN_IN_AUDIT: Final = (
    "url",
    "enabled",
    "credential_kind",
    "oauth_issuer",
    "oauth_client_id",
    "oauth_allowed_hosts",
    "oauth_allow_missing_pkce",
    "oauth_resource",
    "enterprise_token_url",
    "enterprise_client_id",
    "private_network",
    "sampling_per_minute",
    "sampling_tokens_per_day",
)


def _report(kind: str, upstream: Upstream, actor: Any, **details: Any) -> None:
    audit.send(
        sender=Upstream, kind=kind, user=actor, target=upstream.key, details=details, address=""
    )


def _announce(upstream: Upstream) -> None:
    changed.send(sender=Upstream, kind="configuration", key=upstream.key)
    changed.send(sender=Upstream, kind="credential", key=f":{upstream.pk}")


def _assign(upstream: Upstream, data: Mapping[str, Any]) -> None:
    unknown = set(data) - set(EDITABLE)
    if unknown:
        raise ValidationError(f"An upstream has no {', '.join(sorted(unknown))}.")
    for name, value in data.items():
        setattr(upstream, name, value)


@transaction.atomic
def create_upstream(data: Mapping[str, Any], actor: Any) -> Upstream:
    """Add an upstream; ``data`` holds fields named in ``EDITABLE``.

    Raises:
        ValidationError: by field.
    """
    upstream = Upstream()
    _assign(upstream, data)
    check_upstream(upstream)
    upstream.save()
    _report("upstream.created", upstream, actor, url=upstream.url, **_widened(None, upstream))
    _announce(upstream)
    return upstream


@transaction.atomic
def update_upstream(upstream: Upstream, data: Mapping[str, Any], actor: Any) -> Upstream:
    """Change an upstream, and drop every secret that the change would send elsewhere.

    Raises:
        ValidationError: by field.
    """
    before = Upstream.objects.select_for_update().get(pk=upstream.pk)
    _assign(upstream, data)
    check_upstream(upstream)
    fields = [name for name in EDITABLE if getattr(before, name) != getattr(upstream, name)]
    if not fields:
        return upstream
    dropped = _drop_misdirected(before, upstream, actor)
    if {"url", "era"} & set(fields):
        upstream.detected_era = upstream.detected_revision = ""
    upstream.save()
    if "oauth_auth_method" in fields:
        _apply_auth_method(upstream)
    details = {
        name: {"before": getattr(before, name), "after": getattr(upstream, name)}
        for name in fields
        if name in _SHOWN_IN_AUDIT
    }
    _report(
        "upstream.changed",
        upstream,
        actor,
        fields=fields,
        disconnected=dropped,
        **details,
        **_widened(before, upstream),
    )
    _announce(upstream)
    return upstream


def _apply_auth_method(upstream: Upstream) -> None:
    """Have the administrator's client prove itself in the way chosen now, from the next request."""
    for client in UpstreamClient.objects.filter(
        upstream=upstream, registration=UpstreamClient.Registration.PREREGISTERED
    ):
        client.token_endpoint_auth_method = secret_method(
            ServerMetadata.from_json(client.server_metadata),
            has_secret=bool(client.sealed_client_secret),
            chosen=upstream.oauth_auth_method,
        )
        client.save(update_fields=["token_endpoint_auth_method", "updated_at"])
    UpstreamAccount.objects.filter(upstream=upstream).update(refresh_not_before=None)


def _widened(before: Upstream | None, after: Upstream) -> dict[str, Any]:
    """Name what an auditor looks for: access to a private network, protections switched off."""
    old_network = before.private_network if before else ""
    old_pkce = before.oauth_allow_missing_pkce if before else False
    found: dict[str, Any] = {}
    if after.private_network and after.private_network != old_network:
        found["private_network_allowed"] = after.private_network
    if after.oauth_allow_missing_pkce and not old_pkce:
        found["missing_pkce_allowed"] = True
    return found


def _drop_misdirected(before: Upstream, after: Upstream, actor: Any) -> int:
    """Delete the accounts and registrations that belong to another server than the new one."""
    moved = origin_of(before.url) != origin_of(after.url)
    other_client = (before.oauth_issuer, before.oauth_client_id) != (
        after.oauth_issuer,
        after.oauth_client_id,
    )
    if moved:
        after.sealed_fixed_credential = after.sealed_further_headers = ""
        after.further_header_names = []
        UpstreamClient.objects.filter(upstream=after).exclude(
            registration=UpstreamClient.Registration.PREREGISTERED
        ).delete()
    old_provider = (before.enterprise_token_url, before.enterprise_client_id)
    if old_provider != (after.enterprise_token_url, after.enterprise_client_id):
        after.sealed_enterprise_client_secret = ""
    if before.oauth_client_id != after.oauth_client_id:
        # A secret belongs to the client id it was given out with.
        after.sealed_oauth_client_secret = ""
        UpstreamClient.objects.filter(
            upstream=after, registration=UpstreamClient.Registration.PREREGISTERED
        ).delete()
    if moved or other_client or before.credential_kind != after.credential_kind:
        reason = "address" if moved else "authorization server, client or kind of credential"
        return accounts.drop_accounts(after, actor=actor, reason=f"changed {reason}")
    if before.url != after.url:
        return _drop_uncovered(after)
    return 0


def _drop_uncovered(upstream: Upstream) -> int:
    """Delete the accounts whose tokens were given for another path of the same host."""
    outside = [
        account.pk
        for account in UpstreamAccount.objects.filter(upstream=upstream).exclude(resource="")
        if not covers(account.resource, upstream.url)
    ]
    UpstreamAccount.objects.filter(pk__in=outside).delete()
    return len(outside)


@transaction.atomic
def delete_upstream(upstream: Upstream, actor: Any) -> None:
    """Delete an upstream with everybody's accounts on it."""
    _report(
        "upstream.deleted",
        upstream,
        actor,
        url=upstream.url,
        accounts=UpstreamAccount.objects.filter(upstream=upstream).count(),
    )
    _announce(upstream)
    upstream.delete()


@transaction.atomic
def set_fixed_credential(upstream: Upstream, value: str, actor: Any) -> None:
    """Store (or with "" delete) the credential everybody shares.

    Raises:
        ValidationError: it cannot travel in a header, or the upstream takes no such credential.
    """
    if value and upstream.credential_kind != CredentialKind.FIXED:
        raise ValidationError("This upstream's kind of credential is not a fixed one.")
    try:
        sealed = sealed_secrets.seal_fixed(upstream, _checked(value)) if value.strip() else ""
    except SetupFailed as error:
        raise ValidationError(error.message) from error
    upstream.sealed_fixed_credential = sealed
    upstream.save(update_fields=["sealed_fixed_credential", "updated_at"])
    _report("upstream.credential_set" if sealed else "upstream.credential_removed", upstream, actor)
    _announce(upstream)


@transaction.atomic
def set_further_headers(upstream: Upstream, headers: Mapping[str, str], actor: Any) -> None:
    """Store (or with none delete) the headers that go with every request to the upstream.

    Raises:
        ValidationError: a name or value that a header cannot have, or too many of them.
    """
    if len(headers) > MOST_HEADERS:
        raise ValidationError(f"At most {MOST_HEADERS} further headers can be sent.")
    try:
        found = {
            header_values.checked_header_name(name.strip()): _checked(value)
            for name, value in headers.items()
        }
    except SetupFailed as error:
        raise ValidationError(error.message) from error
    upstream.further_header_names = sorted(found)
    upstream.sealed_further_headers = (
        sealed_secrets.seal_further_headers(upstream, found) if found else ""
    )
    upstream.save(update_fields=["further_header_names", "sealed_further_headers", "updated_at"])
    _report("upstream.headers_set", upstream, actor, names=sorted(found))
    _announce(upstream)


@transaction.atomic
def set_enterprise_secret(upstream: Upstream, secret: str, actor: Any) -> None:
    """Store (or with "" delete) the gateway's client secret at the company's identity provider.

    Raises:
        ValidationError: no client id it belongs to, or it is not one line of plain text.
    """
    if secret and not (upstream.enterprise_client_id and upstream.enterprise_token_url):
        raise ValidationError("Enter the identity provider's token address and the client id.")
    try:
        value = _checked(secret) if secret.strip() else ""
    except SetupFailed as error:
        raise ValidationError(error.message) from error
    upstream.sealed_enterprise_client_secret = (
        sealed_secrets.seal_enterprise_secret(upstream, value) if value else ""
    )
    upstream.save(update_fields=["sealed_enterprise_client_secret", "updated_at"])
    _report(
        "upstream.enterprise_secret_set" if value else "upstream.enterprise_secret_removed",
        upstream,
        actor,
    )
    _announce(upstream)


def _checked(value: str) -> str:
    return header_values.checked_value(value.strip())


@transaction.atomic
def set_oauth_client_secret(upstream: Upstream, secret: str, actor: Any) -> None:
    """Store (or with "" delete) the secret of the administrator's client id.

    A replaced secret is used from the next token request on; nobody has to connect again.

    Raises:
        ValidationError: there is no client id, or the secret is not one line of plain text.
    """
    if secret and not upstream.oauth_client_id:
        raise ValidationError("Enter the client id that this secret belongs to.")
    try:
        value = _checked(secret) if secret.strip() else ""
    except SetupFailed as error:
        raise ValidationError(error.message) from error
    upstream.sealed_oauth_client_secret = (
        sealed_secrets.seal_configured_secret(upstream, value) if value else ""
    )
    upstream.save(update_fields=["sealed_oauth_client_secret", "updated_at"])
    used = UpstreamClient.objects.filter(
        upstream=upstream,
        registration=UpstreamClient.Registration.PREREGISTERED,
        client_id=upstream.oauth_client_id,
    )
    for client in used:
        client.sealed_client_secret = (
            sealed_secrets.seal_client_secret(upstream.pk, client.issuer, value) if value else ""
        )
        client.token_endpoint_auth_method = secret_method(
            ServerMetadata.from_json(client.server_metadata),
            has_secret=bool(value),
            chosen=upstream.oauth_auth_method,
        )
        client.save()
    UpstreamAccount.objects.filter(client__in=used).update(refresh_not_before=None)
    _report(
        "upstream.client_secret_set" if value else "upstream.client_secret_removed", upstream, actor
    )
    _announce(upstream)


def forget_client(client: UpstreamClient, actor: Any) -> None:
    """Drop one of the gateway's registrations; the next connect makes a new one.

    Accounts that were made with it keep it until they end; their tokens are bound to it.
    """
    with transaction.atomic():
        _report("upstream.client_forgotten", client.upstream, actor, issuer=client.issuer)
        if UpstreamAccount.objects.filter(client=client).exists():
            client.retired_at = timezone.now()
            client.save(update_fields=["retired_at", "updated_at"])
        else:
            client.delete()
