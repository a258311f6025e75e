"""Requests to an authorization server's token and revocation endpoints."""

import logging
from dataclasses import dataclass
from typing import Final

from upstreams import http_client, token_replies
from upstreams.client_authentication import ClientCredential, authenticate
from upstreams.egress_guard import EgressRules
from upstreams.errors import (
    EgressRefused,
    SetupFailed,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from upstreams.http_client import FetchedAnswer
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


async def _ask(
    endpoint: TokenEndpoint, form: dict[str, str], resource: str, seconds: float
) -> TokenReply:
    proof, headers = authenticate(endpoint.client, endpoint.server.issuer)
    if resource:
        form = {**form, "resource": resource}
    url = endpoint.server.token_endpoint
    try:
        answer = await http_client.post_form(
            url,
            {**form, **proof},
            rules=endpoint.rules,
            headers=headers,
            total_seconds=seconds,
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
        return token_replies.read_reply(answer)
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
    proof, headers = authenticate(endpoint.client, endpoint.server.issuer)
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
