"""Daphne as the gateway runs it: no access log, no server header, and it ends what it began.

python -m gateway_site.daphne_server --port 8000
"""

# Importing Daphne's server first installs the reactor on asyncio.
from daphne.server import Server  # isort: skip

import argparse
import asyncio
import os
from typing import Any

from twisted.internet import defer


class DrainingServer(Server):  # type: ignore[misc]
    """Stops listening at SIGTERM, lets running answers end, then ends the background work."""

    def __init__(self, application: Any, endpoints: list[str], drain: float) -> None:
        super().__init__(
            application, endpoints=endpoints, server_name="", verbosity=0, http_timeout=None
        )
        self._drain_seconds = drain
        self._ports: list[Any] = []

    def listen_success(self, port: Any) -> None:
        """Remember the port, so that it can be closed first."""
        super().listen_success(port)
        self._ports.append(port)

    def kill_all_applications(self) -> Any:
        """Called by the reactor before it stops; it waits for the returned Deferred."""
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._end()))

    def _running(self) -> list[asyncio.Future[Any]]:
        instances = [details.get("application_instance") for details in self.connections.values()]
        return [instance for instance in instances if instance is not None and not instance.done()]

    async def _end(self) -> None:
        from gateway_site.asgi import background_work
        from gateway_site.health_views import stop_being_ready
        from virtualmcp.transport import draining

        stop_being_ready()
        draining.begin()
        for port in self._ports:
            port.stopListening()
        if running := self._running():
            await asyncio.wait(running, timeout=self._drain_seconds)
        for instance in self._running():
            instance.cancel()
        await asyncio.gather(*self._running(), return_exceptions=True)
        await background_work.stop()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Serve the gateway with Daphne.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--drain", type=float, default=25, help="seconds running answers may take")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_site.settings")
    from gateway_site.asgi import application

    host = options.host.replace(":", r"\:")
    DrainingServer(application, [f"tcp:{options.port}:interface={host}"], options.drain).run()


if __name__ == "__main__":
    main()
