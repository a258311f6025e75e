"""What ``gateway.yaml`` may say, as types; anything else is refused with its path.

Everything but names and addresses is optional. Whatever is secret is a reference
(``env:NAME`` or ``file:path``), never the secret itself. An object that the file does not
name is left as it is; ``state: absent`` removes one.
"""

from enum import StrEnum
from typing import Literal

import msgspec


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One object of the file."""


class State(StrEnum):
    """Whether an object is to exist."""

    PRESENT = "present"
    ABSENT = "absent"


class SiteEntry(Entry):
    """The site's own settings."""

    name: str | None = None
    support_contact: str | None = None
    openai_apps_challenge: str | None = None
    require_second_factor: bool | None = None


class GroupEntry(Entry):
    """A group; a bare name is enough."""

    name: str
    state: State = State.PRESENT


class UserEntry(Entry):
    """A person. Without ``password`` a new account can only sign in by an identity provider."""

    username: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    password: str | None = None
    groups: list[str] | None = None
    staff: bool | None = None
    administrator: bool | None = None
    active: bool | None = None
    state: State = State.PRESENT


class IdentityProviderEntry(Entry):
    """An OpenID Connect provider; ``id`` is part of its callback address.

    ``server_url`` is the issuer, or what the preset asks for. ``group_mapping`` leads from the
    provider's names to the gateway's groups.
    """

    id: str
    preset: str | None = None
    name: str | None = None
    server_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    only_known_people: bool | None = None
    trust_addresses: bool | None = None
    scopes: list[str] | None = None
    groups_claim: str | None = None
    groups_by_name: bool | None = None
    group_mapping: dict[str, list[str] | str] | None = None
    allowed_domains: list[str] | None = None
    allowed_groups: list[str] | None = None
    sign_in_domains: list[str] | None = None
    sign_out_there: bool | None = None
    sign_out_ends_access: bool | None = None
    recheck_minutes: int | None = None
    sign_in_days: int | None = None
    staff_groups: list[str] | None = None
    administrator_groups: list[str] | None = None
    state: State = State.PRESENT


class ScimTokenEntry(Entry):
    """A token of a directory that provisions people; ``secret`` has at least 32 characters."""

    name: str
    secret: str | None = None
    state: State = State.PRESENT


class UpstreamOAuthEntry(Entry):
    """How the gateway behaves as OAuth client of one upstream."""

    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    auth_method: (
        Literal["", "none", "client_secret_basic", "client_secret_post", "private_key_jwt"] | None
    ) = None
    scopes: list[str] | str | None = None
    scope_delimiter: Literal["space", "comma"] | None = None
    resource: str | None = None
    send_resource: bool | None = None
    authorize_parameters: dict[str, str] | None = None
    allowed_hosts: list[str] | None = None
    allow_missing_pkce: bool | None = None


class EnterpriseEntry(Entry):
    """How the company's identity provider vouches for people at one upstream (ID-JAG)."""

    token_url: str | None = None
    provider: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    auth_method: (
        Literal["", "none", "client_secret_basic", "client_secret_post", "private_key_jwt"] | None
    ) = None
    subject_token: Literal["id_token", "refresh_token", "access_token"] | None = None
    audience: str | None = None
    audience_parameter: str | None = None
    resource_parameter: str | None = None


class UpstreamEntry(Entry):
    """An upstream MCP server; ``secret`` is the one credential of the kind ``fixed``.

    ``preset`` names a well-known server; what the entry does not say is taken from it.
    """

    key: str
    preset: str | None = None
    title: str | None = None
    description: str | None = None
    url: str | None = None
    enabled: bool | None = None
    era: Literal["auto", "modern", "legacy"] | None = None
    session_scope: Literal["person", "client", "call"] | None = None
    credential: (
        Literal["none", "fixed", "user_key", "user_oauth", "shared_oauth", "enterprise"] | None
    ) = None
    placement: Literal["header", "query"] | None = None
    name: str | None = None
    prefix: str | None = None
    secret: str | None = None
    key_help: str | None = None
    headers: dict[str, str] | None = None
    oauth: UpstreamOAuthEntry | None = None
    enterprise: EnterpriseEntry | None = None
    private_network: str | None = None
    call_timeout: int | None = None
    list_timeout: int | None = None
    max_in_flight: int | None = None
    max_answer_mib: int | None = None
    sampling_per_minute: int | None = None
    sampling_tokens_per_day: int | None = None
    state: State = State.PRESENT


