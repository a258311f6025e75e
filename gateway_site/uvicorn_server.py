"""uvicorn as the gateway runs it: bounded connections, and an end that loses no call.

python -m gateway_site.uvicorn_server --port 8000
"""

import argparse
import asyncio
import logging
import os
import resource
import socket
import sys
from typing import Any

from uvicorn import Config, Server

from gateway_site.client_connections import ClientConnection, ConnectionLimits
from gateway_site.express_connection import ExpressConnection

logger = logging.getLogger(__name__)

# Files a process needs beside connections: database, logs, the server's own sockets.
OTHER_FILES = 256
SWEEP_EVERY_TICKS = 10


class DrainingServer(Server):  # type: ignore[misc]
    """Sweeps its connections, and drains at SIGTERM.

    Args:
        config: uvicorn's own.
        linger: seconds in which new calls are still taken after SIGTERM, while load balancers
            learn from ``/readyz`` that this process ends.
    """

    def __init__(self, config: Config, linger: float) -> None:
        super().__init__(config)
        self._linger = linger

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: look after the connections, and whether to end."""
        if counter % SWEEP_EVERY_TICKS == 0:
            self._sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: say so to load balancers and streams, then wait for the running calls."""
        from gateway_site.health_views import stop_being_ready
        from virtualmcp.transport import draining

        stop_being_ready()
        ClientConnection.stopping = True
        draining.begin(self._linger + float(self.config.timeout_graceful_shutdown or 0))
        await asyncio.sleep(self._linger)
        await super().shutdown(sockets)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            connection.sweep(now)


def raise_file_limit(connections: int) -> int:
    """Let the process open as many files as it may; returns how many connections fit.

    A call takes two: the client's connection and one to the upstream.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    return max(1, (soft - OTHER_FILES) // 2)


def limits_from_settings() -> ConnectionLimits:
    """Return the limits of the settings, lowered to what the operating system allows."""
    from django.conf import settings

    wanted = settings.GATEWAY_MAX_CONNECTIONS
    possible = raise_file_limit(wanted)
    if possible < wanted:
        logger.warning(
            "This process may open so few files that only %d of %d connections fit. "
            "Raise the limit (ulimit -n, LimitNOFILE=) or lower GATEWAY_MAX_CONNECTIONS.",
            possible,
            wanted,
        )
    return ConnectionLimits(
        head_seconds=settings.GATEWAY_HEADER_SECONDS,
        body_seconds=settings.GATEWAY_REQUEST_SECONDS,
        idle_seconds=settings.GATEWAY_KEEP_ALIVE_SECONDS,
        connections=possible,
    )


def configuration(application: Any, options: argparse.Namespace) -> Config:
    """Return uvicorn's configuration."""
    return Config(
        application,
        host=options.host,
        port=options.port,
        loop="uvloop" if sys.platform != "win32" else "auto",
        http=ExpressConnection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        # The gateway decides itself which proxy it believes (trusted_proxy.py).
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(options.drain - options.linger)),
    )


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Serve the gateway with uvicorn.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--fd", type=int, help="an open, listening socket, instead of an address")
    parser.add_argument("--drain", type=float, default=25, help="seconds running answers may take")
    parser.add_argument(
        "--linger", type=float, default=0, help="of these, seconds in which new calls are taken"
    )
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_site.settings")
    from gateway_site.asgi import application
    from virtualmcp.transport import express_lane

    ExpressConnection.lane = express_lane
    ClientConnection.limits = limits_from_settings()
    sockets = [socket.socket(fileno=options.fd)] if options.fd is not None else None
    DrainingServer(configuration(application, options), options.linger).run(sockets)


if __name__ == "__main__":
    main()
