"""A call on behalf of a person: their credential, one renewal if it is refused, no loop.

An upstream's 401 or 403 ends here: above this module it is a result, or a
``NeedsConnection`` that leads the person to the connect page (protocol.md D8, #151).
"""

from upstreams import credentials, legacy_takeover, mcp_client
from upstreams.canonical_call import CallSink, CanonicalCall, ClientFacts, Outcome
from upstreams.credentials import Credential
from upstreams.errors import CredentialRefused, NeedsConnection, ScopeInsufficient
from upstreams.legacy_takeover import HeldCall
from upstreams.models import CredentialKind
from upstreams.sent_call import SentCall
from upstreams.upstream_facts import UpstreamFacts

_OWN_ACCOUNT = (CredentialKind.USER_OAUTH, CredentialKind.USER_KEY)


async def call_as(
    user_id: int,
    facts: UpstreamFacts,
    call: CanonicalCall,
    sink: CallSink,
    sent: SentCall | None = None,
) -> Outcome:
    """Make the call with the person's credential, or go on with the one that was ``sent``.

    A refused call was not carried out, so that it is made once more with a renewed one.

    Raises:
        NeedsConnection: the person has to connect, reconnect or grant more.
        UpstreamError: everything else; see ``mcp_client.call``.
    """
    if sent is not None:
        credential: Credential | None = sent.credential
    else:
        credential = credentials.cached_credential(user_id, facts)
    if credential is None:
        credential = await credentials.credential_for(user_id, facts)
    try:
        return await mcp_client.call(facts, credential, call, sink, sent)
    except CredentialRefused as refused:
        credential = await _renewed(user_id, facts, credential, refused)
    try:
        return await mcp_client.call(facts, credential, call, sink)
    except CredentialRefused as refused:
        raise _given_up(facts, refused) from refused


async def take_over_as(
    user_id: int, facts: UpstreamFacts, call: CanonicalCall, sink: CallSink, held: HeldCall
) -> Outcome:
    """Go on with a call of a process that died; as ``legacy_takeover.take_over``.

    Raises:
        NeedsConnection, UpstreamError: as for ``call_as``.
    """
    credential = await credentials.credential_for(user_id, facts)
    return await legacy_takeover.take_over(facts, credential, call, sink, held)


async def give_up_as(user_id: int, facts: UpstreamFacts, held: HeldCall) -> None:
    """Cancel a call of a process that died.

    Raises:
        NeedsConnection, UpstreamError: it could not be cancelled.
    """
    credential = await credentials.credential_for(user_id, facts)
    await legacy_takeover.give_up(facts, credential, held)


async def opening_as(user_id: int, facts: UpstreamFacts, client: ClientFacts) -> bytes:
    """Return the upstream's raw opening result as the person sees it; as ``mcp_client.opening``.

    Raises:
        NeedsConnection, UpstreamError: as for ``call_as``.
    """
    credential = credentials.cached_credential(user_id, facts)
    if credential is None:
        credential = await credentials.credential_for(user_id, facts)
    principal = str(user_id)
    try:
        return await mcp_client.opening(facts, credential, client, principal=principal)
    except CredentialRefused as refused:
        credential = await _renewed(user_id, facts, credential, refused)
    try:
        return await mcp_client.opening(facts, credential, client, principal=principal)
    except CredentialRefused as refused:
        raise _given_up(facts, refused) from refused


async def _renewed(
    user_id: int, facts: UpstreamFacts, credential: Credential, refused: CredentialRefused
) -> Credential:
    scope = refused.scope if isinstance(refused, ScopeInsufficient) else ""
    if isinstance(refused, ScopeInsufficient) and facts.credential_kind == CredentialKind.USER_KEY:
        # The key is good for what its owner allowed it; only another key can do more.
        raise _given_up(facts, refused) from refused
    return await credentials.renew(user_id, facts, credential, scope=scope)


def _given_up(
    facts: UpstreamFacts, refused: CredentialRefused
) -> NeedsConnection | CredentialRefused:
    """Return the error for a credential refused although it is fresh."""
    if facts.credential_kind not in _OWN_ACCOUNT:
        return refused
    scope = isinstance(refused, ScopeInsufficient)
    return NeedsConnection(
        refused.message,
        upstream_id=facts.id,
        upstream_key=facts.key,
        title=facts.title,
        reason="scope" if scope else "reconnect",
    )
