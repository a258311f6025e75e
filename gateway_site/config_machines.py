"""Applies the parts of ``gateway.yaml`` about trusted issuers and service accounts."""

from gateway_site.config_changes import Applying, named, said
from gateway_site.config_file import ConfigurationRefused
from gateway_site.config_schema import ServiceAccountEntry, State, TrustedIssuerEntry
from oauthserver import service_accounts, trusted_issuers
from oauthserver.errors import ProtocolError
from oauthserver.models import ServiceAccount, TrustedIssuer
from virtualmcp.route_table import resource_of


def apply_trusted_issuer(entry: TrustedIssuerEntry, path: str, applying: Applying) -> None:
    """Trust an issuer, change what is known of it, or drop it."""
    found = TrustedIssuer.objects.filter(issuer=entry.issuer).first()
    if entry.state is State.ABSENT:
        if found is not None:
            trusted_issuers.drop(found, actor=applying.actor)
        applying.note("trusted issuer", entry.issuer, "removed" if found else "unchanged")
        return
    wanted = said(
        provider=entry.provider,
        jwks_uri=entry.jwks_uri,
        jwks=entry.jwks,
        enabled=entry.enabled,
        person_claim=entry.person_claim,
        tenant_claim=entry.tenant_claim,
        sign_in_claim=entry.sign_in_claim,
        sign_in_tenant_claim=entry.sign_in_tenant_claim,
        domains=entry.domains,
    )
    if entry.jwks_uri is not None or entry.jwks is not None:
        wanted = {"jwks_uri": "", "jwks": None, **wanted}
    with named(path):
        changed = trusted_issuers.trust(entry.issuer, wanted, actor=applying.actor)
    what = "created" if found is None else "changed" if changed else "unchanged"
    applying.note("trusted issuer", entry.issuer, what, dict.fromkeys(changed))


def apply_service_account(entry: ServiceAccountEntry, path: str, applying: Applying) -> None:
    """Make, change or remove a service account."""
    accounts = ServiceAccount.objects.select_related("client", "user")
    found = accounts.filter(client__client_id=entry.client_id).first()
    if entry.state is State.ABSENT:
        if found is not None:
            service_accounts.delete(found, actor=applying.actor)
        applying.note("service account", entry.client_id, "removed" if found else "unchanged")
        return
    given = entry.jwks_uri is not None or entry.jwks is not None
    resources = None if entry.virtual_mcps is None else list(map(resource_of, entry.virtual_mcps))
    try:
        if found is None:
            service_accounts.create(
                entry.name or entry.client_id,
                resources=resources or [],
                jwks=entry.jwks,
                jwks_uri=entry.jwks_uri or "",
                client_id=entry.client_id,
                actor=applying.actor,
            )
            applying.note("service account", entry.client_id, "created")
            return
        changed = service_accounts.change(
            found,
            resources=found.resources if resources is None else resources,
            jwks=entry.jwks if given else found.client.jwks,
            jwks_uri=(entry.jwks_uri or "") if given else found.client.jwks_uri,
            actor=applying.actor,
        )
    except ProtocolError as failure:
        raise ConfigurationRefused([(path, failure.description)]) from failure
    what = "changed" if changed else "unchanged"
    applying.note("service account", entry.client_id, what, dict.fromkeys(changed))
