"""The gateway's configuration as a ``gateway.yaml``: what ``declarative_config`` would apply.

Applied to the same gateway the file changes nothing. Secrets are not in it: they are left out, so
that the stored ones stay, or named as ``env:`` references for another gateway. Left out as well is
what is as for a new object, whom an identity provider or a directory brings along, and what is no
configuration: accounts, consents, tokens, reviews, clients that came by themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import yaml
from allauth.socialaccount.models import SocialApp
from django.contrib.auth.models import Group, User
from django.db.models import Q

from gateway_site import people_actions
from gateway_site.config_export_servers import upstreams, virtual_mcps
from gateway_site.config_schema import (
    ClientEntry,
    ClientPolicyEntry,
    Configuration,
    IdentityProviderEntry,
    SiteEntry,
    TrustedIssuerEntry,
    UserEntry,
)
from gateway_site.config_values import Secrets, differing_from_new, fields_of
from gateway_site.models import GroupMapping, ScimToken, SiteProfile
from oauthserver.models import ClientPolicy, OAuthClient, ServiceAccount, TrustedIssuer
from virtualmcp.route_table import resource_of

_HEAD: Final = """\
# Configuration of {name}, as gateway_export wrote it. Apply it with: manage.py gateway_apply FILE
"""
_LEFT_OUT: Final = """\
# These secrets are not in it. The gateway keeps its own; another one needs them, by the references
# that gateway_export --name-secrets writes:
"""
_STORED_SETTINGS: Final = {"trust_addresses": "verified_email", "scopes": "scope"}
_PERSON: Final = {"staff": "is_staff", "administrator": "is_superuser", "active": "is_active"}


class _Dumper(yaml.SafeDumper):
    """Plain YAML: every value is written out where it stands."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def exported(*, name_secrets: bool = False) -> tuple[str, list[str]]:
    """Return the file, and the environment variables that it names for secrets."""
    secrets = Secrets(named=name_secrets)
    document: dict[str, Any] = {
        "version": 1,
        "site": _site(),
        "groups": list(Group.objects.order_by("name").values_list("name", flat=True)),
        "users": [_user(user, secrets) for user in _own_people()],
        "identity_providers": [
            _provider(app, secrets) for app in SocialApp.objects.order_by("provider_id")
        ],
        "scim_tokens": [
            {"name": name, **secrets.entry("secret", "scim_token", name)}
            for name in ScimToken.objects.order_by("name").values_list("name", flat=True)
        ],
        "upstreams": list(upstreams(secrets)),
        "virtual_mcps": list(virtual_mcps()),
        "client_policy": differing_from_new(ClientPolicy.current(), ClientPolicyEntry),
        "clients": [_client(client, secrets) for client in _own_clients()],
        "trusted_issuers": [
            {"issuer": row.issuer, **differing_from_new(row, TrustedIssuerEntry, skip=("issuer",))}
            for row in TrustedIssuer.objects.order_by("issuer")
        ],
        "service_accounts": list(_service_accounts()),
    }
    document = {part: value for part, value in document.items() if value}
    # What is written must be what can be read.
    msgspec.convert(document, Configuration)
    text = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, encoding=None
    )
    head = _HEAD.format(name=" ".join(SiteProfile.current().name.split()))
    if secrets.places and not name_secrets:
        head += _LEFT_OUT + "".join(f"#   {place}\n" for place in secrets.places)
    return head + text, secrets.variables


def _site() -> Mapping[str, Any]:
    return differing_from_new(SiteProfile.current(), SiteEntry)


def _own_people() -> Iterator[User]:
    """Yield administrators, and the people whom one made: others come back from where they came."""
    by_hand = Q(socialaccount=None, scim_identity=None) | Q(is_staff=True) | Q(is_superuser=True)
    rows = User.objects.filter(by_hand, service_account=None).distinct()
    yield from rows.prefetch_related("groups").order_by("username")


def _user(user: User, secrets: Secrets) -> dict[str, Any]:
    found = differing_from_new(
        user, UserEntry, renamed=_PERSON, skip=("username", "password", "groups")
    )
    if user.is_superuser:
        # An administrator is staff unless the file says otherwise.
        found["staff"] = user.is_staff
    groups = sorted(group.name for group in user.groups.all())
    if groups:
        found["groups"] = groups
    if user.has_usable_password():
        found |= secrets.entry("password", "user", user.username)
    return {"username": user.username, **found}


def _provider(app: SocialApp, secrets: Secrets) -> dict[str, Any]:
    stored: Mapping[str, Any] = app.settings or {}
    own = ("id", "name", "client_id", "client_secret", "group_mapping", "state")
    settings = {
        field: stored[_STORED_SETTINGS.get(field, field)]
        for field in fields_of(IdentityProviderEntry)
        if field not in own and stored.get(_STORED_SETTINGS.get(field, field)) is not None
    }
    found = {"id": app.provider_id, "name": app.name, "client_id": app.client_id, **settings}
    if people_actions.provider_secret(app):
        found |= secrets.entry("client_secret", "identity_provider", app.provider_id)
    mapping: dict[str, list[str]] = {}
    for row in GroupMapping.objects.filter(provider=app).select_related("group"):
        mapping.setdefault(row.claim_value, []).append(row.group.name)
    if mapping:
        found["group_mapping"] = {value: sorted(names) for value, names in sorted(mapping.items())}
    return found


def _own_clients() -> Iterator[OAuthClient]:
    """Yield the clients that an administrator registered, without service accounts."""
    manual = OAuthClient.RegistrationSource.MANUAL
    rows = OAuthClient.objects.filter(registration_source=manual, service_account=None)
    yield from rows.order_by("client_id")


def _client(client: OAuthClient, secrets: Secrets) -> dict[str, Any]:
    found = differing_from_new(client, ClientEntry, skip=("client_id", "redirect_uris", "secret"))
    found["redirect_uris"] = client.redirect_uris.split()
    if client.client_type == client.CLIENT_CONFIDENTIAL:
        found |= secrets.entry("secret", "client", client.client_id)
    return {"client_id": client.client_id, **found}


def _service_accounts() -> Iterator[dict[str, Any]]:
    rows = ServiceAccount.objects.select_related("client").order_by("client__client_id")
    start = resource_of("")
    for row in rows:
        found: dict[str, Any] = {"client_id": row.client.client_id, "name": row.client.name}
        found["virtual_mcps"] = [
            resource.removeprefix(start) for resource in row.resources if resource.startswith(start)
        ]
        if row.client.jwks_uri:
            found["jwks_uri"] = row.client.jwks_uri
        if row.client.jwks is not None:
            found["jwks"] = row.client.jwks
        yield found
