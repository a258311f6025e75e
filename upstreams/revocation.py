"""Whether an account's tokens can be ended at the other side too."""

from upstreams.models import UpstreamAccount
from upstreams.server_metadata import ServerMetadata


def can_revoke(account: UpstreamAccount) -> bool:
    """Return whether disconnecting also ends the tokens at the other side (RFC 7009)."""
    if account.client is None:
        return False
    return bool(ServerMetadata.from_json(account.client.server_metadata).revocation_endpoint)
