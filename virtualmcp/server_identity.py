"""How a Virtual MCP names itself to clients; never by what an upstream calls itself (a7)."""

from functools import lru_cache

from virtualmcp import raw_members
from virtualmcp.route_table import VirtualMcpFacts

VERSION = "0.1.0"


def server_info(server: VirtualMcpFacts) -> dict[str, str]:
    """Return ``serverInfo`` as ``initialize`` and ``server/discover`` show it."""
    return {"name": server.slug, "title": server.title, "version": VERSION}


@lru_cache(maxsize=1_024)
def _raw(slug: str, title: str) -> bytes:
    return raw_members.write({"name": slug, "title": title, "version": VERSION})


def raw_server_info(server: VirtualMcpFacts) -> bytes:
    """Return the same as raw JSON, for the ``_meta`` of results."""
    return _raw(server.slug, server.title)
