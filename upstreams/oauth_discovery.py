"""Find the authorization server of an upstream (protocol.md e1 to e3 and e17).

    upstream ──401──▶ challenge ──▶ protected resource metadata (RFC 9728)
                                        └▶ authorization server metadata (RFC 8414, OIDC)

Nothing but these documents is fetched, and nothing secret is sent, before the document
passed its checks.
"""

import logging
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from upstreams import http_client
from upstreams.egress_guard import EgressRules, check_url_by, upstream_rules
from upstreams.errors import (
    EgressRefused,
    SetupFailed,
    UpstreamAnswerInvalid,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from upstreams.models import Upstream
from upstreams.oauth_challenge import Challenge, bearer_challenge
from upstreams.revisions import (
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_VERSION,
    MODERN,
    OWN_CLIENT_INFO,
)
from upstreams.server_metadata import (
    MetadataPolicy,
    ServerMetadata,
    check_metadata,
    default_metadata,
    failed,
    host_listed,
    origin_of,
    scope_words,
)

logger = logging.getLogger(__name__)

RESOURCE_STEP: Final = "protected_resource_metadata"
SERVER_STEP: Final = "authorization_server_metadata"
MOST_SERVERS: Final = 4
_RESOURCE_PATH: Final = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True)
class Discovered:
    """Everything a connect needs to know of the other side.

    ``resource`` is what the upstream calls itself (RFC 8707); ``scope`` is what its
    challenge asked for; ``scopes_supported`` what its own metadata lists.
    """

    resource: str
    server: ServerMetadata
    scope: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = ()
    has_resource_metadata: bool = True


def policy_of(upstream: Upstream) -> MetadataPolicy:
    """Return what the administrator allows for this upstream's authorization server."""
    hosts = upstream.oauth_allowed_hosts if isinstance(upstream.oauth_allowed_hosts, list) else []
    return MetadataPolicy(
        allowed_hosts=tuple(str(host) for host in hosts),
        allow_missing_pkce=upstream.oauth_allow_missing_pkce,
    )


async def discover(upstream: Upstream) -> Discovered:
    """Find the upstream's authorization server.

    Raises:
        SetupFailed: names the step; ``transient`` tells whether a later try may succeed.
    """
    rules, policy = upstream_rules(upstream), policy_of(upstream)
    if upstream.oauth_issuer and upstream.oauth_resource:
        # The administrator said both: what the upstream's metadata says does not count.
        server = await server_metadata(upstream.oauth_issuer, rules, policy)
        return Discovered(upstream.oauth_resource, server, has_resource_metadata=False)
    challenge = await read_challenge(upstream, rules)
    return await discover_from(upstream, challenge, rules, policy)


async def discover_from(
    upstream: Upstream, challenge: Challenge | None, rules: EgressRules, policy: MetadataPolicy
) -> Discovered:
    """Do what ``discover`` does after the upstream has been asked."""
    document = await resource_metadata(upstream, challenge, rules, policy)
    scope = scope_words(challenge.parameters.get("scope", "")) if challenge else ()
    if document is None:
        server = await _server_at_origin(upstream, rules, policy, challenged=challenge is not None)
        named = upstream.oauth_resource or canonical(upstream.url)
        return Discovered(named, server, scope, has_resource_metadata=False)
    server = await _first_usable(choose_issuers(document, upstream.oauth_issuer), rules, policy)
    listed = document.get("scopes_supported")
    words = [word for word in listed if isinstance(word, str)] if isinstance(listed, list) else []
    resource = upstream.oauth_resource or document["resource"]
    return Discovered(resource, server, scope, scope_words(" ".join(words)))


def canonical(url: str) -> str:
    """Return an upstream's address as resource identifier: no query, no final slash at the root."""
    parts = urlsplit(url)
    return origin_of(url) + (parts.path if parts.path != "/" else "")


