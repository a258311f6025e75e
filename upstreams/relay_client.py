"""The HTTP client of the relay path: one request, one answer, over pooled connections.

    async with relay_client.post(facts, credential, headers, body, timeout=50) as answer:
        if answer.status == 200:
            data = await answer.read(limit)

Written for relaying alone, which is why it is small and fast: it keeps nothing between
requests but connections, follows no redirect, stores no cookie, decodes nothing and asks
no proxy (security.md #142, #158, #192-#194). Limits are in ``relay_connection`` and
``connection_pool``. Leaving the block before the answer is complete closes the connection,
which is how a stateless upstream learns of a cancellation (protocol.md b15).
"""

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

from upstreams import connection_pool, request_heads
from upstreams.connection_pool import LoopPools
from upstreams.errors import UpstreamAnswerInvalid, UpstreamTimeout
from upstreams.exchange_faults import AnswerRefused, Dropped, TimedOut
from upstreams.relay_connection import RelayConnection
from upstreams.request_heads import Headers, Target, UnsafeHeader
from upstreams.upstream_facts import UpstreamFacts

if TYPE_CHECKING:
    from upstreams.credentials import Credential

MAX_ANSWER_BYTES: Final = 10 * 1024 * 1024
FIRST_BYTE_SECONDS: Final = 30.0
# Kept back from a call's time for the answer itself, once the first byte is there.
ANSWER_SECONDS: Final = 20.0


