"""Daphne as the gateway runs it: no access log, no server header, and it ends what it began.

python -m gateway_site.daphne_server --port 8000
"""

# Importing Daphne's server first installs the reactor on asyncio.
from daphne.server import Server  # isort: skip

import argparse
import asyncio
import os
from functools import partial
from typing import Any

from twisted.internet import defer

from gateway_site.express_channel import ExpressChannel


class _Flow:
    """Whether a client takes what is written to it; Twisted tells it (``IPushProducer``)."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    def pauseProducing(self) -> None:  # noqa: N802
        """The connection's buffer is full."""
        self.open.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        """The connection takes more."""
        self.open.set()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is lost: nobody need wait for it."""
        self.open.set()


class DrainingServer(Server):  # type: ignore[misc]
    """Stops listening at SIGTERM, lets running answers end, then ends the background work.

    What an application sends waits until the client has taken most of what was sent before:
    Daphne alone would collect a whole answer in memory for a client that has stopped reading.
    """

    channel_class = ExpressChannel

    def __init__(self, application: Any, endpoints: list[str], drain: float) -> None:
        super().__init__(
            application,
            endpoints=endpoints,
            server_name="",
            verbosity=0,
            http_timeout=None,
            # A stateful client's call goes on when its connection drops.
            application_close_timeout=660,
        )
        self._drain_seconds = drain
        self._ports: list[Any] = []
        # The open connections; each adds and removes itself.
        self.channels: set[ExpressChannel] = set()

    @property
    def http_factory(self) -> Any:
        """What makes a connection's protocol; the gateway's own in place of Twisted's, which would
        also speak HTTP/2 over TLS, and here is neither."""
        return self._http_factory

    @http_factory.setter
    def http_factory(self, made: Any) -> None:
        made.protocol = self.channel_class
        self._http_factory = made

    def create_application(self, protocol: Any, scope: Any) -> Any:
        """Begin to answer a request; one whose call is under way already goes on with it."""
        call = protocol.channel.take_over() if scope["type"] == "http" else None
        if call is None:
            return super().create_application(protocol, scope)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        scope.setdefault("asgi", {"version": "3.0"})
        answering = call.carry_on(scope, queue.get, partial(self.handle_reply, protocol))
        self.connections[protocol]["application_instance"] = asyncio.ensure_future(answering)
        return queue

    async def handle_reply(self, protocol: Any, message: Any) -> None:
        """Send one message of an application, and wait while the connection is full."""
        if not message["type"].startswith("http.response."):
            await super().handle_reply(protocol, message)
            return
        if message["type"] == "http.response.start" and protocol.channel is not None:
            protocol.registerProducer(_Flow(), True)
        flow = protocol.producer
        ends = message["type"] == "http.response.body" and not message.get("more_body")
        if ends and flow is not None and protocol.channel is not None:
            protocol.unregisterProducer()
        await super().handle_reply(protocol, message)
        if flow is not None and not ends:
            await flow.open.wait()

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
        draining.begin(self._drain_seconds)
        for port in self._ports:
            port.stopListening()
        for channel in list(self.channels):
            channel.leave_lane()
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
    from virtualmcp.transport import express_lane

    ExpressChannel.lane = express_lane
    host = options.host.replace(":", r"\:")
    DrainingServer(application, [f"tcp:{options.port}:interface={host}"], options.drain).run()


if __name__ == "__main__":
    main()
