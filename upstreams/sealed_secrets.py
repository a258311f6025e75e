"""What is sealed for whom: the owner names bound into every secret of this room.

An owner names the row and the origin the secret may be sent to. A value that was
copied to another row, or whose upstream now has another origin, does not open
(security.md #152, #223).
"""

import json
from dataclasses import asdict, dataclass, field

from upstreams import token_vault
from upstreams.client_authentication import ClientCredential
from upstreams.models import PendingAuthorization, Upstream, UpstreamAccount, UpstreamClient
from upstreams.server_metadata import origin_of


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """The secret of an account: OAuth tokens, or the person's own key as ``access_token``."""

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)


def _account_owner(user_id: int | None, upstream_id: int, bound_url: str) -> str:
    holder = "shared" if user_id is None else user_id
    return f"account/user:{holder}/upstream:{upstream_id}/{origin_of(bound_url)}"


def seal_tokens(
    tokens: StoredTokens, *, user_id: int | None, upstream_id: int, bound_url: str
) -> str:
    """Seal an account's secret."""
    return token_vault.seal(
        json.dumps(asdict(tokens)).encode(), _account_owner(user_id, upstream_id, bound_url)
    )


def open_tokens(account: UpstreamAccount, current_url: str) -> StoredTokens:
    """Open an account's secret for use at ``current_url``.

    Raises:
        VaultError: it was sealed for another person, upstream or origin.
    """
    owner = _account_owner(account.user_id, account.upstream_id, current_url)
    return StoredTokens(**json.loads(token_vault.open_sealed(account.sealed_secret, owner)))


def _fixed_owner(upstream: Upstream) -> str:
    return f"fixed/upstream:{upstream.pk}/{origin_of(upstream.url)}"


def seal_fixed(upstream: Upstream, value: str) -> str:
    """Seal the credential everybody shares."""
    return token_vault.seal(value.encode(), _fixed_owner(upstream))


def open_fixed(upstream: Upstream) -> str:
    """Open the credential everybody shares.

    Raises:
        VaultError: it was given for another origin.
    """
    return token_vault.open_sealed(
        upstream.sealed_fixed_credential, _fixed_owner(upstream)
    ).decode()


def _headers_owner(upstream: Upstream) -> str:
    return f"headers/upstream:{upstream.pk}/{origin_of(upstream.url)}"


def seal_further_headers(upstream: Upstream, headers: dict[str, str]) -> str:
    """Seal the headers that go with every request."""
    return token_vault.seal(json.dumps(headers).encode(), _headers_owner(upstream))


def open_further_headers(upstream: Upstream) -> dict[str, str]:
    """Open the headers that go with every request.

    Raises:
        VaultError: they were given for another origin.
    """
    opened = token_vault.open_sealed(upstream.sealed_further_headers, _headers_owner(upstream))
    found: dict[str, str] = json.loads(opened)
    return found


def _enterprise_owner(upstream: Upstream) -> str:
    return f"enterprise-client/upstream:{upstream.pk}/{origin_of(upstream.enterprise_token_url)}"


def seal_enterprise_secret(upstream: Upstream, secret: str) -> str:
    """Seal the client secret for the company's identity provider."""
    return token_vault.seal(secret.encode(), _enterprise_owner(upstream))


def open_enterprise_secret(upstream: Upstream) -> str:
    """Open the client secret for the company's identity provider.

    Raises:
        VaultError: it was given for another provider.
    """
    return token_vault.open_sealed(
        upstream.sealed_enterprise_client_secret, _enterprise_owner(upstream)
    ).decode()


def _configured_owner(upstream: Upstream) -> str:
    return f"oauth-client/upstream:{upstream.pk}"


def seal_configured_secret(upstream: Upstream, secret: str) -> str:
    """Seal the client secret an administrator entered."""
    return token_vault.seal(secret.encode(), _configured_owner(upstream))


def open_configured_secret(upstream: Upstream) -> str:
    """Open the client secret an administrator entered."""
    return token_vault.open_sealed(
        upstream.sealed_oauth_client_secret, _configured_owner(upstream)
    ).decode()


def _client_owner(upstream_id: int, issuer: str) -> str:
    return f"registration/upstream:{upstream_id}/{issuer}"


def seal_client_secret(upstream_id: int, issuer: str, secret: str) -> str:
    """Seal a client secret for the issuer that knows it."""
    return token_vault.seal(secret.encode(), _client_owner(upstream_id, issuer))


def credential_of(client: UpstreamClient) -> ClientCredential:
    """Return our identity at the client's issuer.

    Raises:
        VaultError: the secret belongs to another issuer or upstream.
    """
    secret = ""
    if client.sealed_client_secret:
        owner = _client_owner(client.upstream_id, client.issuer)
        secret = token_vault.open_sealed(client.sealed_client_secret, owner).decode()
    return ClientCredential(client.client_id, client.token_endpoint_auth_method, secret)


def _pending_owner(user_id: int, upstream_id: int, url: str) -> str:
    return f"pending/user:{user_id}/upstream:{upstream_id}/{url}"


def seal_verifier(verifier: str, *, user_id: int, upstream: Upstream) -> str:
    """Seal a PKCE verifier for one person, upstream and address."""
    return token_vault.seal(verifier.encode(), _pending_owner(user_id, upstream.pk, upstream.url))


def open_verifier(pending: PendingAuthorization, upstream: Upstream) -> str:
    """Open a PKCE verifier.

    Raises:
        VaultError: the upstream's address changed meanwhile, or the row is another's.
    """
    owner = _pending_owner(pending.user_id, upstream.pk, upstream.url)
    return token_vault.open_sealed(pending.sealed_verifier, owner).decode()