class RelayExchange:
    """One request and its answer; an asynchronous context manager.

    Attributes:
        status: the answer's HTTP status.
        headers: lower-case names of the few headers that are kept.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_credential",
        "_facts",
        "_finished",
        "_first_byte",
        "_headers",
        "_method",
        "_pools",
        "_resend",
        "_timeout",
        "headers",
        "status",
    )

    def __init__(
        self,
        method: bytes,
        facts: UpstreamFacts,
        credential: "Credential",
        headers: Headers,
        body: bytes,
        *,
        timeout: float,
        first_byte: float = 0.0,
        resend: bool = False,
    ) -> None:
        self._method = method
        self._facts = facts
        self._credential = credential
        self._headers = headers
        self._body = body
        self._timeout = timeout
        self._first_byte = first_byte
        self._resend = resend
        self._finished = False
        self._connection: RelayConnection | None = None
        self._pools: LoopPools | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}

    async def __aenter__(self) -> "RelayExchange":
        """Send the request, unless it went out already, and wait for the head of the answer.

        Raises:
            UpstreamUnreachable, EgressRefused: no connection; nothing was sent.
            UpstreamTimeout: no answer in time.
            UpstreamAnswerInvalid: a redirect, a compressed answer, broken HTTP, a broken
                connection, or a request that cannot be written as HTTP.
        """
        connection = self._connection
        if connection is None:
            connection = await self._sent(resend=self._resend)
        else:
            self._connection = None
            connection = await self._answered(connection)
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers
        if 300 <= self.status < 400:
            connection.abort()
            raise UpstreamAnswerInvalid(
                f"{self._facts.title} answered with a redirect, which is not followed.",
                detail=f"HTTP {self.status}; configure the address it redirects to",
            )
        return self

    async def _answered(self, connection: RelayConnection) -> RelayConnection:
        """Wait for the head of the answer to a started request; return the connection it is on.

        Raises:
            UpstreamError: as for ``__aenter__``.
        """
        try:
            await connection.answered()
        except (Dropped, AnswerRefused, TimedOut) as error:
            if not (self._resend and isinstance(error, Dropped) and error.untouched):
                raise self.translated(error) from error
        except BaseException:
            connection.abort()
            raise
        else:
            return connection
        # It was started on a kept connection: as in ``_sent``, the second try is the last.
        return await self._sent(resend=False)

    async def _sent(self, *, resend: bool) -> RelayConnection:
        """Send the request; return its connection, with the head of the answer.

        Raises:
            UpstreamError: as for ``__aenter__``.
        """
        target = self._target()
        head = self._head(target)
        pools = self._pools = connection_pool.pools()
        pool = pools.pool(target.origin)
        while True:
            now = pools.loop.time()
            connection = pool.take(now)
            reused = connection is not None
            if connection is None:
                connection = await pool.connect()
                now = pools.loop.time()
            try:
                await connection.send(
                    head,
                    self._body,
                    first_byte_by=now + self._silent(),
                    deadline=now + self._timeout,
                )
            except Dropped as error:
                # RFC 9110 9.2.2: only what may be sent twice is, and only when the peer had
                # closed a kept connection without a word.
                if not (reused and error.untouched and resend):
                    raise self.translated(error) from error
                resend = False
                continue
            except (AnswerRefused, TimedOut) as error:
                raise self.translated(error) from error
            except BaseException:
                connection.abort()
                raise
            return connection

    def _silent(self) -> float:
        silent = self._first_byte or max(FIRST_BYTE_SECONDS, self._timeout - ANSWER_SECONDS)
        return min(silent, self._timeout)

    def start(self, may_go: Callable[[], bool], told: Callable[[], None]) -> bool:
        """Send the request over a connection that is open already, without waiting for the answer.

        False if there is none, or ``may_go``, which is asked last, says no: nothing was sent then.
        ``told`` is called as ``RelayConnection.start`` says; entering the exchange goes on from
        there.

        Raises:
            UpstreamError: the request cannot be written.
        """
        target = self._target()
        head = self._head(target)
        pools = self._pools = connection_pool.pools()
        pool = pools.pool(target.origin)
        now = pools.loop.time()
        connection = pool.take(now)
        if connection is None:
            return False
        if not may_go():
            pool.put_back(connection)
            return False
        self._connection = connection
        connection.start(
            head,
            self._body,
            first_byte_by=now + self._silent(),
            deadline=now + self._timeout,
            told=told,
        )
        return True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep the connection if the answer is complete, else close it."""
        self.end(drain=self._finished and kind is None)

    def end(self, *, drain: bool = False) -> None:
        """Keep the connection if the answer is complete, or with ``drain`` soon will be; else
        close it."""
        connection, pools = self._connection, self._pools
        if connection is not None and pools is not None:
            connection.finish(drain=drain, now=pools.loop.time())
            self._connection = None

    def stay_silent(self) -> None:
        """Tell nobody of the answer any more."""
        if self._connection is not None:
            self._connection.tell_nobody()

    def document(self, kinds: frozenset[bytes]) -> bytes | None:
        """Return the answer to a started request if it is whole, successful and of one of these
        kinds; it stays to be read."""
        connection = self._connection
        if connection is None or connection.status != 200:
            return None
        if connection.headers.get(b"content-type") not in kinds:
            return None
        return connection.document()

    def _target(self) -> Target:
        facts = self._facts
        try:
            return request_heads.target_of(facts.url, facts.private_network)
        except ValueError as error:
            raise UpstreamAnswerInvalid(
                f"The address of {facts.title} cannot be used.", detail=str(error)
            ) from error

    def _head(self, target: Target) -> bytes:
        own = self._credential
        try:
            begun = request_heads.begun(
                self._method, target.path, target.fixed, self._headers, own.headers, own.query
            )
        except UnsafeHeader as error:
            raise UpstreamAnswerInvalid(
                f"{error.what} for {self._facts.title} cannot be sent.", detail=error.detail
            ) from error
        if self._method == b"POST":
            return b"%sContent-Length: %d\r\n\r\n" % (begun, len(self._body))
        return begun + b"\r\n"

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamAnswerInvalid: it is longer than ``limit`` bytes, or broke off.
            UpstreamTimeout: its end did not come in time.
        """
        length = self.headers.get(b"content-length", b"")
        if length and int(length) > limit:
            raise self._too_large(limit)
        body = self.at_hand(limit)
        if body is not None:
            return body
        parts, size = [], 0
        while part := await self.chunk():
            size += len(part)
            if size > limit:
                raise self._too_large(limit)
            parts.append(part)
        return b"".join(parts)

    def at_hand(self, limit: int) -> bytes | None:
        """Return the whole body if all of it has arrived, else None.

        Raises:
            UpstreamAnswerInvalid: it is longer than ``limit`` bytes.
        """
        body = self._open().whole_body()
        if body is not None and len(body) > limit:
            raise self._too_large(limit)
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body piece by piece as it comes; not reading on holds the upstream back.

        Raises:
            UpstreamAnswerInvalid, UpstreamTimeout: as for ``read``.
        """
        while data := await self.chunk():
            yield data

    async def chunk(self) -> bytes:
        """Return the next piece of the body, ``b""`` at its end.

        Raises:
            UpstreamAnswerInvalid, UpstreamTimeout: as for ``read``.
        """
        try:
            return await self._open().chunk()
        except (Dropped, AnswerRefused, TimedOut) as error:
            raise self.translated(error) from error

    def finish(self) -> None:
        """Say that the answer is known although its end is not here: the end may follow."""
        self._finished = True

    def extend(self, seconds: float) -> None:
        """Let the answer take this long from now on."""
        if self._connection is not None and self._pools is not None:
            self._connection.deadline = self._pools.loop.time() + seconds

    def _open(self) -> RelayConnection:
        if self._connection is None:
            raise RuntimeError("the exchange is not open")
        return self._connection

    def _too_large(self, limit: int) -> UpstreamAnswerInvalid:
        return UpstreamAnswerInvalid(
            f"The answer of {self._facts.title} is too large.", detail=f"more than {limit} bytes"
        )

    def translated(self, error: Exception) -> UpstreamAnswerInvalid | UpstreamTimeout:
        """Return what people are told about a failure of the connection."""
        title = self._facts.title
        if isinstance(error, TimedOut):
            return UpstreamTimeout(f"{title} did not answer in time.", detail=str(error))
        if isinstance(error, Dropped):
            return UpstreamAnswerInvalid(
                f"{title} closed the connection before its answer was complete; "
                "whether it did what was asked is not known.",
                detail=str(error),
            )
        return UpstreamAnswerInvalid(f"{title} gave an invalid answer.", detail=str(error))


def post(
    facts: UpstreamFacts,
    credential: "Credential",
    headers: Headers,
    body: bytes,
    *,
    timeout: float,
    resend: bool = False,
) -> RelayExchange:
    """Send a POST; use as ``async with``.

    ``timeout`` is for the whole answer, in seconds; its first byte must come within 30 s, or
    within all but the last 20 s of a longer ``timeout``. ``resend`` allows a second try
    on a fresh connection when the upstream had dropped a kept one without answering: never
    for requests that may have effects.
    """
    return RelayExchange(b"POST", facts, credential, headers, body, timeout=timeout, resend=resend)


def get(
    facts: UpstreamFacts, credential: "Credential", headers: Headers, *, timeout: float
) -> RelayExchange:
    """Send a GET; as ``post``."""
    return RelayExchange(b"GET", facts, credential, headers, b"", timeout=timeout, resend=True)


def delete(
    facts: UpstreamFacts, credential: "Credential", headers: Headers, *, timeout: float
) -> RelayExchange:
    """Send a DELETE; as ``post``."""
    return RelayExchange(b"DELETE", facts, credential, headers, b"", timeout=timeout, resend=True)


async def close_all() -> None:
    """Close the running loop's connections; call it when the process ends."""
    connection_pool.close_pools()
