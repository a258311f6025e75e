"""The endpoint on Daphne as the gateway runs it, with a lane that says what it took.

python -m tests.virtualmcp.served_by_daphne PORT

``/lane`` answers how many calls the lane began and handed on.
"""

# Daphne's server comes first: it installs the reactor.
from gateway_site.daphne_server import DrainingServer  # isort: skip

import json
import sys
from typing import Any

from gateway_site.express_channel import ExpressChannel
from tests.virtualmcp.served_endpoint import application
from virtualmcp.transport import express_lane

counts = {"began": 0, "handed_on": 0}


class CountingLane:
    """The lane, counting what it begins."""

    ANSWER_HEADERS = express_lane.ANSWER_HEADERS
    read = staticmethod(express_lane.read)

    @staticmethod
    def begin(head: Any, body: bytes, client: Any) -> Any:
        """Count."""
        found = express_lane.begin(head, body, client)
        counts["began"] += found is not None
        return found


class Channel(ExpressChannel):
    """A connection that counts what it hands on."""

    lane = CountingLane

    def carry_on(self) -> None:
        """Count."""
        counts["handed_on"] += self.running is not None
        super().carry_on()


class Server(DrainingServer):
    """The gateway's, without its background work."""

    channel_class = Channel


async def counted(scope: Any, receive: Any, send: Any) -> None:
    """Answer the endpoint's requests, and what was counted."""
    if scope["path"] != "/lane":
        await application(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(counts).encode()})


if __name__ == "__main__":
    # Patient enough for a busy machine, unless a test is about the time.
    express_lane.WAIT_SECONDS = float(sys.argv[2])  # type: ignore[misc]
    Server(counted, [f"tcp:{sys.argv[1]}:interface=127.0.0.1"], 15).run()
