"""Pools of keep-alive connections, one per event loop and origin, behind the egress guard.

Every new connection goes to an address the guard has just checked, while certificate and
``Host`` are those of the name (security.md #157). A pool that lives on asks again every
minute and drops connections to addresses the name no longer has (R10).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from django.conf import settings

from upstreams import egress_guard
from upstreams.errors import EgressRefused, UpstreamUnreachable
from upstreams.relay_connection import IDLE, WHOLE_READ_BYTES, RelayConnection
from upstreams.running_loop import running_loop

CONNECT_SECONDS = 3.0
NEXT_ADDRESS_AFTER = 0.25
IDLE_SECONDS = 30.0
RECHECK_SECONDS = 60.0
SWEEP_SECONDS = 0.2
MAX_IDLE = 64


class Origin(NamedTuple):
    """Where connections go and under which address rules; ``network`` is ``private_network``."""

    scheme: str
    host: str
    port: int
    network: str


@lru_cache(maxsize=4)
def tls_context(extra_bundle: str) -> ssl.SSLContext:
    """Return a verifying context for HTTP/1.1, trusting ``extra_bundle`` (a path) as well."""
    context = ssl.create_default_context()
    if extra_bundle:
        context.load_verify_locations(extra_bundle)
    context.set_alpn_protocols(["http/1.1"])
    return context


class OriginPool:
    """The connections of one loop to one origin."""

    def __init__(self, owner: "LoopPools", origin: Origin) -> None:
        self._owner = owner
        self.origin = origin
        self._idle: list[RelayConnection] = []
        self._checked_at = 0.0
        self._recheck: asyncio.Task[None] | None = None

    def take(self, now: float) -> RelayConnection | None:
        """Return an idle connection that still stands, or None."""
        if now - self._checked_at > RECHECK_SECONDS and self._idle:
            self._check_again(now)
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now < connection.idle_until and connection.is_alive():
                return connection
            connection.abort()
        return None

    def put(self, connection: RelayConnection, now: float, keep_alive_for: float) -> None:
        """Keep a connection for the next exchange."""
        if len(self._idle) >= MAX_IDLE or self._owner.closed:
            connection.abort()
            return
        connection.idle_until = now + min(keep_alive_for or IDLE_SECONDS, IDLE_SECONDS)
        self._idle.append(connection)

    def put_back(self, connection: RelayConnection) -> None:
        """Keep a connection that was taken and not used."""
        self._idle.append(connection)

    def forget(self, connection: RelayConnection) -> None:
        """A connection has closed."""
        self._owner.connections.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    async def connect(self) -> RelayConnection:
        """Open a connection to a checked address within three seconds.

        Raises:
            EgressRefused: the name has an address the gateway must not use.
            UpstreamUnreachable: no address answers, or the certificate is not valid.
        """
        origin = self.origin
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self._resolve()
                endpoint, address = await first_to_connect(addresses, origin.port)
                connection = await self._open(endpoint)
        except TimeoutError as error:
            raise unreachable(origin, "no connection within three seconds") from error
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not valid: {error.verify_message}"
            raise unreachable(origin, reason, shown="its certificate is not valid") from error
        except (OSError, ssl.SSLError) as error:
            raise unreachable(origin, str(error) or type(error).__name__) from error
        connection.address = address
        return connection

    async def _resolve(self) -> list[str]:
        origin = self.origin
        egress_guard.check_url(
            f"{origin.scheme}://{bracketed(origin.host)}:{origin.port}/",
            private_network=origin.network,
            purpose="upstream",
        )
        addresses = await egress_guard.resolve(
            origin.host,
            origin.port,
            private_network=origin.network,
            plain=origin.scheme == "http",
        )
        self._checked_at = self._owner.loop.time()
        return addresses

    async def _open(self, endpoint: socket.socket) -> RelayConnection:
        owner, origin = self._owner, self.origin
        secure = origin.scheme == "https"
        try:
            _, connection = await owner.loop.create_connection(
                lambda: RelayConnection(owner.loop, owner.buffer, self),
                sock=endpoint,
                ssl=tls_context(settings.GATEWAY_EXTRA_CA_BUNDLE) if secure else None,
                server_hostname=origin.host if secure else None,
            )
        except BaseException:
            endpoint.close()
            raise
        owner.connections.add(connection)
        owner.start_sweep()
        return connection

    def _check_again(self, now: float) -> None:
        if self._recheck is None or self._recheck.done():
            self._checked_at = now
            self._recheck = self._owner.loop.create_task(self._drop_moved())

    async def _drop_moved(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = set(await self._resolve())
        except EgressRefused:
            addresses = set()
        except (TimeoutError, UpstreamUnreachable, OSError):
            return
        for connection in [c for c in self._idle if c.address not in addresses]:
            connection.abort()


class LoopPools:
    """All pools of one event loop, their shared read buffer and their sweep."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.buffer = memoryview(bytearray(WHOLE_READ_BYTES))
        self.connections: set[RelayConnection] = set()
        self.closed = False
        self._pools: dict[Origin, OriginPool] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def pool(self, origin: Origin) -> OriginPool:
        """Return the pool of an origin."""
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = OriginPool(self, origin)
        return pool

    def start_sweep(self) -> None:
        """See to the time limits as long as there are connections."""
        if self._sweep is None:
            self._sweep = self.loop.call_later(SWEEP_SECONDS, self._look_at_clocks)

    def _look_at_clocks(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for connection in list(self.connections):
            if connection.phase == IDLE and now > connection.idle_until:
                connection.abort()
            else:
                connection.check_time(now)
        if self.connections:
            self.start_sweep()

    def close(self) -> None:
        """Close every connection; running exchanges end with an error."""
        self.closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self.connections):
            connection.abort()


