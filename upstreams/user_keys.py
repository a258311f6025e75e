"""A person's own key: tried at the upstream before it is kept."""

import secrets
from typing import TYPE_CHECKING, Any, Final

from upstreams import accounts, credential_building, header_values, mcp_client
from upstreams.canonical_call import CanonicalCall, SilentSink
from upstreams.database_calls import in_thread
from upstreams.errors import CredentialRefused, ScopeInsufficient, SetupFailed, UpstreamError
from upstreams.models import Upstream, UpstreamAccount
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from django.contrib.auth.models import User

STEP: Final = "authorization"


async def check_and_save(
    user: "User", upstream: Upstream, key: str, *, actor: Any
) -> UpstreamAccount:
    """List the upstream's tools with the key, and store the key if it is let in.

    Raises:
        SetupFailed: it is no key, the upstream refuses it, or (``transient``) cannot be asked.
    """
    await in_thread(accounts.check_takes_key, upstream)
    value = header_values.checked_value(key.strip())
    facts = UpstreamFacts.of(upstream)
    credential = await in_thread(
        credential_building.key_credential, f"trial:{secrets.token_hex(8)}", value, upstream, facts
    )
    call = CanonicalCall("tools/list", params=b"{}", timeout=facts.list_timeout)
    try:
        # An error of the protocol is an answer too: whoever gets one was let in.
        await mcp_client.call(facts, credential, call, SilentSink())
    except ScopeInsufficient as error:
        raise SetupFailed(
            STEP,
            f"{upstream.title} knows this key, but it may not list the tools. Make one with more "
            "rights.",
            detail=error.detail,
        ) from error
    except CredentialRefused as error:
        raise SetupFailed(
            STEP,
            f"{upstream.title} refuses this key. Is it copied whole, and still valid?",
            detail=error.detail,
        ) from error
    except UpstreamError as error:
        raise SetupFailed(
            STEP,
            f"{upstream.title} could not be asked whether this key is right, so it was not stored. "
            "Try again in a minute.",
            detail=error.detail,
            retryable=True,
        ) from error
    return await in_thread(accounts.save_user_key, user, upstream, value, actor=actor)
