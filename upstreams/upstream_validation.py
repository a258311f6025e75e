"""What an upstream's configuration must satisfy before it is stored (pure but for settings, and for
asking which identity providers there are).

The same rules hold in the admin, in the configuration file and in the REST interface.
"""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError

from upstreams import enterprise_identity, header_values
from upstreams.egress_guard import check_url, check_url_by, parse_networks, upstream_rules
from upstreams.errors import EgressRefused, SetupFailed
from upstreams.models import CredentialKind, CredentialPlacement, Upstream

MAX_EXTRA: Final = 20
MAX_HOSTS: Final = 20
# /connect/callback is where authorization servers send people back to.
RESERVED_KEYS: Final = frozenset({"callback"})


_PARAMETER: Final = re.compile(r"[a-z][a-z0-9_.-]{0,39}\Z")
_TAKEN_PARAMETERS: Final = frozenset(
    {
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "grant_type",
        "requested_token_type",
        "scope",
        "subject_token",
        "subject_token_type",
    }
)


def check_upstream(upstream: Upstream) -> None:
    """Check a row, saved or not.

    Raises:
        ValidationError: with one message for each field that has to be mended.
    """
    problems: dict[str, list[str]] = {}
    try:
        upstream.full_clean()
    except ValidationError as error:
        problems = {name: list(texts) for name, texts in error.message_dict.items()}
    for name, check in _CHECKS.items():
        if name in problems:
            continue
        try:
            check(upstream)
        except (EgressRefused, SetupFailed) as error:
            problems[name] = [error.detail]
        except ValueError as error:
            problems[name] = [str(error)]
    if problems:
        raise ValidationError(problems)


def _check_key(upstream: Upstream) -> None:
    if upstream.key in RESERVED_KEYS:
        raise ValueError("This key is taken by the gateway itself.")


def _check_address(upstream: Upstream) -> None:
    try:
        check_url(upstream.url, private_network=upstream.private_network)
    except EgressRefused as refused:
        said = refused.detail[:1].upper() + refused.detail[1:].rstrip(".")
        raise ValueError(
            f"{said}. Give the whole address, such as https://mcp.example.com/mcp; for a server in "
            "your own network, name that network under Network and protocol."
        ) from refused


def _check_networks(upstream: Upstream) -> None:
    try:
        networks = parse_networks(upstream.private_network)
    except ValueError as error:
        raise ValueError(f"Give networks such as 10.1.0.0/16, comma separated: {error}.") from error
    for network in networks:
        if network.prefixlen == 0:
            raise ValueError("Name the networks you need, not the whole internet.")


def _check_name(upstream: Upstream) -> None:
    if upstream.credential_kind not in (CredentialKind.FIXED, CredentialKind.USER_KEY):
        return
    if upstream.credential_placement == CredentialPlacement.QUERY:
        header_values.checked_query_name(upstream.credential_name)
    else:
        header_values.checked_header_name(upstream.credential_name)


def _check_prefix(upstream: Upstream) -> None:
    header_values.checked_prefix(upstream.credential_prefix)


def _check_issuer(upstream: Upstream) -> None:
    if upstream.oauth_issuer:
        check_url_by(upstream.oauth_issuer, upstream_rules(upstream))


def _check_resource(upstream: Upstream) -> None:
    parts = urlsplit(upstream.oauth_resource)
    if upstream.oauth_resource and (not parts.scheme or parts.fragment):
        raise ValueError("Give an absolute URI without a fragment (RFC 8707).")


def _check_auth_method(upstream: Upstream) -> None:
    if upstream.oauth_auth_method.startswith("client_secret") and not upstream.oauth_client_id:
        raise ValueError("A client secret needs a client id. Enter the one it belongs to.")


def _check_enterprise(upstream: Upstream) -> None:
    if upstream.credential_kind != CredentialKind.ENTERPRISE:
        return
    if not upstream.enterprise_token_url:
        raise ValueError("Enter the token address of your company's identity provider.")
    check_url_by(upstream.enterprise_token_url, upstream_rules(upstream))