class ChoiceEntry(Entry):
    """One upstream of a Virtual MCP; no ``tools`` means all of them.

    ``sampling`` and ``roots`` let it ask clients for these also beside other upstreams.
    ``read_tools`` and ``write_tools`` say for step-up what upstreams do not, or say wrongly;
    ``rerun_tools`` may be run again when a call of theirs is lost.
    """

    upstream: str
    required: bool = True
    tools: list[str] | None = None
    sampling: bool = False
    roots: bool = False
    read_tools: list[str] = []
    write_tools: list[str] = []
    rerun_tools: list[str] = []


class AccessEntry(Entry):
    """Only ``groups`` may use these tools of an upstream; without ``tools`` all of it."""

    upstream: str
    groups: list[str]
    tools: list[str] = []


class NameEntry(Entry):
    """A public name given by hand to a tool or a prompt, which is named as its upstream does."""

    upstream: str
    name: str
    tool: str | None = None
    prompt: str | None = None


class VirtualMcpEntry(Entry):
    """A Virtual MCP; ``upstreams`` in the order people see them.

    Names that ``names`` does not mention stay what they are.
    """

    slug: str
    title: str | None = None
    description: str | None = None
    instructions: str | None = None
    enabled: bool | None = None
    audience: Literal["everyone", "groups"] | None = None
    groups: list[str] | None = None
    new_tools: Literal["trust", "hold"] | None = None
    changed_tools: Literal["alert", "hold"] | None = None
    upstreams: list[ChoiceEntry | str] | None = None
    access: list[AccessEntry] | None = None
    step_up: bool | None = None
    ask_again: Literal["never", "grown", "tools"] | None = None
    app_domains: Literal["drop", "recompute"] | None = None
    naming: Literal["bare", "prefixed"] | None = None
    argument_uris: Literal["keep", "undo"] | None = None
    names: list[NameEntry] | None = None
    state: State = State.PRESENT


class ClientEntry(Entry):
    """A pre-registered OAuth client; with a ``secret`` it is confidential."""

    client_id: str
    name: str | None = None
    redirect_uris: list[str] | None = None
    secret: str | None = None
    enabled: bool | None = None
    state: State = State.PRESENT


ClientRule = Literal["open", "hosts", "approval", "off"]


class ClientPolicyEntry(Entry):
    """Which clients may come by themselves."""

    documents: ClientRule | None = None
    registration: ClientRule | None = None
    allowed_hosts: list[str] | None = None
    advice: str | None = None
    forget_after_days: int | None = None
    machine_access: bool | None = None


class TrustedIssuerEntry(Entry):
    """An identity provider whose identity assertions (ID-JAG) are accepted."""

    issuer: str
    provider: str | None = None
    jwks_uri: str | None = None
    jwks: dict[str, list[dict[str, str]]] | None = None
    enabled: bool | None = None
    person_claim: str | None = None
    tenant_claim: str | None = None
    sign_in_claim: str | None = None
    sign_in_tenant_claim: str | None = None
    domains: list[str] | None = None
    state: State = State.PRESENT


class ServiceAccountEntry(Entry):
    """A program without a person; ``virtual_mcps`` are slugs, keys are public ones."""

    client_id: str
    name: str | None = None
    virtual_mcps: list[str] | None = None
    jwks_uri: str | None = None
    jwks: dict[str, list[dict[str, str]]] | None = None
    state: State = State.PRESENT


class Configuration(Entry):
    """The whole file."""

    version: Literal[1] = 1
    site: SiteEntry | None = None
    groups: list[GroupEntry | str] = []
    users: list[UserEntry] = []
    identity_providers: list[IdentityProviderEntry] = []
    scim_tokens: list[ScimTokenEntry] = []
    upstreams: list[UpstreamEntry] = []
    virtual_mcps: list[VirtualMcpEntry] = []
    client_policy: ClientPolicyEntry | None = None
    clients: list[ClientEntry] = []
    trusted_issuers: list[TrustedIssuerEntry] = []
    service_accounts: list[ServiceAccountEntry] = []
