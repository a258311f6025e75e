"""What a warm ``tools/call`` need not decide again: where a name leads, that it may be called.

A plan is the record of what ``call_router`` decided about one tool for one token and client. It
decides nothing itself: it stands as long as everything that was decided from is the very same
object (the snapshot as this person sees it, the token's holder, the client's facts, the
upstream's list in memory), and the call is looked at anew otherwise. So whatever drops one of
those, such as a revocation or a change of the configuration, ends the plan as well.
"""

import time
import weakref

from upstreams import credentials
from upstreams.canonical_call import ClientFacts
from upstreams.revisions import Era
from virtualmcp import raw_members
from virtualmcp.listed_entries import Kind, ListContent
from virtualmcp.route_table import ChoiceFacts, VirtualMcpFacts
from virtualmcp.routing import definition_gate, fan_out, parameter_headers
from virtualmcp.routing.call_target import Target
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.tool_catalogue import CatalogueKey, catalogue

MOST_PLANS = 4_096

_Key = tuple[str, int, str, str]


class CallPlan:
    """Where one tool leads for one token and client, and what that was decided from.

    Snapshots and lists are held weakly: a plan must not keep a large one alive.
    """

    __slots__ = ("choice", "client", "content", "holder", "key", "name", "renamed", "server")

    def __init__(
        self, request: ClientRequest, target: Target, key: CatalogueKey, content: ListContent | None
    ) -> None:
        self.server: weakref.ref[VirtualMcpFacts] = weakref.ref(request.server)
        self.holder = request.holder
        self.client: ClientFacts = request.client
        self.key = key
        self.content = None if content is None else weakref.ref(content)
        self.choice: ChoiceFacts = target.choice
        self.name = target.name
        self.renamed = None if target.name == target.asked else raw_members.raw(target.name)

    def stands(self, request: ClientRequest) -> bool:
        """Tell whether nothing has changed; a list that is due to be read again has."""
        if (
            self.holder is not request.holder
            or self.server() is not request.server
            or self.client is not request.client
        ):
            return False
        credential = credentials.cached_credential(self.holder.user_id, self.choice.upstream)
        if credential is None or credential.id != self.key.credential_id:
            return False
        kept = catalogue.last_good(self.key)
        if kept is None or self.content is None:
            return kept is None and self.content is None
        listed_long_ago = time.monotonic() - kept.read_at > definition_gate.RECHECK
        return kept.content is self.content() and not listed_long_ago

    def target(self, request: ClientRequest) -> Target:
        """Return where this request goes."""
        members = request.members
        assert members is not None
        params = request.params
        if self.renamed is not None:
            params = raw_members.write({**members, "name": self.renamed})
        return Target(
            self.choice,
            self.name,
            params,
            request.name or "",
            bytes(members.get("arguments", b"")),
            "requestState" in members and request.era is Era.MODERN,
        )


_plans: dict[_Key, CallPlan] = {}


def planned(request: ClientRequest) -> Target | None:
    """Return where a call goes that was decided about before, else None."""
    if request.members is None or request.param_headers:
        return None
    plan = _plans.get(_key(request))
    return plan.target(request) if plan is not None and plan.stands(request) else None


def keep(request: ClientRequest, target: Target, content: ListContent | None) -> None:
    """Remember a decision that needed nothing but what is in memory; others are made each time."""
    choice = target.choice
    if request.param_headers or request.name is None or request.server.undoes_argument_uris:
        return
    if content is None or target.name not in content.by_identity:
        if choice.hidden or request.server.review.can_hold:
            return
    elif parameter_headers.mirrored(content, target.name):
        return
    key = fan_out.key_for(request.holder.user_id, choice.upstream, request.client, Kind.TOOLS)
    if key is None:
        return
    if len(_plans) >= MOST_PLANS:
        _plans.clear()
    _plans[_key(request)] = CallPlan(request, target, key, content)


def forget() -> None:
    """Drop every plan."""
    _plans.clear()


def _key(request: ClientRequest) -> _Key:
    holder, client = request.holder, request.client
    return (holder.token_digest, request.server.id, request.name or "", client.fingerprint)
