"""One HTTP request that has passed the gate: who asks, which Virtual MCP, and how to answer."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from oauthserver import bearer_tokens
from oauthserver.bearer_tokens import TokenHolder
from virtualmcp import access_policy, person_view, route_table
from virtualmcp.route_table import VirtualMcpFacts
from virtualmcp.transport.http_answers import (
    Accepts,
    Header,
    Receive,
    Send,
    error_body,
    send_empty,
    send_json,
    send_one_answer,
    send_rejection,
)
from virtualmcp.transport.wire_validation import Rejection

logger = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Standing:
    """Who asks and what they may see, as it is now."""

    holder: TokenHolder
    server: VirtualMcpFacts


class Exchange:
    """What every step after the gate needs of a request.

    ``extra`` are headers for the answer, ``headers`` those of the request.
    """

    __slots__ = ("accepts", "extra", "headers", "holder", "receive", "send", "server")

    def __init__(
        self,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        extra: tuple[Header, ...],
        server: VirtualMcpFacts,
        holder: TokenHolder,
        accepts: Accepts,
    ) -> None:
        self.receive = receive
        self.send = send
        self.headers = headers
        self.extra = extra
        self.server = server
        self.holder = holder
        self.accepts = accepts

    async def answer(self, body: bytes, extra: tuple[Header, ...] = ()) -> None:
        """Send a JSON-RPC response that the gateway gives at once."""
        await send_one_answer(self.send, self.accepts, body, (*extra, *self.extra))

    async def accept(self, status: int = 202) -> None:
        """Say that a notification or response was taken (a17)."""
        await send_empty(self.send, status, self.extra)

    async def reject(self, rejection: Rejection, extra: tuple[Header, ...] = ()) -> None:
        """Send the JSON-RPC error of a message that is refused."""
        await send_rejection(self.send, rejection, (*extra, *self.extra))

    async def fail(self, status: int, code: int, message: str, id: bytes) -> None:
        """Send a JSON-RPC error of the gateway itself."""
        await send_json(self.send, status, error_body(id, code, message), self.extra)

    async def current(self) -> Standing | None:
        """Return who asks and what they see now, None if the token or the access has ended.

        Raises:
            django.db.Error: that can't be found out.
        """
        resource = self.server.resource
        authorization = self.headers.get(b"authorization", b"")
        holder = bearer_tokens.cached(authorization, resource)
        found = holder or await bearer_tokens.authenticate([authorization], resource)
        facts = await route_table.load(self.server.slug)
        if not isinstance(found, TokenHolder) or facts is None:
            return None
        if not access_policy.may_use(found, facts):
            return None
        return Standing(found, person_view.seen_by(facts, found.group_ids))

    async def still_allowed(self) -> bool:
        """Tell whether the token and the access behind this request are still good.

        When that can't be found out, the running call may go on until the token's own end.
        """
        resource = self.server.resource
        authorization = self.headers.get(b"authorization", b"")
        try:
            holder: object = bearer_tokens.cached(authorization, resource)
            if holder is None:
                holder = await bearer_tokens.authenticate([authorization], resource)
            facts = await route_table.load(self.server.slug)
        except Exception as failure:
            logger.warning("access could not be checked again: %s", type(failure).__name__)
            return time.time() < self.holder.expires_at
        return (
            isinstance(holder, TokenHolder)
            and facts is not None
            and access_policy.may_use(holder, facts)
            and not person_view.lost_any(self.server, facts, holder.group_ids)
        )
