"""Requests to an authorization server's token and revocation endpoints."""

import logging
from dataclasses import dataclass, field
from typing import Final

from upstreams import http_client, token_replies
from upstreams.client_authentication import ClientCredential, authenticate
from upstreams.database_calls import in_thread
from upstreams.egress_guard import EgressRules
from upstreams.errors import (
    EgressRefused,
    SetupFailed,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from upstreams.fetched_answer import FetchedAnswer
from upstreams.server_metadata import ServerMetadata
from upstreams.token_replies import TokenReply

logger = logging.getLogger(__name__)

STEP: Final = "token"
# RFC 6749 5.2: these say that this grant will never work again.
DEAD_GRANT: Final = frozenset(
    {"invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}
)
UNKNOWN_CLIENT: Final = frozenset({"invalid_client"})
# Nobody sees a page while a sign-in is renewed, and a server's answer that is not waited
# for may hold the only refresh token that still works.
REFRESH_SECONDS: Final = 25.0
CODE_SECONDS: Final = 15.0
LONGEST_RETRY_AFTER: Final = 300.0


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """Where to ask and as whom."""

    server: ServerMetadata
    client: ClientCredential
    rules: EgressRules


class TokenRefused(SetupFailed):
    """The authorization server said no; ``error`` is its code (RFC 6749 5.2)."""

    def __init__(self, error: str, *, detail: str = "") -> None:
        super().__init__(STEP, "The authorization server refused the request.", detail=detail)
        self.error = error


async def exchange_code(
    endpoint: TokenEndpoint, *, code: str, verifier: str, redirect_uri: str, resource: str
) -> TokenReply:
    """Redeem an authorization code (RFC 6749 4.1.3, RFC 7636 4.5, RFC 8707).

    Raises:
        SetupFailed: step ``token``.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    return await _ask(endpoint, form, resource, CODE_SECONDS)


async def refresh(endpoint: TokenEndpoint, *, refresh_token: str, resource: str) -> TokenReply:
    """Redeem a refresh token (RFC 6749 6).

    Raises:
        TokenRefused: the server answered with an OAuth error.
        SetupFailed: anything else; ``transient`` tells whether to try again later.
    """
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return await _ask(endpoint, form, resource, REFRESH_SECONDS)


ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
_TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Assertion:
    """What an identity provider signed about a person, for one authorization server."""

    value: str = field(repr=False)


async def exchange_for_assertion(
    url: str, client: ClientCredential, form: dict[str, str], rules: EgressRules
) -> str:
    """Exchange a token of a sign-in for an ID-JAG (RFC 8693 2.1).

    Raises:
        TokenRefused, SetupFailed: as for ``refresh``.
    """
    proof, headers = await in_thread(authenticate, client, url)
    answer = await _post(
        url, {"grant_type": _TOKEN_EXCHANGE, **form, **proof}, rules, headers, CODE_SECONDS
    )
    return token_replies.read_assertion(answer, ID_JAG)


async def redeem_assertion(
    endpoint: TokenEndpoint, assertion: Assertion, *, scope: str, resource: str
) -> TokenReply:
    """Redeem an ID-JAG at the upstream's server (RFC 7523 2.1).

    Raises:
        TokenRefused, SetupFailed: as for ``refresh``.
    """
    form = {"grant_type": _JWT_BEARER, "assertion": assertion.value}
    if scope:
        form["scope"] = scope
    return await _ask(endpoint, form, resource, CODE_SECONDS)


async def _ask(
    endpoint: TokenEndpoint, form: dict[str, str], resource: str, seconds: float
) -> TokenReply:
    proof, headers = await in_thread(authenticate, endpoint.client, endpoint.server.issuer)
    if resource:
        form = {**form, "resource": resource}
    answer = await _post(
        endpoint.server.token_endpoint, {**form, **proof}, endpoint.rules, headers, seconds
    )
    return token_replies.read_reply(answer)


async def _post(
    url: str, form: dict[str, str], rules: EgressRules, headers: dict[str, str], seconds: float
) -> FetchedAnswer:
    """Send the form and return a successful answer."""
    try:
        answer = await http_client.post_form(
            url, form, rules=rules, headers=headers, total_seconds=seconds
        )
    except UpstreamError as error:
        passing = isinstance(error, UpstreamUnreachable | UpstreamTimeout) and not isinstance(
            error, EgressRefused
        )
        raise SetupFailed(
            STEP,
            "The authorization server could not be asked for a token.",
            detail=error.detail,
            retryable=passing,
        ) from error
    if answer.status == 200:
        return answer
    code = token_replies.error_code(answer)
    if 400 <= answer.status < 500 and answer.status not in (408, 425, 429) and code:
        raise TokenRefused(code, detail=f"{url} answered {answer.status} {code!r}")
    raise SetupFailed(
        STEP,
        "The authorization server is temporarily unable to give a token.",
        detail=f"{url} answered {answer.status} {code!r}",
        retryable=True,
        retry_after=_retry_after(answer),
    )


def _retry_after(answer: FetchedAnswer) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110 10.2.3), at most five minutes."""
    value = answer.header("retry-after").strip()
    return min(float(value), LONGEST_RETRY_AFTER) if value.isascii() and value.isdigit() else None


async def revoke(endpoint: TokenEndpoint, token: str, hint: str) -> bool:
    """Ask the server to forget a token (RFC 7009), best effort; returns whether it agreed."""
    url = endpoint.server.revocation_endpoint
    if not url or not token:
        return False
    proof, headers = await in_thread(authenticate, endpoint.client, endpoint.server.issuer)
    try:
        answer = await http_client.post_form(
            url,
            {"token": token, "token_type_hint": hint, **proof},
            rules=endpoint.rules,
            headers=headers,
        )
    except UpstreamError as error:
        logger.warning("a token at %s could not be revoked: %s", endpoint.server.issuer, error.code)
        return False
    return answer.status == 200
