"""The MCP endpoint ``/v1/mcp/{slug}``: from an HTTP request to the answer of a method.

A plain ASGI callable, mounted by a Channels ``URLRouter`` beside Django. Read top to bottom it is
the life of one call: host and origin, the Virtual MCP, the token, access, the body, the message,
its era and session, the method, the answer. A warm call touches neither database nor threads and
reads its request once.

Channels' own HTTP consumer can't hear a client hang up while it works (django/channels#1249) and
collects bodies without a bound, which is why this is not one.
"""

import logging
import re
from collections.abc import Mapping

from django.conf import settings

from oauthserver import bearer_tokens
from oauthserver.bearer_tokens import TokenHolder, TokenRefusal
from upstreams.revisions import MODERN
from virtualmcp import access_policy, person_view, route_table
from virtualmcp.eras.era_in import SessionUnknown
from virtualmcp.route_table import VirtualMcpFacts
from virtualmcp.transport import listening, message_dispatch, token_challenges
from virtualmcp.transport.connection_methods import end_session
from virtualmcp.transport.exchange import Exchange
from virtualmcp.transport.http_answers import (
    Header,
    Receive,
    Refusal,
    Scope,
    Send,
    accepts,
    send_empty,
    send_refusal,
    send_rejection,
    unavailable,
)
from virtualmcp.transport.request_gate import (
    Disconnected,
    check_content,
    check_host,
    cors_headers,
    headers_of,
    preflight_headers,
    read_body,
)
from virtualmcp.transport.wire_messages import MalformedMessage
from virtualmcp.transport.wire_validation import (
    SESSION_HEADER,
    VERSION_HEADER,
    Rejection,
    unknown_revision,
)

logger = logging.getLogger(__name__)

_ALLOW: Header = (b"allow", b"POST, DELETE")
_ALLOW_PAGES: Header = (b"allow", b"POST, DELETE, OPTIONS")
_MODERN = MODERN.encode()
_PATH = "/v1/mcp"
_METADATA = "/.well-known/openid-configuration"
# What no slug can be is not looked for; models.SLUG says the same to whoever chooses one.
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def is_endpoint(path: str) -> bool:
    """Tell whether a request for this path is the endpoint's to answer.

    Metadata of the authorization server below an endpoint's address, where OpenID Connect clients
    look for it, is a page of the site.
    """
    return path.startswith(_PATH) and path[7:8] in ("/", "") and not path.endswith(_METADATA)


def slug_in(path: str) -> str:
    """Return the slug in an address of the endpoint; deeper paths name no Virtual MCP: ``""``."""
    slug = path[8:].removesuffix("/")
    return "" if "/" in slug else slug


