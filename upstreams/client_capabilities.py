"""What the gateway declares of a client to an upstream, in that upstream's revision.

Never more than this request's client declared (protocol.md D9), less what does not cross
the bridge: the tasks of 2025-11-25, and notices about changed roots to or of a stateless side
(2.3.1, 2.3.8).
"""

from functools import lru_cache
from typing import Any

from upstreams import json_rpc
from upstreams.json_rpc import NotJsonRpc
from upstreams.revisions import MODERN

# Revisions in which a client may declare elicitation at all, and with modes.
_WITH_ELICITATION = ("2025-06-18", "2025-11-25", MODERN)
_WITH_MODES = ("2025-11-25", MODERN)


@lru_cache(maxsize=512)
def capabilities_for(revision: str, declared: bytes) -> bytes:
    """Return the capabilities object to send; ``declared`` is the client's own, raw.

    Capabilities that cannot be read count as none.
    """
    try:
        found = json_rpc.plain(declared or b"{}")
    except NotJsonRpc:
        found = {}
    if not isinstance(found, dict):
        found = {}
    found.pop("tasks", None)
    if revision == MODERN and isinstance(found.get("roots"), dict):
        found["roots"].pop("listChanged", None)
    if "elicitation" in found:
        _fit_elicitation(found, revision)
    if revision not in _WITH_MODES and isinstance(found.get("sampling"), dict):
        found["sampling"] = {}
    return json_rpc.encode(found)


def any_asked(capabilities: bytes) -> bool:
    """Tell whether a client with these raw capabilities can be asked anything."""
    declared = json_rpc.members_of(capabilities)
    return any(name in declared for name in ("elicitation", "sampling", "roots"))


def _fit_elicitation(found: dict[str, Any], revision: str) -> None:
    """Modes exist since 2025-11-25; before, elicitation meant forms (b21)."""
    modes = found["elicitation"]
    if not isinstance(modes, dict) or revision not in _WITH_ELICITATION:
        del found["elicitation"]
    elif revision not in _WITH_MODES:
        if modes and "form" not in modes:
            del found["elicitation"]
        else:
            found["elicitation"] = {}
    elif revision == MODERN and not modes:
        found["elicitation"] = {"form": {}}
