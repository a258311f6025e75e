"""Control-plane HTTP: discovery, registration, token requests, probes. The only importer of httpx.

One request per connection to an address that the egress guard has checked; the name
stays in Host, SNI and the certificate check. No redirects, no cookies, no proxies from
the environment, no content codings, and limits on bytes and on the whole time
(security.md section 3 and #142, #143, #158; protocol.md 5.4).
"""

import asyncio
import functools
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx
from django.conf import settings

from upstreams import oauth_trace
from upstreams.egress_guard import EgressRules, check_url_by, host_of, resolve_by
from upstreams.errors import (
    UpstreamAnswerInvalid,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from upstreams.fetched_answer import FetchedAnswer

MAX_BYTES: Final = 64 * 1024
TOTAL_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 3.0
MAX_HEADER_BYTES: Final = 32 * 1024
USER_AGENT: Final = "mcp-gateway"


@functools.lru_cache(maxsize=4)
def _tls_context(extra_bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if extra_bundle:
        context.load_verify_locations(cafile=extra_bundle)
    return context


def tls_context() -> ssl.SSLContext:
    """Return the context for connections to others: the system's roots and the extra bundle."""
    return _tls_context(settings.GATEWAY_EXTRA_CA_BUNDLE)


async def fetch(
    method: str,
    url: str,
    *,
    rules: EgressRules,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
    max_bytes: int = MAX_BYTES,
    total_seconds: float = TOTAL_SECONDS,
    head_only: bool = False,
) -> FetchedAnswer:
    """Send one request and read the whole answer; ``head_only`` leaves the body unread.

    Raises:
        EgressRefused: the URL or one of its addresses is not allowed; nothing was sent.
        UpstreamUnreachable: no connection.
        UpstreamTimeout: no complete answer within ``total_seconds``.
        UpstreamAnswerInvalid: too large, encoded, or not HTTP.
    """
    started = time.monotonic()
    given, answer, failure = headers or {}, None, None
    try:
        answer = await _fetched(
            method, url, rules, given, content, max_bytes, total_seconds, head_only
        )
        return answer
    except UpstreamError as error:
        failure = error
        raise
    finally:
        taken = time.monotonic() - started
        oauth_trace.exchanged(method, url, given, content, answer, failure, taken)


async def _fetched(
    method: str,
    url: str,
    rules: EgressRules,
    headers: Mapping[str, str],
    content: bytes,
    max_bytes: int,
    total_seconds: float,
    head_only: bool,
) -> FetchedAnswer:
    check_url_by(url, rules)
    parts = urlsplit(url)
    plain = parts.scheme == "http"
    host, port = host_of(parts), parts.port or (80 if plain else 443)
    try:
        async with asyncio.timeout(total_seconds):
            addresses = await resolve_by(host, port, rules, plain=plain)
            return await _exchange(
                _request(method, url, headers, content, total_seconds),
                host,
                addresses,
                max_bytes,
                head_only,
            )
    except TimeoutError as error:
        raise UpstreamTimeout(
            "The server did not answer in time.", detail=f"{url}: over {total_seconds} s"
        ) from error


def _request(
    method: str, url: str, headers: Mapping[str, str], content: bytes, seconds: float
) -> httpx.Request:
    return httpx.Request(
        method,
        url,
        headers={
            "accept": "application/json",
            "user-agent": USER_AGENT,
            **headers,
            "accept-encoding": "identity",
            "connection": "close",
        },
        content=content or None,
        extensions={
            "timeout": {
                "connect": CONNECT_SECONDS,
                "read": seconds,
                "write": seconds,
                "pool": CONNECT_SECONDS,
            }
        },
    )


async def _exchange(
    request: httpx.Request, host: str, addresses: list[str], max_bytes: int, head_only: bool
) -> FetchedAnswer:
    """Try the checked addresses in turn until one connects."""
    failure: Exception | None = None
    for address in addresses:
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        transport = httpx.AsyncHTTPTransport(
            verify=tls_context(), trust_env=False, http2=False, retries=0
        )
        try:
            async with transport:
                answer = await transport.handle_async_request(pinned)
                try:
                    return await _read(answer, str(request.url), max_bytes, head_only)
                finally:
                    await answer.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = error
        except httpx.TimeoutException as error:
            raise UpstreamTimeout(
                "The server did not answer in time.",
                detail=f"{request.url}: {type(error).__name__}",
            ) from error
        except (httpx.HTTPError, httpx.StreamError, ValueError) as error:
            raise UpstreamAnswerInvalid(
                "The server's answer is not proper HTTP.",
                detail=f"{request.url}: {type(error).__name__}",
            ) from error
    reason = type(failure).__name__
    if failure is not None and "certificate" in str(failure).lower():
        reason = "the TLS certificate is not trusted"
    raise UpstreamUnreachable(
        "No connection to the server could be made.", detail=f"{request.url}: {reason}"
    ) from failure


async def _read(answer: httpx.Response, url: str, max_bytes: int, head_only: bool) -> FetchedAnswer:
    if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UpstreamAnswerInvalid(
            "The server's answer is compressed although plain text was asked for.",
            detail=f"{url}: content-encoding {answer.headers['content-encoding'][:40]!r}",
        )
    found = [(key.lower(), value) for key, value in answer.headers.multi_items()]
    if sum(len(key) + len(value) for key, value in found) > MAX_HEADER_BYTES:
        raise _too_large(url, MAX_HEADER_BYTES)
    body = bytearray()
    if not head_only:
        declared = answer.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > max_bytes:
            raise _too_large(url, max_bytes)
        async for chunk in answer.stream:  # type: ignore[union-attr]
            body += chunk
            if len(body) > max_bytes:
                raise _too_large(url, max_bytes)
    return FetchedAnswer(url, answer.status_code, tuple(found), bytes(body))


def _too_large(url: str, limit: int) -> UpstreamAnswerInvalid:
    return UpstreamAnswerInvalid(
        "The server's answer is too large.", detail=f"{url}: more than {limit} bytes"
    )


async def get(url: str, *, rules: EgressRules) -> FetchedAnswer:
    """Fetch a document."""
    return await fetch("GET", url, rules=rules)


async def post_form(
    url: str,
    form: Mapping[str, str],
    *,
    rules: EgressRules,
    headers: Mapping[str, str] | None = None,
    total_seconds: float = TOTAL_SECONDS,
) -> FetchedAnswer:
    """Send a form, as token and revocation endpoints want it (RFC 6749 3.2)."""
    return await fetch(
        "POST",
        url,
        rules=rules,
        headers={**(headers or {}), "content-type": "application/x-www-form-urlencoded"},
        content=urlencode(form).encode("ascii"),
        total_seconds=total_seconds,
    )


async def post_json(
    url: str,
    document: Mapping[str, Any],
    *,
    rules: EgressRules,
    headers: Mapping[str, str] | None = None,
    head_only: bool = False,
) -> FetchedAnswer:
    """Send a JSON document."""
    return await fetch(
        "POST",
        url,
        rules=rules,
        headers={"content-type": "application/json", **(headers or {})},
        content=json.dumps(document).encode(),
        head_only=head_only,
    )