_pools: dict[asyncio.AbstractEventLoop, LoopPools] = {}


def pools() -> LoopPools:
    """Return the running loop's pools; those of closed loops are dropped on the way."""
    loop = running_loop()
    found = _pools.get(loop)
    if found is None or found.closed:
        for other in [known for known in _pools if known.is_closed()]:
            del _pools[other]
        found = _pools[loop] = LoopPools(loop)
    return found


def close_pools() -> None:
    """Close the running loop's connections."""
    found = _pools.pop(asyncio.get_running_loop(), None)
    if found is not None:
        found.close()


def bracketed(host: str) -> str:
    """Return the host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def unreachable(origin: Origin, detail: str, *, shown: str = "") -> UpstreamUnreachable:
    """Return the error for a failed connection; the address stays in ``detail``."""
    message = f"The server could not be reached{': ' + shown if shown else ''}."
    return UpstreamUnreachable(message, detail=f"{origin.host}:{origin.port}: {detail}")


async def first_to_connect(addresses: Iterable[str], port: int) -> tuple[socket.socket, str]:
    """Connect to the addresses, each a quarter second after the one before; the first one wins.

    Raises:
        OSError: none of them accepts (the last one's error).
    """
    waiting, running = list(addresses), dict[asyncio.Task[socket.socket], str]()
    problem: OSError = OSError("the name has no address")
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                running[asyncio.ensure_future(connect_to(address, port))] = address
            pause = NEXT_ADDRESS_AFTER if waiting else None
            done, _ = await asyncio.wait(
                running, timeout=pause, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = running.pop(task)
                try:
                    return task.result(), address
                except OSError as error:
                    problem = error
        raise problem
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(close_unused)


async def connect_to(address: str, port: int) -> socket.socket:
    """Return a connected non-blocking TCP socket.

    Raises:
        OSError: the address does not accept.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    endpoint = socket.socket(family, socket.SOCK_STREAM)
    try:
        endpoint.setblocking(False)
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(endpoint)
        await asyncio.get_running_loop().sock_connect(endpoint, (address, port))
    except BaseException:
        endpoint.close()
        raise
    return endpoint


def keep_alive(endpoint: socket.socket) -> None:
    """Have the kernel notice within two minutes that the peer of a silent stream is gone."""
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        option = getattr(socket, name, None)
        if option is not None:
            endpoint.setsockopt(socket.IPPROTO_TCP, option, value)


def close_unused(task: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an attempt that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