def opening_question() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the question that no server carries out by mistake, and its headers."""
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": {
            "_meta": {
                META_VERSION: MODERN,
                META_CLIENT_INFO: OWN_CLIENT_INFO,
                META_CLIENT_CAPABILITIES: {},
            }
        },
    }
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": "server/discover",
    }
    return request, headers


async def read_challenge(upstream: Upstream, rules: EgressRules) -> Challenge | None:
    """Ask the upstream without a credential and return its challenge.

    None if it does not ask for a credential; a challenge without scheme if it refuses
    without saying how.
    """
    request, headers = opening_question()
    try:
        answer = await http_client.post_json(
            upstream.url, request, rules=rules, headers=headers, head_only=True
        )
    except UpstreamError as error:
        raise _step_failed("address", "The upstream could not be reached.", error) from error
    if answer.status in (401, 403):
        return bearer_challenge(answer.header_values("www-authenticate")) or Challenge("")
    return None


def _step_failed(step: str, message: str, error: UpstreamError) -> SetupFailed:
    passing = isinstance(error, UpstreamUnreachable | UpstreamTimeout) and not isinstance(
        error, EgressRefused
    )
    text = f"{message} {error.message}" if error.message not in message else message
    return SetupFailed(step, text, detail=f"{message} {error.detail}", retryable=passing)


async def resource_metadata(
    upstream: Upstream, challenge: Challenge | None, rules: EgressRules, policy: MetadataPolicy
) -> dict[str, Any] | None:
    """Return the upstream's checked RFC 9728 document; None where it certainly has none.

    The challenge's address comes first, then the well-known path, then the root. A server
    fault is not "none": it must not lead on to the older way.
    """
    named = challenge.parameters.get("resource_metadata", "") if challenge else ""
    if named:
        _check_named(named, upstream, rules, policy)
    origin, path = origin_of(upstream.url), urlsplit(upstream.url).path.rstrip("/")
    candidates = [named, f"{origin}{_RESOURCE_PATH}{path}", f"{origin}{_RESOURCE_PATH}"]
    for url in dict.fromkeys(candidate for candidate in candidates if candidate):
        document = await _document(RESOURCE_STEP, url, rules)
        if document is not None:
            return _checked_resource(document, upstream)
    return None


def _check_named(url: str, upstream: Upstream, rules: EgressRules, policy: MetadataPolicy) -> None:
    """Refuse a metadata address that an upstream must not send us to (#136)."""
    try:
        check_url_by(url, rules)
    except EgressRefused as error:
        raise SetupFailed(
            RESOURCE_STEP,
            "The upstream is misconfigured: it names a metadata address that is not allowed.",
            detail=f"resource_metadata {url[:300]!r}: {error.detail}",
        ) from error
    if origin_of(url) != origin_of(upstream.url) and not host_listed(url, policy.allowed_hosts):
        raise SetupFailed(
            RESOURCE_STEP,
            "The upstream is misconfigured: it keeps its metadata on another host.",
            detail=f"resource_metadata {url[:300]!r} is not on {origin_of(upstream.url)}; if that "
            "is right, add its host to the further hosts of the authorization server.",
        )


async def _document(step: str, url: str, rules: EgressRules) -> dict[str, Any] | None:
    """Fetch a metadata document; None for "not here" (any 4xx)."""
    try:
        answer = await http_client.get(url, rules=rules)
        if answer.status == 200:
            return answer.json_object()
    except UpstreamAnswerInvalid as error:
        raise _step_failed(step, "A metadata document cannot be used.", error) from error
    except UpstreamError as error:
        raise _step_failed(step, "A metadata document could not be fetched.", error) from error
    if 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
        return None
    raise SetupFailed(
        step,
        "A metadata document could not be fetched.",
        detail=f"{url} answered {answer.status}",
        retryable=answer.status >= 500 or answer.status == 429,
    )


def covers(resource: str, url: str) -> bool:
    """Return whether a resource identifier is this address or a parent of it (e2)."""
    try:
        if origin_of(resource) != origin_of(url):
            return False
    except ValueError:
        return False
    ours, theirs = urlsplit(url), urlsplit(resource)
    if theirs.fragment or (theirs.query and theirs.query != ours.query):
        return False
    parent = theirs.path.rstrip("/") + "/"
    return (ours.path.rstrip("/") + "/").startswith(parent)


def _checked_resource(document: dict[str, Any], upstream: Upstream) -> dict[str, Any]:
    """Refuse metadata of another server, unless an administrator entered just that name."""
    resource, url = document.get("resource"), upstream.url
    approved = bool(upstream.oauth_resource) and resource == upstream.oauth_resource
    if not isinstance(resource, str) or not (approved or covers(resource, url)):
        raise SetupFailed(
            RESOURCE_STEP,
            "The upstream's metadata belongs to another server than the one configured.",
            detail=f"resource is {str(resource)[:300]!r}, the address is {url!r}. If that "
            "is right, enter this resource on the upstream's page.",
        )
    return document


async def _first_usable(
    issuers: list[str], rules: EgressRules, policy: MetadataPolicy
) -> ServerMetadata:
    """Return the first server whose document passes every check.

    A server that only does not answer now is not skipped: another one would mean another
    registration and another account.
    """
    refusals: list[SetupFailed] = []
    for issuer in issuers:
        try:
            return await server_metadata(issuer, rules, policy)
        except SetupFailed as refusal:
            if refusal.transient:
                raise
            refusals.append(refusal)
    raise refusals[0]


def choose_issuers(document: dict[str, Any], expected: str) -> list[str]:
    """Return the authorization servers to try: the administrator's, else those listed, in order.

    Raises:
        SetupFailed: none is listed, or not the one the administrator expects (protocol.md 5.10).
    """
    listed = document.get("authorization_servers")
    issuers = (
        [entry for entry in listed if isinstance(entry, str)] if isinstance(listed, list) else []
    )
    if not issuers:
        raise SetupFailed(RESOURCE_STEP, "The upstream's metadata names no authorization server.")
    if not expected:
        return issuers[:MOST_SERVERS]
    if expected in issuers:
        return [expected]
    raise SetupFailed(
        RESOURCE_STEP,
        "The upstream names another authorization server than the one an administrator approved.",
        detail=f"approved is {expected!r}, named are {issuers[:5]!r}. Nobody can connect until "
        "the approved authorization server on the upstream's page is changed.",
    )


def metadata_addresses(issuer: str) -> list[str]:
    """Return where an issuer's document may be, in the order of the specification (e3)."""
    origin, path = origin_of(issuer), urlsplit(issuer).path.rstrip("/")
    if not path:
        return [
            f"{origin}/.well-known/oauth-authorization-server",
            f"{origin}/.well-known/openid-configuration",
        ]
    return [
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    ]


async def server_metadata(
    issuer: str, rules: EgressRules, policy: MetadataPolicy
) -> ServerMetadata:
    """Fetch and check an issuer's document.

    Raises:
        SetupFailed: it is not an allowed address, has no document, or fails a check.
    """
    try:
        check_url_by(issuer, rules)
    except EgressRefused as error:
        raise failed(
            "The upstream names an authorization server that the gateway may not contact.",
            f"{issuer[:300]!r}: {error.detail}",
        ) from error
    if urlsplit(issuer).query:
        raise failed("The authorization server's name must not hold a query.", issuer[:300])
    for url in metadata_addresses(issuer):
        document = await _document(SERVER_STEP, url, rules)
        if document is not None:
            return check_metadata(document, issuer, rules, policy)
    raise failed(
        "The authorization server publishes no metadata document.",
        f"tried {', '.join(metadata_addresses(issuer))}",
    )


async def _server_at_origin(
    upstream: Upstream, rules: EgressRules, policy: MetadataPolicy, *, challenged: bool
) -> ServerMetadata:
    """Do what a server of 2025-03-26 expects: its origin is its authorization server (e17)."""
    if upstream.oauth_issuer:
        return await server_metadata(upstream.oauth_issuer, rules, policy)
    origin = origin_of(upstream.url)
    for url in metadata_addresses(origin):
        document = await _document(SERVER_STEP, url, rules)
        if document is not None:
            # The origin was derived, not named: its spelling with a final slash is the same one.
            issuer = f"{origin}/" if document.get("issuer") == f"{origin}/" else origin
            return check_metadata(document, issuer, rules, policy)
    if not challenged:
        raise SetupFailed(
            RESOURCE_STEP,
            "The upstream asks for no sign-in and publishes nothing about one. An administrator "
            "can choose another kind of credential for it.",
            detail=f"{upstream.url} did not answer 401 and has no OAuth metadata",
        )
    logger.info("%s publishes no OAuth metadata; taking the defaults of 2025-03-26", origin)
    return default_metadata(origin)