def is_browsers(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether somebody opened the address in a browser: a client that listens says that it
    takes events (a22), and one that has a session names it."""
    wanted = headers.get(b"accept", b"")
    return (
        b"text/html" in wanted
        and b"text/event-stream" not in wanted
        and SESSION_HEADER not in headers
    )


async def _show_guide(send: Send, slug: str) -> None:
    """Lead a person who opened the address on to how it is used.

    Asked before the slug is looked for: the page behind has people sign in, and shows the same for
    a server that they may not use as for one that there is not.
    """
    where = f"{settings.PUBLIC_URL}/servers/{slug}/"
    await send_empty(send, 303, ((b"location", where.encode()),))


class McpEndpoint:
    """ASGI application of one address; keeps nothing between requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; every failure becomes an answer that says what to do."""
        extra: tuple[Header, ...] = ()
        try:
            headers = headers_of(scope["headers"])
            check_host(headers)
            extra = cors_headers(headers.get(b"origin"))
            slug = slug_in(scope["path"])
            method = scope["method"]
            if method == "GET" and is_browsers(headers) and _SLUG.fullmatch(slug):
                await _show_guide(send, slug)
                return
            server = route_table.cached(slug) or await _server(slug)
            if method != "POST":
                await _without_message(scope, receive, send, headers, server, extra)
                return
            holder = _known_holder(headers, server) or await _holder(scope, headers, server)
            seen = person_view.seen_by(server, holder.group_ids)
            exchange = Exchange(
                receive, send, headers, extra, seen, holder, accepts(headers.get(b"accept", b""))
            )
            check_content(headers)
            await message_dispatch.dispatch(exchange, await read_body(receive))
        except Refusal as refusal:
            await send_refusal(send, refusal, extra)
        except MalformedMessage as fault:
            rejection = Rejection(400, fault.code, fault.message, id=fault.id)
            await send_rejection(send, rejection, extra)
        except SessionUnknown:
            await send_refusal(send, _no_session(), extra)
        except Disconnected:
            return


async def _server(slug: str) -> VirtualMcpFacts:
    """Return the Virtual MCP of this address.

    Raises:
        Refusal: 404 if there is none, 503 if that can't be found out.
    """
    if _SLUG.fullmatch(slug) is None:
        raise _not_found()
    try:
        found = await route_table.load(slug)
    except Exception as failure:
        logger.exception("the Virtual MCP %s could not be read", slug)
        raise unavailable() from failure
    if found is None:
        raise _not_found()
    return found


def _known_holder(headers: Mapping[bytes, bytes], server: VirtualMcpFacts) -> TokenHolder | None:
    """Return who asks if that is in memory and they may; None says nothing more."""
    authorization = headers.get(b"authorization")
    if authorization is None:
        return None
    holder = bearer_tokens.cached(authorization, server.resource)
    return holder if holder is not None and access_policy.may_use(holder, server) else None


async def _holder(
    scope: Scope, headers: Mapping[bytes, bytes], server: VirtualMcpFacts
) -> TokenHolder:
    """Return who asks, after checking that this person may use this Virtual MCP.

    Raises:
        Refusal: 401 with a challenge, 404, or 503 when a part of the decision failed: never
            anonymous, never allowed by default (security.md #125).
    """
    resource = server.resource
    try:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        holder: TokenHolder | TokenRefusal | None = None
        if len(values) == 1:
            holder = bearer_tokens.cached(values[0], resource)
        if holder is None:
            holder = await bearer_tokens.authenticate(values, resource)
        allowed = not isinstance(holder, TokenRefusal) and access_policy.may_use(holder, server)
    except Exception as failure:
        logger.exception("a token could not be checked")
        raise unavailable() from failure
    if isinstance(holder, TokenRefusal):
        raise _challenge(holder, server)
    if not allowed:
        raise _not_found()
    return holder


def _challenge(refusal: TokenRefusal, server: VirtualMcpFacts) -> Refusal:
    """Compose the 401 that starts a client's authorization (c2, c3)."""
    where = token_challenges.metadata_url(server)
    return Refusal(
        401,
        refusal.error or "unauthorized",
        refusal.description or f"Authorize first. How is described at {where}",
        (token_challenges.header(server, refusal.error, refusal.description),),
    )


async def _without_message(
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: Mapping[bytes, bytes],
    server: VirtualMcpFacts,
    extra: tuple[Header, ...],
) -> None:
    """Answer what is no POST: a preflight, a stream of notices, the end of a session, or nothing
    that is served.

    A known address never answers 404 here, because hosts that probe it give up then
    (design.md 2); a session that is unknown does (a26).
    """
    method = scope["method"]
    if method == "OPTIONS" and extra and b"access-control-request-method" in headers:
        wanted = headers.get(b"access-control-request-headers", b"")
        await send_empty(send, 204, (*preflight_headers(wanted), *extra))
        return
    session_id = headers.get(SESSION_HEADER)
    stateful = session_id is not None and headers.get(VERSION_HEADER) != _MODERN
    if method not in ("GET", "DELETE") or not stateful or session_id is None:
        raise _method_not_allowed(method, bool(extra))
    holder = await _holder(scope, headers, server)
    seen = person_view.seen_by(server, holder.group_ids)
    session = await message_dispatch.session_of(session_id, server, holder)
    exchange = Exchange(
        receive, send, headers, extra, seen, holder, accepts(headers.get(b"accept", b""))
    )
    unknown = unknown_revision(headers)
    if unknown is not None:
        await exchange.reject(unknown)
        return
    try:
        if method == "GET":
            await listening.open_get_stream(exchange, session)
            return
        await end_session(session)
    except Refusal:
        raise
    except Exception as failure:
        logger.exception("%s of a session failed", method)
        raise unavailable() from failure
    await exchange.accept(204)


def _method_not_allowed(method: str, from_page: bool) -> Refusal:
    return Refusal(
        405,
        "method_not_allowed",
        "A stream to listen to belongs to a session: send initialize with POST first, and name the "
        "Mcp-Session-Id it answers with."
        if method == "GET"
        else "Send messages with POST; DELETE ends the session named in Mcp-Session-Id.",
        (_ALLOW_PAGES if from_page else _ALLOW,),
    )


def _not_found() -> Refusal:
    """One text for a slug nobody has and for one this person may not use (security.md #127)."""
    return Refusal(
        404,
        "not_found",
        "There is no MCP server at this address that you may use. Check the address, or ask the "
        "administrator for access.",
    )


def _no_session() -> Refusal:
    return Refusal(
        404,
        "session_unknown",
        "This session has ended or is not yours. Send initialize to open a new one.",
    )
