"""Upstreams and Virtual MCPs as entries of ``gateway.yaml``."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway_site import config_names
from gateway_site.config_schema import (
    ChoiceEntry,
    EnterpriseEntry,
    UpstreamEntry,
    UpstreamOAuthEntry,
    VirtualMcpEntry,
)
from gateway_site.config_values import Secrets, differing_from_new
from upstreams.models import Upstream
from virtualmcp.models import UpstreamChoice, VirtualMcp

_UPSTREAM: Final = {
    "credential": "credential_kind",
    "placement": "credential_placement",
    "name": "credential_name",
    "prefix": "credential_prefix",
    "key_help": "user_key_help",
}
_OAUTH: Final = {"authorize_parameters": "extra_authorize_parameters"}
_VIRTUAL_MCP: Final = {"new_tools": "new_definitions", "changed_tools": "changed_definitions"}
_CHOICE: Final = {"sampling": "may_sample", "roots": "may_list_roots"}


def upstreams(secrets: Secrets) -> Iterator[dict[str, Any]]:
    """Yield every upstream by its key."""
    for row in Upstream.objects.order_by("key"):
        apart = ("key", "preset", "secret", "headers", "oauth", "enterprise")
        found = {
            "key": row.key,
            **differing_from_new(row, UpstreamEntry, renamed=_UPSTREAM, skip=apart),
        }
        if row.sealed_fixed_credential:
            found |= secrets.entry("secret", "upstream", row.key)
        found |= _headers(row, secrets)
        oauth = differing_from_new(
            row, UpstreamOAuthEntry, renamed=_OAUTH, prefix="oauth_", skip=("client_secret",)
        )
        if row.sealed_oauth_client_secret:
            oauth |= secrets.entry("client_secret", "upstream", f"{row.key} oauth")
        company = differing_from_new(
            row, EnterpriseEntry, prefix="enterprise_", skip=("client_secret",)
        )
        if row.sealed_enterprise_client_secret:
            company |= secrets.entry("client_secret", "upstream", f"{row.key} enterprise")
        found |= {"oauth": oauth} if oauth else {}
        found |= {"enterprise": company} if company else {}
        yield found


def _headers(row: Upstream, secrets: Secrets) -> dict[str, Any]:
    """Return the further headers, all or none of which the file names."""
    named: dict[str, str] = {}
    for name in row.further_header_names:
        named |= secrets.entry(name, "upstream", f"{row.key} header")
    return {"headers": named} if named else {}


def virtual_mcps() -> Iterator[dict[str, Any]]:
    """Yield every Virtual MCP by its slug, with its upstreams in their order."""
    for row in VirtualMcp.objects.order_by("slug"):
        apart = ("slug", "groups", "upstreams", "access", "names")
        found = {
            "slug": row.slug,
            **differing_from_new(row, VirtualMcpEntry, renamed=_VIRTUAL_MCP, skip=apart),
        }
        groups = sorted(row.groups.values_list("name", flat=True))
        choices = row.choices.select_related("upstream").order_by("position", "pk")
        rules = row.rules.select_related("upstream").prefetch_related("groups")
        parts = {
            "groups": groups,
            "upstreams": [_choice(choice) for choice in choices],
            "access": [
                {
                    "upstream": rule.upstream.key,
                    **({"tools": list(rule.tools)} if rule.tools else {}),
                    "groups": sorted(group.name for group in rule.groups.all()),
                }
                for rule in rules
            ],
            "names": config_names.exported(row),
        }
        yield {**found, **{name: value for name, value in parts.items() if value}}


def _choice(row: UpstreamChoice) -> dict[str, Any] | str:
    chosen = row.tool_mode == UpstreamChoice.ToolMode.CHOSEN
    found: dict[str, Any] = {"upstream": row.upstream.key}
    for field in msgspec.structs.fields(ChoiceEntry):
        if field.name in ("upstream", "tools"):
            continue
        value = getattr(row, _CHOICE.get(field.name, field.name))
        # Lists are those that are empty unless somebody filled them.
        if value != (field.default if isinstance(value, bool) else []):
            found[field.name] = value
    if chosen:
        found["tools"] = row.chosen_tools
    return found if len(found) > 1 else row.upstream.key
