"""What one client is told of: changed lists and updated resources, as its person may see them.

Listens to every upstream of the Virtual MCP on the person's behalf. A list is said to have
changed only when this person's list, with its names, choices and rules, really reads otherwise
than before; many upstreams' notices within a quarter second are one (protocol.md 2.3.6).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from upstreams import change_streams, credentials
from upstreams.change_interest import LIST_METHODS, UPDATED, Interest, part_of, uri_in
from upstreams.change_streams import TooManyStreams
from upstreams.errors import UpstreamError
from upstreams.shared_interest import Subscription
from upstreams.upstream_facts import UpstreamFacts
from virtualmcp import raw_members
from virtualmcp.errors import ResourceUnknown
from virtualmcp.listed_entries import Kind
from virtualmcp.raw_members import NotAnObject
from virtualmcp.route_table import ChoiceFacts, VirtualMcpFacts
from virtualmcp.routing import list_answers, question_policy, resource_routes
from virtualmcp.routing.client_request import ClientRequest
from virtualmcp.secret_redaction import clean_json, secrets_of

if TYPE_CHECKING:
    from oauthserver.bearer_tokens import TokenHolder

logger = logging.getLogger(__name__)

DEBOUNCE_SECONDS: Final = 0.25
# A list that could not be read is looked at again, this often and this late.
LOOK_AGAIN_SECONDS: Final = 30.0
MOST_LOOKS: Final = 5
METHODS: Final = {name: method for method, name in LIST_METHODS.items()}
_KINDS: Final = {
    "tools": (Kind.TOOLS,),
    "prompts": (Kind.PROMPTS,),
    "resources": (Kind.RESOURCES, Kind.TEMPLATES),
}

Tell = Callable[[str, bytes], None]


@dataclass(slots=True)
class _Part:
    """One upstream; ``uris`` lead from its own URIs to those the client uses."""

    facts: UpstreamFacts
    subscription: Subscription
    uris: dict[str, str]


class ChangeListener:
    """Keeps one client informed.

    Args:
        request: whose view of which server; its method and params are not looked at.
        lists: which lists the client wants to hear of: "tools", "prompts", "resources".
        tell: called on the event loop with method and raw params, in the client's terms.
    """

    def __init__(self, request: ClientRequest, lists: Iterable[str], tell: Tell) -> None:
        self._request = request
        self._lists = frozenset(lists)
        self._tell = tell
        self._uris: dict[int, dict[str, str]] = {}
        self._parts: dict[int, _Part] = {}
        self._joining: dict[int, asyncio.Task[None]] = {}
        self._shown: dict[str, bytes | None] = {name: self._in_memory(name) for name in self._lists}
        self._dirty: set[str] = set()
        self._looks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._newest: tuple[VirtualMcpFacts, TokenHolder] | None = None
        self._updating: asyncio.Task[None] | None = None
        self._closed = False

    # Beginning and end ------------------------------------------------------------------------
    async def open(self, uris: Iterable[str], seconds: float) -> frozenset[str]:
        """Begin to listen; returns those URIs that can be told of.

        Waits at most so long for the upstreams; what they agree to later is not among them.
        """
        wanted = frozenset(uris)
        try:
            async with asyncio.timeout(seconds):
                await self._resolve(wanted)
                joining = {self._join(choice) for choice in self._request.server.choices}
                while joining:
                    await asyncio.wait(joining)
                    # After a change some were begun anew.
                    joining = {task for task in self._joining.values() if not task.done()}
        except TimeoutError:
            for choice in self._request.server.choices:
                self._join(choice)
        return self.honoured(wanted)

    def honoured(self, uris: Iterable[str]) -> frozenset[str]:
        """Return which of these public URIs the upstreams agreed to tell of."""
        agreed = {
            part.uris[own]
            for part in self._parts.values()
            for own in part.subscription.honoured.uris
            if own in part.uris
        }
        return frozenset(uris) & agreed

    async def want(self, uri: str, seconds: float) -> bool:
        """Want to hear of one more resource; returns whether its upstream agreed in time.

        Raises:
            ResourceUnknown: nobody here has it.
        """
        choice, own = await resource_routes.find(self._request, uri)
        self._uris.setdefault(choice.upstream.id, {})[own] = uri
        await asyncio.wait((self._join(choice),), timeout=seconds)
        part = self._parts.get(choice.upstream.id)
        if part is None:
            return False
        self._wish(part)
        return own in (await part.subscription.settled(seconds)).uris

    def unwant(self, uri: str) -> None:
        """Hear no more of a resource."""
        for upstream_id, uris in self._uris.items():
            for own in [own for own, public in uris.items() if public == uri]:
                del uris[own]
                if upstream_id in self._parts:
                    self._wish(self._parts[upstream_id])

    async def keep_only(self, uris: Iterable[str], seconds: float) -> None:
        """Have exactly these resources told of, as another process was asked to."""
        wanted = frozenset(uris)
        known = {public for found in self._uris.values() for public in found.values()}
        for uri in known - wanted:
            self.unwant(uri)
        for uri in wanted - known:
            try:
                await self.want(uri, seconds)
            except ResourceUnknown:
                continue

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        for part in self._parts.values():
            part.subscription.close()
        self._parts.clear()
        for task in self._joining.values():
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        if self._updating is not None:
            self._updating.cancel()

    def begin_update(self, server: VirtualMcpFacts, holder: "TokenHolder") -> None:
        """Do as ``update`` in a task of its own: an upstream may have to be asked, for which
        whoever looks after many listeners must not wait. The newest of several is done last."""
        self._newest = (server, holder)
        if not self._closed and (self._updating is None or self._updating.done()):
            self._updating = asyncio.get_running_loop().create_task(self._update())

    async def _update(self) -> None:
        while self._newest is not None:
            newest, self._newest = self._newest, None
            try:
                await self.update(*newest)
            except Exception:
                logger.exception("a listening client's changes could not be taken in")

    async def update(self, server: VirtualMcpFacts, holder: "TokenHolder") -> None:
        """Take in that configuration, access or accounts may have changed."""
        before = self._request
        self._request = ClientRequest(
            server,
            holder,
            before.era,
            before.method,
            client=before.client,
            session=before.session,
        )
        offered = {choice.upstream.id: choice for choice in server.choices}
        for upstream_id, part in list(self._parts.items()):
            choice = offered.get(upstream_id)
            if choice is None or not await self._still_good(part, choice.upstream):
                part.subscription.close()
                self._parts.pop(upstream_id, None)
        # What was begun before goes by what may no longer be true.
        for upstream_id in [one for one in self._joining if one not in self._parts]:
            self._joining.pop(upstream_id).cancel()
        for choice in server.choices:
            self._join(choice)
        self.look(self._lists)

    async def _still_good(self, part: _Part, facts: UpstreamFacts) -> bool:
        try:
            credential = credentials.cached_credential(self._request.holder.user_id, facts)
            if credential is None:
                user_id = self._request.holder.user_id
                credential = await credentials.credential_for(user_id, facts)
        except UpstreamError:
            return False
        same = change_streams.address_of(facts) == change_streams.address_of(part.facts)
        return same and credential.id == part.subscription.credential_id

    # Upstreams --------------------------------------------------------------------------------
    async def _resolve(self, uris: frozenset[str]) -> None:
        for uri in uris:
            try:
                choice, own = await resource_routes.find(self._request, uri)
            except ResourceUnknown:
                continue
            self._uris.setdefault(choice.upstream.id, {})[own] = uri

    def _join(self, choice: ChoiceFacts) -> "asyncio.Task[None]":
        """Begin to listen to one upstream, unless that is done or under way."""
        upstream_id = choice.upstream.id
        task = self._joining.get(upstream_id)
        if task is not None and (not task.done() or upstream_id in self._parts):
            return task
        task = asyncio.get_running_loop().create_task(self._join_upstream(choice))
        self._joining[upstream_id] = task
        return task

    async def _join_upstream(self, choice: ChoiceFacts) -> None:
        facts, request = choice.upstream, self._request
        uris = self._uris.setdefault(facts.id, {})
        interest = Interest(self._lists, frozenset(uris))
        if not interest:
            return

        def heard(method: str, params: bytes) -> None:
            self._heard(facts, method, params)

        try:
            # As its calls declare it, so that they are made in the session that is listened to.
            declared = question_policy.declared_to(request, choice)
            subscription = await change_streams.subscribe(
                request.holder.user_id, facts, declared, interest, heard, request.owner
            )
        except TooManyStreams:
            logger.warning("%s is not listened to: too many streams are open", facts.key)
            return
        except UpstreamError:
            # Not connected, or not set up: once it is, ``update`` comes.
            return
        except Exception:
            logger.exception("%s cannot be listened to", facts.key)
            return
        if self._closed:
            subscription.close()
            return
        self._parts[facts.id] = part = _Part(facts, subscription, uris)
        self._wish(part)
        await subscription.settled(60.0)

    def _wish(self, part: _Part) -> None:
        part.subscription.change(Interest(self._lists, frozenset(part.uris)))

    def _heard(self, facts: UpstreamFacts, method: str, params: bytes) -> None:
        name = LIST_METHODS.get(method)
        if name is not None:
            self.look((name,))
            return
        own = uri_in(params)
        uris = self._uris.get(facts.id, {})
        whole = own if own in uris else next((w for w in uris if part_of(own, w)), None)
        if whole is None:
            return
        try:
            members = raw_members.read(clean_json(params, secrets_of(self._user_id, facts)))
        except NotAnObject:
            return
        # Also a part of the resource carries the name the client knows the whole by.
        members["uri"] = raw_members.raw(uris[whole] + own[len(whole) :])
        self._tell(UPDATED, raw_members.write(members))

    @property
    def _user_id(self) -> int:
        return self._request.holder.user_id

    # Lists ------------------------------------------------------------------------------------
    def look(self, names: Iterable[str]) -> None:
        """Have lists compared with what they were, a little later."""
        self._dirty |= self._lists.intersection(names)
        if self._dirty and self._timer is None and not self._closed:
            self._looks = 0
            self._later(DEBOUNCE_SECONDS)

    def _later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin_to_look)

    def _begin_to_look(self) -> None:
        self._timer = None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        else:
            self._later(DEBOUNCE_SECONDS)

    async def _look(self) -> None:
        names, self._dirty = self._dirty, set()
        for name in sorted(names):
            try:
                shown = await self._read(name)
            except Exception:
                logger.exception("the %s of a listening client could not be read", name)
                shown = None
            if shown is None:
                self._dirty.add(name)
            elif shown != self._shown[name]:
                self._shown[name] = shown
                self._tell(METHODS[name], b"{}")
        if self._dirty and self._timer is None and self._looks < MOST_LOOKS and not self._closed:
            self._looks += 1
            self._later(LOOK_AGAIN_SECONDS)

    async def _read(self, name: str) -> bytes | None:
        shown = b""
        for kind in _KINDS[name]:
            published = await list_answers.visible(self._request, kind)
            if published is None:
                return None
            shown += published.shown
        return shown

    def _in_memory(self, name: str) -> bytes | None:
        shown = b""
        for kind in _KINDS[name]:
            published = list_answers.visible_in_memory(self._request, kind)
            if published is None:
                return None
            shown += published.shown
        return shown


def with_subscription(params: bytes, key: str, value: bytes | None) -> bytes:
    """Return a notice's params with ``_meta[key]`` set to raw ``value``, or without it."""
    members = raw_members.read(params)
    try:
        meta: Mapping[str, msgspec.Raw] = raw_members.read(members["_meta"])
    except (KeyError, NotAnObject):
        meta = {}
    kept = {name: found for name, found in meta.items() if name != key}
    if value is not None:
        kept[key] = msgspec.Raw(value)
    members.pop("_meta", None)
    if kept:
        members["_meta"] = raw_members.raw(kept)
    return raw_members.write(members)
