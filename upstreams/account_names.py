"""Whose account was connected, asked where OpenID Connect has a place for that question.

For display only: a name that cannot be had is no reason not to connect.
"""

import logging
from typing import Final

from upstreams import http_client, sealed_secrets, token_vault
from upstreams.database_calls import in_thread
from upstreams.egress_guard import upstream_rules
from upstreams.errors import UpstreamError
from upstreams.models import UpstreamAccount
from upstreams.server_metadata import ServerMetadata, scope_words
from upstreams.token_replies import label_of

logger = logging.getLogger(__name__)

SECONDS: Final = 3.0


async def learn(account: UpstreamAccount) -> str:
    """Ask the UserInfo endpoint (OpenID Connect Core 5.3) and store the name; "" if none.

    Asked only where ``openid`` was granted: the token then says that it is good for this.
    """
    client = account.client
    if account.account_label or client is None:
        return account.account_label
    server = ServerMetadata.from_json(client.server_metadata)
    if not server.userinfo_endpoint or "openid" not in scope_words(account.scope):
        return ""
    upstream = account.upstream
    try:
        tokens = await in_thread(sealed_secrets.open_tokens, account, upstream.url)
        answer = await http_client.fetch(
            "GET",
            server.userinfo_endpoint,
            rules=upstream_rules(upstream),
            headers={"authorization": f"Bearer {tokens.access_token}"},
            total_seconds=SECONDS,
        )
        label = label_of(answer.json_object()) if answer.status == 200 else ""
    except (UpstreamError, token_vault.VaultError) as error:
        logger.info("%s does not say whose account it is: %s", upstream.key, type(error).__name__)
        return ""
    if label:
        account.account_label = label
        mine = UpstreamAccount.objects.filter(pk=account.pk, grant_id=account.grant_id)
        await in_thread(mine.update, account_label=label)
    return label
