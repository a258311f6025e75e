"""Protocol revisions the gateway speaks, and the constants that depend on them."""

from enum import StrEnum
from typing import Final

MODERN = "2026-07-28"
LEGACY_LATEST = "2025-11-25"
LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
# Served like 2025-03-26: some hosts still ask for it over Streamable HTTP (protocol.md 2.2).
LEGACY_ACCEPTED = (*LEGACY_REVISIONS, "2024-11-05")
SUPPORTED = (MODERN, *LEGACY_REVISIONS)

META_PREFIX = "io.modelcontextprotocol/"
META_VERSION = META_PREFIX + "protocolVersion"
META_CLIENT_INFO = META_PREFIX + "clientInfo"
# How the gateway names itself to an upstream where it asks on nobody's behalf (protocol.md 6.4).
OWN_CLIENT_INFO: Final = {"name": "mcp-gateway", "version": "1"}
META_CLIENT_CAPABILITIES = META_PREFIX + "clientCapabilities"
META_LOG_LEVEL = META_PREFIX + "logLevel"
META_SERVER_INFO = META_PREFIX + "serverInfo"


class Era(StrEnum):
    """The two families of revisions: stateless (modern) and stateful (legacy)."""

    MODERN = "modern"
    LEGACY = "legacy"


def era_of(revision: str) -> Era:
    """Return the family a revision belongs to."""
    return Era.MODERN if revision == MODERN else Era.LEGACY
