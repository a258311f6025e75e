"""ASGI entry: the MCP endpoint goes to its own consumer, everything else to Django."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_site.settings")

application = ProtocolTypeRouter({"http": get_asgi_application()})
