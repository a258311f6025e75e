"""The endpoint alone as an ASGI application, for servers that run in a process of their own."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import re_path  # noqa: E402

from virtualmcp.transport.endpoint import McpEndpoint  # noqa: E402

application = ProtocolTypeRouter(
    {"http": URLRouter([re_path(r"^v1/mcp/(?P<slug>[^/]*)/?$", McpEndpoint())])}
)