def _check_enterprise_provider(upstream: Upstream) -> None:
    if upstream.credential_kind != CredentialKind.ENTERPRISE:
        return
    choice = enterprise_identity.providers_to_choose_from(upstream.enterprise_provider)
    if choice:
        raise ValueError(
            "Several identity providers are set up. Enter the id of the one that the token address "
            f"belongs to: {', '.join(choice)}."
        )


def _check_enterprise_client(upstream: Upstream) -> None:
    if upstream.credential_kind == CredentialKind.ENTERPRISE and not upstream.enterprise_client_id:
        raise ValueError("Enter the client id of the gateway at the identity provider.")


def _parameter_name(value: str) -> None:
    if value and (not _PARAMETER.match(value) or value in _TAKEN_PARAMETERS):
        raise ValueError("Give the name of a form parameter, such as audience; empty sends none.")


def _check_extra(upstream: Upstream) -> None:
    extra: Any = upstream.oauth_extra_authorize_parameters
    if not isinstance(extra, dict) or len(extra) > MAX_EXTRA:
        raise ValueError('Give a JSON object of texts, such as {"prompt": "consent"}.')
    if not all(isinstance(value, str) and len(value) <= 500 for value in extra.values()):
        raise ValueError("Every value must be a text of at most 500 characters.")


def _check_hosts(upstream: Upstream) -> None:
    hosts: Any = upstream.oauth_allowed_hosts
    if not isinstance(hosts, list) or len(hosts) > MAX_HOSTS:
        raise ValueError('Give a JSON list of host names, such as ["oauth2.example.com"].')
    for host in hosts:
        if not isinstance(host, str) or not host or "/" in host:
            raise ValueError(f"{host!r} is not a host name.")


def _check_timeouts(upstream: Upstream) -> None:
    if not 1 <= upstream.call_timeout <= 600:
        raise ValueError("Give 1 to 600 seconds.")


def _check_list_timeout(upstream: Upstream) -> None:
    if not 1 <= upstream.list_timeout <= 30:
        raise ValueError("Give 1 to 30 seconds.")


def _check_in_flight(upstream: Upstream) -> None:
    if not 1 <= upstream.max_in_flight <= 10_000:
        raise ValueError("Give 1 to 10000 calls.")


def _check_answer(upstream: Upstream) -> None:
    if not 1 <= upstream.max_answer_mib <= 256:
        raise ValueError("Give 1 to 256 MiB.")


def _check_sampling_rate(upstream: Upstream) -> None:
    if upstream.sampling_per_minute is not None and not 1 <= upstream.sampling_per_minute <= 10_000:
        raise ValueError("Give 1 to 10000 questions, or nothing for the usual number.")


def _check_sampling_tokens(upstream: Upstream) -> None:
    tokens = upstream.sampling_tokens_per_day
    if tokens is not None and not 1 <= tokens <= 2_000_000_000:
        raise ValueError("Give 1 to 2000000000 tokens, or nothing for the usual number.")


_CHECKS: Final[dict[str, Callable[[Upstream], None]]] = {
    "key": _check_key,
    "private_network": _check_networks,
    "url": _check_address,
    "credential_name": _check_name,
    "credential_prefix": _check_prefix,
    "oauth_issuer": _check_issuer,
    "oauth_resource": _check_resource,
    "oauth_auth_method": _check_auth_method,
    "enterprise_token_url": _check_enterprise,
    "enterprise_provider": _check_enterprise_provider,
    "enterprise_client_id": _check_enterprise_client,
    "enterprise_audience_parameter": lambda row: _parameter_name(row.enterprise_audience_parameter),
    "enterprise_resource_parameter": lambda row: _parameter_name(row.enterprise_resource_parameter),
    "oauth_extra_authorize_parameters": _check_extra,
    "oauth_allowed_hosts": _check_hosts,
    "call_timeout": _check_timeouts,
    "list_timeout": _check_list_timeout,
    "max_in_flight": _check_in_flight,
    "max_answer_mib": _check_answer,
    "sampling_per_minute": _check_sampling_rate,
    "sampling_tokens_per_day": _check_sampling_tokens,
}
