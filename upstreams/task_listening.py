"""Hearing from a stateless upstream how tasks go, on behalf of one client (tasks extension).

A stream of its own for each client that listens, not the shared one of ``change_streams``: tasks
are one person's and client's, only such a client may declare the extension, and a notice holds a
whole result. Nothing is stored; a client that comes back on another node listens there.
"""

from collections.abc import Callable
from typing import Final

from upstreams import credentials
from upstreams.canonical_call import ClientFacts
from upstreams.change_interest import Interest
from upstreams.credentials import Credential
from upstreams.errors import CredentialRefused, ScopeInsufficient
from upstreams.modern_listening import ModernListening
from upstreams.upstream_facts import UpstreamFacts

# A larger result is not pushed; the client can ask for it.
MOST_NOTICE_BYTES: Final = 1024 * 1024


async def listen(
    user_id: int,
    facts: UpstreamFacts,
    credential: Credential,
    client: ClientFacts,
    tasks: frozenset[str],
    acknowledged: Callable[[frozenset[str]], None],
    heard: Callable[[bytes], None],
) -> None:
    """Listen until the upstream ends the stream in an orderly way; a refused token is renewed once.

    Args:
        tasks: ids as the upstream gave them.
        acknowledged: called with those it agreed to tell of.
        heard: called with the raw params of each notice.

    Raises:
        UpstreamError: it refused, broke off, or the person's credential can't be used.
    """
    stream = ModernListening(
        facts,
        client,
        Interest(tasks=tasks),
        lambda agreed: acknowledged(agreed.tasks),
        lambda _, params: heard(params),
        most_event_bytes=MOST_NOTICE_BYTES,
    )
    try:
        await stream.run(credential)
    except ScopeInsufficient:
        raise
    except CredentialRefused:
        await stream.run(await credentials.renew(user_id, facts, credential))
