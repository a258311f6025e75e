"""Asking a client for the further scope that a tool needs (``tool_groups`` says which do).

The way of the specification is HTTP 403 with one challenge (c7). ChatGPT offers its person to
authorize again only for a failed tool *result* that carries the challenge in ``_meta``, so a
request that speaks its dialect is answered in it (clients.md 1.6). Nothing else depends on that:
the tool is refused either way.
"""

from oauthserver.challenges import bearer_challenge
from oauthserver.discovery_views import resource_metadata_url
from oauthserver.scopes import WRITE_SCOPE
from upstreams.revisions import Era
from virtualmcp import raw_members
from virtualmcp.eras.conversion import signed
from virtualmcp.errors import ScopeInsufficient
from virtualmcp.raw_members import NotAnObject
from virtualmcp.route_table import resource_of
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import Answer, ClientRequest
from virtualmcp.server_identity import raw_server_info

CHALLENGES_IN_RESULT = "mcp/www_authenticate"
_DIALECT = "openai/"
_LOOKED_AT = 32


def check(request: ClientRequest, target: Target) -> None:
    """Refuse a tool that may change something to a client that may only read.

    Raises:
        ScopeInsufficient: the token lacks the further scope.
    """
    reading, held = target.choice.reading, request.holder.scopes
    if reading is None or target.name in reading or WRITE_SCOPE in held:
        return
    raise ScopeInsufficient(
        f"The tool {target.asked[:128]!r} may change something, which this client was not "
        "allowed to do so far. Authorize again with the scope of the challenge.",
        # Scopes of the authorization server itself are never named in a challenge (c10).
        " ".join([*sorted(scope for scope in held if scope.startswith("mcp:")), WRITE_SCOPE]),
    )


def in_result(request: ClientRequest, refused: ScopeInsufficient) -> Answer | None:
    """Return the refusal as a failed tool result, or None where 403 says it."""
    if not _speaks_dialect(request):
        return None
    where = resource_metadata_url(resource_of(request.server.slug))
    challenge = bearer_challenge(where, refused.scope, "insufficient_scope", refused.message)
    meta = raw_members.raw({CHALLENGES_IN_RESULT: [challenge]})
    result: dict[str, object] = {
        "content": [{"type": "text", "text": refused.message}],
        "isError": True,
        "_meta": meta,
    }
    if request.era is Era.MODERN:
        signature = signed(meta, raw_server_info(request.server))
        result |= {"resultType": "complete", "_meta": signature}
    return Answer(result=raw_members.write(result))


def _speaks_dialect(request: ClientRequest) -> bool:
    try:
        params = request.members or raw_members.read(request.params)
        meta = raw_members.read(params["_meta"])
    except (NotAnObject, KeyError):
        return False
    return any(name.startswith(_DIALECT) for name in list(meta)[:_LOOKED_AT])
