"""Applies the parts of ``gateway.yaml`` that are about servers: upstreams and Virtual MCPs."""

import contextlib
from typing import Any

from django.contrib.auth.models import Group
from django.db.models import ProtectedError

from gateway_site.config_changes import Applying, differing, named, said
from gateway_site.config_file import ConfigurationRefused
from gateway_site.config_names import apply_names
from gateway_site.config_schema import (
    AccessEntry,
    ChoiceEntry,
    EnterpriseEntry,
    State,
    UpstreamEntry,
    UpstreamOAuthEntry,
    VirtualMcpEntry,
)
from upstreams import actions as upstream_actions
from upstreams import sealed_secrets
from upstreams.models import Upstream
from upstreams.preset_catalogue import presets
from upstreams.token_vault import VaultError
from virtualmcp import actions as virtual_mcp_actions
from virtualmcp.access_rules import Rule, present_rules
from virtualmcp.actions import Choice
from virtualmcp.models import VirtualMcp


def apply_upstream(entry: UpstreamEntry, path: str, applying: Applying) -> None:
    """Make, change or remove an upstream, with its credential."""
    upstream = Upstream.objects.filter(key=entry.key).first()
    if entry.state is State.ABSENT:
        _remove_upstream(upstream, path, applying)
        applying.note("upstream", entry.key, "removed" if upstream else "unchanged")
        return
    wanted = {**_preset_fields(entry, path), **_upstream_fields(entry)}
    created = upstream is None
    with named(path):
        if upstream is None:
            changed = wanted
            upstream = upstream_actions.create_upstream(
                {"title": entry.key, **wanted, "key": entry.key}, applying.actor
            )
        else:
            changed = differing(upstream, wanted)
            if changed:
                upstream = upstream_actions.update_upstream(upstream, changed, applying.actor)
        secrets = _apply_secrets(upstream, entry, path, applying)
    what = "created" if created else "changed" if changed or secrets else "unchanged"
    applying.note("upstream", entry.key, what, {**changed, **dict.fromkeys(secrets)})


def _remove_upstream(upstream: Upstream | None, path: str, applying: Applying) -> None:
    if upstream is None:
        return
    try:
        upstream_actions.delete_upstream(upstream, applying.actor)
    except ProtectedError as failure:
        users = ", ".join(
            VirtualMcp.objects.filter(choices__upstream=upstream).values_list("slug", flat=True)
        )
        text = f"It is still used by the Virtual MCPs {users}. Take it out of them first."
        raise ConfigurationRefused([(path, text)]) from failure


def _preset_fields(entry: UpstreamEntry, path: str) -> dict[str, Any]:
    if entry.preset is None:
        return {}
    preset = presets().get(entry.preset)
    if preset is None:
        text = f"There is no preset {entry.preset}. There are: {', '.join(sorted(presets()))}."
        raise ConfigurationRefused([(f"{path}.preset", text)])
    return {name: value for name, value in preset.fields().items() if name != "key"}


def _upstream_fields(entry: UpstreamEntry) -> dict[str, Any]:
    oauth = entry.oauth or UpstreamOAuthEntry()
    company = entry.enterprise or EnterpriseEntry()
    scopes = oauth.scopes
    return said(
        title=entry.title,
        description=entry.description,
        url=entry.url,
        enabled=entry.enabled,
        era=entry.era,
        session_scope=entry.session_scope,
        credential_kind=entry.credential,
        credential_placement=entry.placement,
        credential_name=entry.name,
        credential_prefix=entry.prefix,
        user_key_help=entry.key_help,
        oauth_issuer=oauth.issuer,
        oauth_client_id=oauth.client_id,
        oauth_scopes=" ".join(scopes) if isinstance(scopes, list) else scopes,
        oauth_auth_method=oauth.auth_method,
        oauth_scope_delimiter=oauth.scope_delimiter,
        oauth_resource=oauth.resource,
        oauth_send_resource=oauth.send_resource,
        oauth_extra_authorize_parameters=oauth.authorize_parameters,
        oauth_allowed_hosts=oauth.allowed_hosts,
        oauth_allow_missing_pkce=oauth.allow_missing_pkce,
        enterprise_token_url=company.token_url,
        enterprise_provider=company.provider,
        enterprise_client_id=company.client_id,
        enterprise_auth_method=company.auth_method,
        enterprise_subject_token=company.subject_token,
        enterprise_audience=company.audience,
        enterprise_audience_parameter=company.audience_parameter,
        enterprise_resource_parameter=company.resource_parameter,
        private_network=entry.private_network,
        call_timeout=entry.call_timeout,
        list_timeout=entry.list_timeout,
        max_in_flight=entry.max_in_flight,
        max_answer_mib=entry.max_answer_mib,
        sampling_per_minute=entry.sampling_per_minute,
        sampling_tokens_per_day=entry.sampling_tokens_per_day,
    )


def _apply_secrets(
    upstream: Upstream, entry: UpstreamEntry, path: str, applying: Applying
) -> list[str]:
    """Set the secrets that differ from the stored ones; return their names."""
    changed = []
    if entry.secret is not None:
        value = applying.secret(f"{path}.secret", entry.secret)
        if value != _opened(upstream.sealed_fixed_credential, sealed_secrets.open_fixed, upstream):
            upstream_actions.set_fixed_credential(upstream, value, applying.actor)
            changed.append("secret")
    if entry.oauth is not None and entry.oauth.client_secret is not None:
        value = applying.secret(f"{path}.oauth.client_secret", entry.oauth.client_secret)
        sealed = upstream.sealed_oauth_client_secret
        if value != _opened(sealed, sealed_secrets.open_configured_secret, upstream):
            upstream_actions.set_oauth_client_secret(upstream, value, applying.actor)
            changed.append("oauth.client_secret")
    changed += _apply_headers(upstream, entry, path, applying)
    if entry.enterprise is not None and entry.enterprise.client_secret is not None:
        reference = entry.enterprise.client_secret
        value = applying.secret(f"{path}.enterprise.client_secret", reference)
        sealed = upstream.sealed_enterprise_client_secret
        if value != _opened(sealed, sealed_secrets.open_enterprise_secret, upstream):
            upstream_actions.set_enterprise_secret(upstream, value, applying.actor)
            changed.append("enterprise.client_secret")
    return changed


