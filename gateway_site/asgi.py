"""ASGI entry: the MCP endpoint goes to its own consumer, everything else to Django.

Any ASGI server may run ``application``. One with a lifespan (uvicorn) starts and stops the
background work by it; for one without (Daphne) the first request starts the work.
"""

import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_site.settings")
django_application = get_asgi_application()

# Importing these needs the app registry, which the line above has filled.
from gateway_site.background_work import BackgroundWork  # noqa: E402
from gateway_site.configuration_checks import require_sound_configuration  # noqa: E402
from gateway_site.trusted_proxy import behind_proxy  # noqa: E402
from virtualmcp.transport.endpoint import McpEndpoint, is_endpoint  # noqa: E402

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

require_sound_configuration()
background_work = BackgroundWork()


async def answer_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Start the background work with the server and end it with the server (ASGI lifespan)."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            background_work.ensure_started()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await background_work.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Close the handshake: nothing here speaks WebSocket."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


endpoint: Any = McpEndpoint()
pages: Any = django_application


def answer_http(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Route one HTTP exchange: every call passes here, so two comparisons take the place of a
    list of patterns, and what is to be awaited is handed on.

    Django is given the peer's address and scheme put right; the endpoint looks at neither.
    """
    if is_endpoint(scope["path"]):
        if not background_work.started:
            background_work.ensure_started()
        answering: Awaitable[None] = endpoint(scope, receive, send)
        return answering
    background_work.ensure_started()
    page: Awaitable[None] = pages(behind_proxy(scope), receive, send)
    return page


# What start-up made stays for good: no collection need look at it again, and calls, which leave
# little for the collector, need not trigger one every few hundred objects.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 20)

application = ProtocolTypeRouter(
    {"http": answer_http, "lifespan": answer_lifespan, "websocket": refuse_websocket}
)