def _apply_headers(
    upstream: Upstream, entry: UpstreamEntry, path: str, applying: Applying
) -> list[str]:
    if entry.headers is None:
        return []
    wanted = {
        name: applying.secret(f"{path}.headers.{name}", reference)
        for name, reference in entry.headers.items()
    }
    stored: dict[str, str] = {}
    if upstream.sealed_further_headers:
        with contextlib.suppress(VaultError):
            stored = sealed_secrets.open_further_headers(upstream)
    if wanted == stored:
        return []
    upstream_actions.set_further_headers(upstream, wanted, applying.actor)
    return ["headers"]


def _opened(sealed: str, opener: Any, upstream: Upstream) -> str | None:
    """Return the stored secret, None if there is none that still opens."""
    if not sealed:
        return None
    try:
        return str(opener(upstream))
    except VaultError:
        return None


def apply_virtual_mcp(entry: VirtualMcpEntry, path: str, applying: Applying) -> None:
    """Make, change or remove a Virtual MCP with its upstreams and groups."""
    server = VirtualMcp.objects.filter(slug=entry.slug).first()
    if entry.state is State.ABSENT:
        if server is not None:
            virtual_mcp_actions.delete_virtual_mcp(server, actor=applying.actor)
        applying.note("virtual mcp", entry.slug, "removed" if server else "unchanged")
        return
    wanted = said(
        title=entry.title,
        description=entry.description,
        instructions=entry.instructions,
        enabled=entry.enabled,
        audience=entry.audience,
        new_definitions=entry.new_tools,
        changed_definitions=entry.changed_tools,
        step_up=entry.step_up,
        ask_again=entry.ask_again,
        app_domains=entry.app_domains,
        naming=entry.naming,
        argument_uris=entry.argument_uris,
    )
    groups = None if entry.groups is None else _groups(entry.groups, f"{path}.groups")
    choices = None if entry.upstreams is None else _choices(entry.upstreams, f"{path}.upstreams")
    rules = None if entry.access is None else _rules(entry.access, f"{path}.access")
    names = (entry.names or (), f"{path}.names", applying, _upstream)
    with named(path):
        if server is None:
            server = virtual_mcp_actions.create_virtual_mcp(
                {"title": entry.slug, **wanted, "slug": entry.slug},
                groups=groups or (),
                choices=choices or (),
                rules=rules or (),
                actor=applying.actor,
            )
            apply_names(server, *names)
            applying.note("virtual mcp", entry.slug, "created")
            return
        changed = differing(server, wanted)
        if groups is not None and set(groups) != set(server.groups.all()):
            changed["groups"] = None
        if choices is not None and choices != _present_choices(server):
            changed["upstreams"] = None
        if rules is not None and rules != present_rules(server):
            changed["access"] = None
        if changed:
            virtual_mcp_actions.update_virtual_mcp(
                server,
                wanted,
                groups=groups,
                choices=choices,
                rules=rules,
                actor=applying.actor,
            )
    if apply_names(server, *names):
        changed["names"] = None
    applying.note("virtual mcp", entry.slug, "changed" if changed else "unchanged", changed)


def _present_choices(server: VirtualMcp) -> list[Choice]:
    return [
        Choice(
            row.upstream,
            row.required,
            row.chosen_tools if row.tool_mode == "chosen" else None,
            sampling=row.may_sample,
            roots=row.may_list_roots,
            read_tools=row.read_tools,
            write_tools=row.write_tools,
            rerun_tools=row.rerun_tools,
        )
        for row in server.choices.select_related("upstream").order_by("position", "pk")
    ]


def _groups(names: list[str], path: str) -> list[Group]:
    found = {group.name: group for group in Group.objects.filter(name__in=names)}
    for name in names:
        if name not in found:
            text = f"There is no group {name}. Name it under groups."
            raise ConfigurationRefused([(path, text)])
    return [found[name] for name in names]


def _rules(entries: list[AccessEntry], path: str) -> list[Rule]:
    found = []
    for position, entry in enumerate(entries):
        upstream = _upstream(entry.upstream, f"{path}[{position}]")
        groups = _groups(entry.groups, f"{path}[{position}].groups")
        found.append(Rule(upstream, tuple(dict.fromkeys(entry.tools)), frozenset(groups)))
    return found


def _upstream(key: str, path: str) -> Upstream:
    upstream = Upstream.objects.filter(key=key).first()
    if upstream is None:
        raise ConfigurationRefused(
            [(path, f"There is no upstream {key}. Name it under upstreams.")]
        )
    return upstream


def _choices(entries: list[ChoiceEntry | str], path: str) -> list[Choice]:
    found = []
    for position, given in enumerate(entries):
        entry = ChoiceEntry(upstream=given) if isinstance(given, str) else given
        upstream = _upstream(entry.upstream, f"{path}[{position}]")
        found.append(
            Choice(
                upstream,
                entry.required,
                entry.tools,
                sampling=entry.sampling,
                roots=entry.roots,
                read_tools=entry.read_tools,
                write_tools=entry.write_tools,
                rerun_tools=entry.rerun_tools,
            )
        )
    return found
